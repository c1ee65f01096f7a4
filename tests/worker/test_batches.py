"""Batches in an open runner: members, callbacks, late members, results handed on, in rounds and in sessions."""

import asyncio
import copy
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from jobrunner import (
    Batch,
    BatchEnded,
    BatchNotFound,
    Bury,
    InvalidBatch,
    InvalidOptions,
    Job,
    JobCancelled,
    JobContext,
    JobDead,
    JobRunner,
    JobRunnerError,
    KeyTaken,
    NotCommitted,
    NotRunning,
    ResultNotStored,
    ResultTimeout,
    StoreUnavailable,
    WrongThread,
)
from jobrunner.core.clock import now_us
from jobrunner.core.model import RESULT_PENDING, Claimed
from jobrunner.core.steering import Snooze
from jobrunner.core.workflows import ResultRow
from jobrunner.worker import handed
from tests.support.engine import Gate, soon
from tests.tasks.test_task import context


class Page(BaseModel):
    n: int
    extra: bytes = b""


class Shop:
    """A runner with tasks that stand for those of a document's workflow."""

    def __init__(self, file: Path) -> None:
        self.jobs = jobs = JobRunner(file, queues={"default": 20})
        self.gate = Gate()
        self.seen: list[Any] = []
        self.broken: set[int] = set()

        @jobs.task(max_attempts=1)
        async def resize(n: int) -> Page:
            if n in self.broken:
                raise ValueError(f"page {n} is broken")
            return Page(n=n)

        @jobs.task
        async def wait(n: int) -> int:
            await self.gate.enter(n)
            return n

        @jobs.task
        async def publish(job: JobContext, doc: int) -> str:
            pages = [page.n async for page in job.batch.results(resize)]
            batch = await job.batch.get()
            self.seen.append((doc, pages, batch.state))
            return f"published {doc}"

        @jobs.task
        async def ship(page: Page, express: bool = False) -> str:
            return f"{page.n} {express}"

        @jobs.task
        async def merge(pages: list[Page], title: str = "") -> list[int]:
            return [page.n for page in pages]

        @jobs.task
        async def nothing() -> None: ...

        self.resize, self.wait, self.publish = resize, wait, publish
        self.ship, self.merge, self.nothing = ship, merge, nothing


@pytest.fixture
def shop(tmp_db: Path) -> Shop:
    return Shop(tmp_db)


async def states(jobs: tuple[Job[Any], ...]) -> list[str]:
    return [(await job.refresh()).state for job in jobs]


# enqueue, wait, results


@pytest.mark.usefixtures("no_read")
async def test_then_runs_after_the_last_member_and_reads_all_results(shop: Shop) -> None:
    async with shop.jobs.running():
        batch = await shop.jobs.enqueue_batch(
            [shop.resize.call(n) for n in range(30)], then=shop.publish.call(7), name="doc 7"
        )
        assert (batch.state, batch.total, batch.waiting, batch.name) == ("running", 30, 30, "doc 7")
        assert {job.batch for job in batch.jobs} == {batch.id}
        assert batch.then is not None
        assert batch.then.state == "blocked"
        ended = await soon(batch.wait())
        assert (ended.state, ended.succeeded, ended.waiting) == ("succeeded", 30, 0)
        assert ended.ended_at is not None
        assert await soon(batch.then.result()) == "published 7"
        assert shop.seen == [(7, list(range(30)), "succeeded")]


async def test_results_are_in_the_order_of_the_calls(shop: Shop) -> None:
    async with shop.jobs.running():
        batch = await shop.jobs.enqueue_batch([shop.resize.call(n) for n in (3, 1, 2)])
        assert await soon(batch.results()) == [Page(n=3), Page(n=1), Page(n=2)]


async def test_many_results_are_read_in_parts(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobrunner.queue.batches.RESULTS_PER_READ", 7)
    monkeypatch.setattr("jobrunner.queue.job_batches.RESULTS_PER_READ", 7)
    async with shop.jobs.running():
        batch = await shop.jobs.enqueue_batch(
            [shop.resize.call(n) for n in range(30)], then=shop.publish.call(7)
        )
        assert [page.n for page in await soon(batch.results())] == list(range(30))
        assert batch.then is not None
        await soon(batch.then.result())
        assert shop.seen[0][1] == list(range(30))


async def test_wait_with_a_time_limit_raises_and_the_batch_goes_on(shop: Shop) -> None:
    async with shop.jobs.running():
        batch = await shop.jobs.enqueue_batch([shop.wait.call(1)])
        await shop.gate.arrival()
        with pytest.raises(ResultTimeout, match="0 of 1 members have succeeded; it goes on"):
            await batch.wait(timeout=timedelta(milliseconds=1))
        shop.gate.open()
        assert (await soon(batch.wait())).state == "succeeded"


async def test_dead_member_fails_the_batch_and_the_rest_goes_on(shop: Shop) -> None:
    shop.broken = {1}
    async with shop.jobs.running():
        batch = await shop.jobs.enqueue_batch(
            [shop.resize.call(n) for n in range(3)],
            then=shop.nothing.call(),
            otherwise=shop.publish.call(1),
            at_end=shop.publish.call(2),
        )
        ended = await soon(batch.wait())
        assert (ended.state, ended.succeeded, ended.dead) == ("failed", 2, 1)
        with pytest.raises(JobDead, match=r"of 3 members, 1 are dead letters"):
            await batch.results()
        assert batch.otherwise is not None
        assert batch.at_end is not None
        assert await soon(batch.otherwise.result()) == "published 1"
        assert await soon(batch.at_end.result()) == "published 2"
        assert sorted(shop.seen) == [(1, [0, 2], "failed"), (2, [0, 2], "failed")]
        assert ended.then is not None
        assert ended.then.state == "blocked"


async def test_empty_batch_succeeds_at_once(shop: Shop) -> None:
    async with shop.jobs.running():
        batch: Batch[Any] = await shop.jobs.enqueue_batch([], then=shop.publish.call(7))
        assert (batch.state, batch.total) == ("succeeded", 0)
        assert batch.then is not None
        assert await soon(batch.then.result()) == "published 7"
        assert await batch.results() == []
        assert (await batch.refresh()).state == "succeeded"


async def test_batch_that_does_not_exist_is_not_found(shop: Shop) -> None:
    async with shop.jobs.running(work=False):
        for id in ("no", "é"):
            with pytest.raises(BatchNotFound):
                await shop.jobs.batches.get(id)
            with pytest.raises(BatchNotFound):
                await shop.jobs.batches.cancel(id)
            with pytest.raises(BatchNotFound):
                await shop.jobs.batches.retry(id)
            with pytest.raises(BatchNotFound):
                await shop.jobs.batches.add(id, [shop.nothing.call()])
        number: Any = 7
        with pytest.raises(TypeError, match=r"write batch\.id"):
            await shop.jobs.batches.get(number)


async def test_batches_are_listed_newest_first_by_state_and_name(shop: Shop) -> None:
    async with shop.jobs.running():
        done = await shop.jobs.enqueue_batch([shop.nothing.call()], name="a")
        await soon(done.wait())
        waits = await shop.jobs.enqueue_batch([shop.nothing.options(delay=60).call()], name="b")
        page = await shop.jobs.batches.list()
        assert [one.id for one in page.items] == [waits.id, done.id]
        for where, found in (({"state": "running"}, waits), ({"name": "a"}, done)):
            listed = await shop.jobs.batches.list(**where)  # type: ignore[arg-type]
            assert [one.id for one in listed.items] == [found.id]
        first = await shop.jobs.batches.list(limit=1)
        rest = await shop.jobs.batches.list(limit=1, cursor=first.next_cursor)
        assert [one.id for one in (*first.items, *rest.items)] == [waits.id, done.id]
        state: Any = "dead"
        with pytest.raises(InvalidOptions, match="none of running, succeeded, failed, cancelled"):
            await shop.jobs.batches.list(state=state)


async def test_jobs_and_dead_letters_are_listed_by_batch(shop: Shop) -> None:
    shop.broken = {1}
    async with shop.jobs.running():
        await soon((await shop.jobs.enqueue(shop.nothing)).result())
        batch = await shop.jobs.enqueue_batch([shop.resize.call(n) for n in range(3)])
        await soon(batch.wait())
        listed = (await shop.jobs.list(batch=batch.id)).items
        assert [job.id for job in listed] == [batch.jobs[2].id, batch.jobs[0].id]
        (letter,) = (await shop.jobs.dead_letters.list(batch=batch.id)).items
        assert (letter.id, letter.batch) == (batch.jobs[1].id, batch.id)
        (dead,) = (await shop.jobs.list(batch=batch.id, state="dead")).items
        assert (dead.id, dead.batch) == (letter.id, batch.id)


# what is refused


@pytest.mark.parametrize("verb", ["enqueue_many", "enqueue_chain"])
async def test_call_that_waits_for_another_belongs_into_a_batch(shop: Shop, verb: str) -> None:
    async with shop.jobs.running(work=False):
        page = shop.resize.call(1)
        for call in (shop.ship.call(page.result), shop.nothing.call().after(page)):
            with pytest.raises(InvalidBatch, match=r"`await queue\.enqueue_batch\(\[first, sec"):
                await getattr(shop.jobs, verb)([page, call])
        with pytest.raises(InvalidBatch):
            await shop.jobs.enqueue(shop.ship, page.result)
        assert (await shop.jobs.list()).items == []


async def test_batch_of_what_is_no_list_of_calls_is_refused(shop: Shop) -> None:
    async with shop.jobs.running(work=False):
        anything: Any = shop.nothing.call()
        with pytest.raises(InvalidOptions, match="takes a list of calls"):
            await shop.jobs.enqueue_batch(anything)
        with pytest.raises(InvalidOptions, match=r"is not a call: write enqueue_batch\(\["):
            await shop.jobs.enqueue_batch([shop.nothing])  # type: ignore[arg-type]
        with pytest.raises(InvalidOptions, match="1 to 200 characters"):
            await shop.jobs.enqueue_batch([], name="")


@pytest.mark.parametrize("why", ["not in the batch", "wait for each other"])
async def test_fault_34_cycle_or_unknown_reference_is_refused_and_stores_nothing(
    shop: Shop, why: str
) -> None:
    async with shop.jobs.running(work=False):
        page, other = shop.resize.call(1), shop.nothing.call()
        calls: list[Any] = [shop.ship.call(page.result)]
        if why == "wait for each other":
            calls = [page.after(other), other.after(page)]
        with pytest.raises(InvalidBatch, match=why):
            await shop.jobs.enqueue_batch(calls, then=shop.nothing.call())
        assert (await shop.jobs.batches.list()).items == []
        assert (await shop.jobs.list()).items == []


async def test_key_of_an_unfinished_job_takes_the_place_of_a_member(shop: Shop) -> None:
    async with shop.jobs.running(work=False):
        task = shop.resize.options(key="page-1", delay=60)
        held = await shop.jobs.enqueue(task, 1)
        batch = await shop.jobs.enqueue_batch([task.call(1), shop.resize.call(2)])
        assert [job.created for job in batch.jobs] == [False, True]
        assert (batch.jobs[0].id, batch.jobs[0].batch) == (held.id, None)
        assert (batch.total, (await batch.refresh()).total) == (1, 1)
        page = task.call(1)
        with pytest.raises(KeyTaken):
            await shop.jobs.enqueue_batch([page, shop.ship.call(page.result)])
        assert len((await shop.jobs.batches.list()).items) == 1


# results handed on


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


# late members


async def test_members_that_bring_members_end_together(shop: Shop) -> None:
    @shop.jobs.task
    async def crawl(job: JobContext, depth: int) -> int:
        if depth:
            job.batch.add(*[crawl.call(depth - 1) for _ in range(2)])
        return depth

    async with shop.jobs.running():
        batch = await shop.jobs.enqueue_batch([crawl.call(4)], then=shop.publish.call(1))
        results = await soon(batch.results())
        assert sorted(results) == sorted([4, *[3] * 2, *[2] * 4, *[1] * 8, *[0] * 16])
        assert (await batch.refresh()).total == 31
        assert batch.then is not None
        assert await soon(batch.then.result()) == "published 1"


async def test_members_added_by_an_attempt_that_fails_are_not_stored(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def extra(attempt: int) -> int:
        return attempt

    @jobs.task(max_attempts=2, wait=lambda state: 0)
    async def grow(job: JobContext) -> None:
        job.batch.add(extra.call(job.attempt))
        if job.attempt == 1:
            raise ValueError("once more")

    async with jobs.running():
        batch: Batch[Any] = await jobs.enqueue_batch([grow.call()])
        assert await soon(batch.results()) == [None, 2]


async def test_add_outside_a_batch_and_with_edges_is_refused(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    said: list[str] = []
    kept: list[Any] = []

    @jobs.task
    async def extra(n: int = 0) -> int:
        return n

    @jobs.task
    async def grow(job: JobContext, how: str) -> None:
        first = extra.call()
        calls: dict[str, Callable[[], object]] = {
            "no member": lambda: job.batch.add(first),
            "edges": lambda: job.batch.add(first, extra.call(first.result)),
            "many": lambda: job.batch.add(*[first] * 10_001),
            "later": lambda: kept.append(job.batch),
        }
        try:
            calls[how]()
        except JobRunnerError as error:
            said.append(f"{how}: {type(error).__name__}: {error}")

    async with jobs.running():
        await soon((await jobs.enqueue(grow, "no member")).result())
        batch: Batch[Any] = await jobs.enqueue_batch([], then=grow.call("no member"))
        assert batch.then is not None
        await soon(batch.then.result())
        for how in ("edges", "many", "later"):
            await soon((await jobs.enqueue_batch([grow.call(how)])).results())
        with pytest.raises(JobRunnerError, match="the task has returned"):
            kept[0].add(extra.call())
    assert [one.partition(" ")[0] for one in said] == ["no", "no", "edges:", "many:"]
    assert all("InvalidBatch" in one for one in said)
    assert "`await queue.enqueue_batch([...])`" in said[0]
    assert "10,000 calls of one attempt" in said[3]


async def test_batch_takes_a_graph_until_it_has_ended(shop: Shop) -> None:
    async with shop.jobs.running():
        batch: Batch[Any] = await shop.jobs.enqueue_batch([shop.wait.call(1)])
        await shop.gate.arrival()
        page = shop.resize.call(7)
        added = await batch.add([page, shop.ship.call(page.result)])
        assert [job.state for job in added] == ["queued", "blocked"]
        assert added[0].batch == batch.id
        shop.gate.open()
        assert await soon(batch.results()) == [1, Page(n=7), "7 False"]
        with pytest.raises(BatchEnded):
            await batch.add([shop.resize.call(8)])
        anything: Any = shop.resize.call(8)
        with pytest.raises(InvalidOptions, match="takes a list"):
            await batch.add(anything)


async def test_fault_7_late_add_races_the_last_end_and_is_stored_or_refused(shop: Shop) -> None:
    """Whichever comes first: a member that was acknowledged is waited for."""
    stored = refused = 0
    async with shop.jobs.running():
        for turns in range(-15, 16):
            batch: Batch[Any] = await shop.jobs.enqueue_batch([shop.wait.call(1)])
            await shop.gate.arrival()
            if turns < 0:
                shop.gate.let()
            for _ in range(-turns):
                await asyncio.sleep(0)  # noqa: TID251 - turns of the loop between the two
            adding = asyncio.ensure_future(batch.add([shop.nothing.call()]))
            for _ in range(turns):
                await asyncio.sleep(0)  # noqa: TID251 - the same
            if turns >= 0:
                shop.gate.let()
            try:
                (late,) = await soon(adding)
            except BatchEnded:
                refused += 1
                assert (await batch.refresh()).total == 1
            else:
                stored += 1
                ended = await soon(batch.wait())
                assert (ended.total, ended.succeeded) == (2, 2)
                assert (await late.refresh()).state == "succeeded"
    assert stored
    assert refused


# cancel


async def test_cancelled_batch_stops_its_members(shop: Shop) -> None:
    async with shop.jobs.running():
        batch = await shop.jobs.enqueue_batch(
            [shop.wait.call(1), *(shop.resize.options(delay=60).call(n) for n in range(700))],
            then=shop.nothing.call(),
            at_end=shop.publish.call(1),
        )
        await shop.gate.arrival()
        assert await batch.cancel() is True
        assert (await batch.refresh()).cancel_requested
        assert await batch.cancel() is False
        with pytest.raises(BatchEnded):
            await batch.add([shop.nothing.call()])
        ended = await soon(batch.wait())
        assert (ended.state, ended.cancelled) == ("cancelled", 701)
        assert await batch.cancel() is False
        with pytest.raises(JobCancelled, match="has been cancelled"):
            await batch.results()
        assert batch.at_end is not None
        assert await soon(batch.at_end.result()) == "published 1"
        assert ended.then is not None
        assert ended.then.state == "cancelled"


# in a running job


async def test_batch_of_a_job_that_has_none_says_so(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task(max_attempts=1)
    async def read(job: JobContext) -> None:
        await job.batch.get()

    async with jobs.running():
        job = await jobs.enqueue(read)
        with pytest.raises(JobDead, match="neither a member nor a callback of a batch"):
            await soon(job.result())


async def test_members_are_read_in_parts_dead_ones_last(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobrunner.queue.job_batches.MEMBERS_PER_READ", 2)
    jobs = JobRunner(tmp_db)
    seen: dict[str, list[str]] = {}

    @jobs.task
    async def work(n: int) -> None:
        if n % 2:
            raise Bury("odd")

    @jobs.task
    async def report(job: JobContext) -> None:
        seen["all"] = [one.state async for one in job.batch.members()]
        seen["dead"] = [one.id async for one in job.batch.members(state="dead")]
        seen["queued"] = [one.id async for one in job.batch.members(state="queued")]

    async with jobs.running():
        batch = await jobs.enqueue_batch([work.call(n) for n in range(7)], at_end=report.call())
        assert batch.at_end is not None
        await soon(batch.at_end.result())
        assert seen["all"] == ["succeeded"] * 4 + ["dead"] * 3
        assert sorted(seen["dead"]) == sorted(batch.jobs[n].id for n in (1, 3, 5))
        assert seen["queued"] == []


async def test_def_task_reads_its_batch_with_a_plain_loop(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def work(n: int) -> int:
        return n

    @jobs.task
    def add_up(job: JobContext) -> int:
        return sum(job.batch.results(work)) + len(list(job.batch.members()))

    @jobs.task
    async def loop(job: JobContext) -> str:
        with pytest.raises(WrongThread, match="`async for result in"):
            list(job.batch.results(work))
        return "refused"

    async with jobs.running():
        batch = await jobs.enqueue_batch(
            [work.call(n) for n in range(5)], then=add_up.call(), at_end=loop.call()
        )
        assert batch.then is not None
        assert batch.at_end is not None
        assert await soon(batch.then.result()) == 15
        assert await soon(batch.at_end.result()) == "refused"


def test_batch_of_a_context_without_a_runner_says_so() -> None:
    with pytest.raises(NotRunning, match="for the task that runs the job"):
        _ = context().batch


# sync, sessions, transactions


async def test_blocking_form_of_enqueue_batch(shop: Shop) -> None:
    async with shop.jobs.running():

        def in_thread() -> list[Page]:
            batch = shop.jobs.sync.enqueue_batch(
                [shop.resize.call(n) for n in range(3)], then=shop.publish.call(7), name="x"
            )
            assert shop.jobs.sync.batches.get(batch.id).name == "x"
            assert [one.id for one in shop.jobs.sync.batches.list().items] == [batch.id]
            results = shop.jobs.sync.run(batch.results())
            assert shop.jobs.sync.batches.cancel(batch.id) is False
            assert shop.jobs.sync.batches.retry(batch.id).replayed == 0
            return results

        assert await soon(asyncio.to_thread(in_thread)) == [Page(n=n) for n in range(3)]
        with pytest.raises(WrongThread):
            shop.jobs.sync.enqueue_batch([])


async def test_copied_batch_has_no_runner(shop: Shop) -> None:
    async with shop.jobs.running(work=False):
        batch = await shop.jobs.enqueue_batch([shop.nothing.call()])
        again = copy.copy(batch)
        assert again == batch
        assert len({again, batch}) == 1
        with pytest.raises(NotRunning):
            await again.wait()


async def test_fault_33_rollback_of_a_session_leaves_no_row_of_the_batch(
    shop: Shop, tmp_db: Path
) -> None:
    async with shop.jobs.running(work=False):
        with closing(
            sqlite3.connect(tmp_db, isolation_level=None, check_same_thread=False)
        ) as conn:
            page = shop.resize.options(session=conn).call(1)
            then = shop.nothing.options(session=conn).call()
            ship = shop.ship.options(session=conn).call(page.result)

            def in_thread(end: str) -> Batch[Any]:
                conn.execute("BEGIN")
                batch = shop.jobs.sync.enqueue_batch([page, ship], then=then)
                assert [job.state for job in batch.jobs] == ["queued", "blocked"]
                conn.execute(end)
                return batch

            gone = await asyncio.to_thread(in_thread, "ROLLBACK")
            counts = (
                "SELECT (SELECT count(*) FROM jobrunner_jobs), (SELECT count(*) FROM jobrunner_batches),"
                " (SELECT count(*) FROM jobrunner_edges)"
            )
            assert conn.execute(counts).fetchone() == (0, 0, 0)
            with pytest.raises(NotCommitted, match=r"`await session\.commit\(\)`"):
                await gone.wait(1)
            there = await asyncio.to_thread(in_thread, "COMMIT")
            assert (await there.refresh()).total == 2
        with pytest.raises(InvalidOptions, match="enqueue_batch"):
            await shop.jobs.enqueue_batch([page, shop.nothing.call()])
