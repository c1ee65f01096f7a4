"""Results of a batch's jobs, handed on to the jobs that need them."""

import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobrunner import Batch, Bury, Job, JobRunner, ResultNotStored, StoreUnavailable
from jobrunner.core.clock import now_us
from jobrunner.core.model import RESULT_PENDING, Claimed
from jobrunner.core.steering import Snooze
from jobrunner.core.workflows import ResultRow
from jobrunner.worker import handed
from tests.support.document_batches import Shop
from tests.support.engine import soon


@pytest.fixture
def shop(tmp_db: Path) -> Shop:
    return Shop(tmp_db)


async def states(jobs: tuple[Job[Any], ...]) -> list[str]:
    return [(await job.refresh()).state for job in jobs]


async def test_results_are_handed_on_in_the_type_of_the_parameter(shop: Shop) -> None:
    async with shop.jobs.running():
        page = shop.resize.call(7)
        shipped = shop.ship.call(page.result, express=True)
        batch = await shop.jobs.enqueue_batch([page, shipped])
        assert [job.state for job in batch.jobs] == ["queued", "blocked"]
        assert (await soon(batch.results()))[1] == "7 True"
        again = await batch.jobs[1].refresh()
        assert again.args == {"express": True}  # the result is not among the arguments
        assert (await shop.jobs.payload(again.id)).args == {"express": True}


async def test_list_of_results_keeps_the_order_of_the_calls(shop: Shop) -> None:
    async with shop.jobs.running():
        parts = [shop.resize.call(n) for n in (5, 3, 4)]
        merged = shop.merge.call([parts[1].result, parts[0].result, parts[1].result])
        batch = await shop.jobs.enqueue_batch([*parts, merged])
        assert (await soon(batch.results()))[-1] == [3, 5, 3]


async def test_result_of_none_is_handed_on_as_none(shop: Shop) -> None:
    @shop.jobs.task
    async def take(value: Any) -> str:
        return repr(value)

    async with shop.jobs.running():
        none = shop.nothing.call()
        value: Any = none.result
        batch: Batch[Any] = await shop.jobs.enqueue_batch([none, take.call(value)])
        assert (await soon(batch.results()))[-1] == "None"


async def test_result_for_then_is_handed_on(shop: Shop) -> None:
    async with shop.jobs.running():
        page = shop.resize.call(7)
        batch = await shop.jobs.enqueue_batch([page], then=shop.ship.call(page.result))
        assert batch.then is not None
        assert await soon(batch.then.result()) == "7 False"


async def test_what_needs_a_dead_job_is_cancelled_and_any_end_lets_others_go(shop: Shop) -> None:
    shop.broken = {1}
    async with shop.jobs.running():
        page = shop.resize.call(1)
        batch = await shop.jobs.enqueue_batch(
            [
                page,
                shop.ship.call(page.result),
                shop.nothing.call().after(page),
                shop.nothing.call().after(page, end="any"),
            ]
        )
        ended = await soon(batch.wait())
        assert await states(batch.jobs) == ["dead", "cancelled", "cancelled", "succeeded"]
        assert (ended.state, ended.dead, ended.cancelled) == ("failed", 1, 2)


async def test_fault_32_megabyte_of_a_result_is_read_by_many_and_never_copied(
    tmp_db: Path,
) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def make() -> str:
        return "x" * (1 << 19)

    @jobs.task
    async def measure(text: str, n: int) -> int:
        return len(text) + n

    async with jobs.running():
        made = make.call()
        batch: Batch[Any] = await jobs.enqueue_batch(
            [made, *(measure.call(made.result, n) for n in range(50))]
        )
        assert sum((await soon(batch.results()))[1:]) == 50 * (1 << 19) + 1225
    with closing(sqlite3.connect(tmp_db)) as conn:
        ((longest,),) = conn.execute(
            "SELECT max(length(args) + length(handed)) FROM jobrunner_jobs"
        )
    assert longest < 200


async def test_result_that_could_not_be_stored_makes_a_dead_letter_that_says_so(
    tmp_db: Path,
) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def make() -> Any:
        return object()

    @jobs.task
    async def use(value: Any, times: int = 1) -> str:
        return f"{value} {times}"

    async with jobs.running():
        made = make.call()
        batch = await jobs.enqueue_batch([made, use.call(made.result, 3)])
        ended = await soon(batch.wait())
        assert ended.state == "failed"
        (letter,) = (await jobs.dead_letters.list()).items
        assert letter.reason == "invalid_args"
        assert letter.error is not None
        assert (
            f"value is the result of make {batch.jobs[0].id}, which was not stored" in letter.error
        )
        with pytest.raises(ResultNotStored):
            await batch.jobs[0].result()
        # The line that it says: the argument in place of the result.
        job = await jobs.dead_letters.replay(letter.id, args={"value": "by hand"})
        assert await soon(job.result()) == "by hand 3"


async def test_dead_letter_that_takes_a_result_is_replayed_with_it(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    broken = True

    @jobs.task
    async def make() -> int:
        return 7

    @jobs.task
    async def use(value: int, times: int) -> int:
        if broken:
            raise Bury("not yet")
        return value * times

    async with jobs.running():
        made = make.call()
        batch = await jobs.enqueue_batch([made, use.call(made.result, 3)])
        await soon(batch.wait())
        broken = False
        (letter,) = (await jobs.dead_letters.list()).items
        assert letter.args == {"times": 3}
        assert (await jobs.dead_letters.replay_all(dry_run=True)).invalid == 0
        job = await jobs.dead_letters.replay(letter.id, args={"times": 5})
        assert await soon(job.result()) == 35


async def test_result_of_a_transaction_that_is_still_to_come_is_waited_for(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settled by its own transaction, a job lets others go before its task has returned."""
    rows = iter(["pending", "pending", "there"])

    class Store:
        async def results(self, ids: list[str]) -> dict[str, ResultRow]:
            now = now_us()
            omitted = RESULT_PENDING if next(rows) == "pending" else None
            return {id: ResultRow(id, "t", "succeeded", "7", omitted, now) for id in ids}

    monkeypatch.setattr(handed, "WAITS_S", (0.0, 0.0))
    job, transactions = _claimed('{"value": "a"}'), _with_store(Store())
    assert await handed.with_results(job, transactions) == '{"times":1,"value":7}'
    rows = iter(["pending"] * 3)
    with pytest.raises(Snooze):
        await handed.with_results(job, transactions)


async def test_results_that_cannot_be_read_take_no_attempt(shop: Shop) -> None:
    class Store:
        async def results(self, ids: list[str]) -> dict[str, ResultRow]:
            raise StoreUnavailable("the disk is gone")

    with pytest.raises(Snooze):
        await handed.with_results(_claimed('{"value": "a"}'), _with_store(Store()))


def _claimed(taken: str) -> Claimed:
    return Claimed(
        1, 1, 1, "id", "t", "q", '{"times":1}', 1, 0, 0, 0, 0, 0, None, None, False, handed=taken
    )


def _with_store(workflows: Any) -> Any:
    return SimpleNamespace(store=SimpleNamespace(workflows=workflows))
