"""A repeated error makes a few log lines, and its end makes one."""

import logging
import re
from collections.abc import Iterator

import pytest
from tenacity import wait_none

from jobrunner import JobRunner, StoreBusy
from jobrunner.core.logs import WHOLE, repeats
from tests.support.engine import committer_of, next_round, soon, store_of, worker_of

pytestmark = pytest.mark.each_store


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Have the messages of ``jobrunner`` from INFO on."""
    messages: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Keep()
    logger = logging.getLogger("jobrunner")
    logger.addHandler(handler)
    with caplog.at_level(logging.INFO, "jobrunner"):
        yield messages
    logger.removeHandler(handler)


async def test_failing_attempts_of_an_outage_are_summed_up(store_url: str, said: list[str]) -> None:
    jobs = JobRunner(store_url, queues={"default": 50})

    @jobs.task(max_attempts=4, wait=wait_none())
    async def mail(number: int) -> None:
        raise ConnectionRefusedError(f"[Errno 111] connect to 127.0.0.1:{number}")

    @jobs.task(max_attempts=1)
    async def other() -> None:
        raise LookupError("another fault")

    async with jobs.running():
        many = await jobs.enqueue_many([mail.call(number) for number in range(100)])
        for job in many:
            with pytest.raises(Exception, match="dead letter"):
                await job.result(timeout=30)
        with pytest.raises(Exception, match="another fault"):
            await (await jobs.enqueue(other)).result(timeout=15)
    failed = [one for one in said if "it runs again at" in one]
    dead = [one for one in said if "is a dead letter" in one]
    assert len([one for one in failed if not re.match(r"\d", one)]) == WHOLE
    assert sum(_counted(failed)) == 300
    assert sum(_counted(dead)) == 101
    assert len(said) < 40
    # What is not alike is not swallowed along.
    assert any("LookupError: another fault" in one for one in dead)


def _counted(lines: list[str]) -> Iterator[int]:
    for line in lines:
        more = re.match(r"(\d+) more like this in the last \d+ s: ", line)
        yield int(more[1]) if more else 1


async def test_store_that_is_busy_by_turns_is_summed_up_and_its_end_is_told(
    jobs: JobRunner, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.task(_nothing)
    async with jobs.running():
        worker, store = worker_of(jobs), store_of(jobs)
        upkeep = store.upkeep

        async def busy() -> None:
            raise StoreBusy("somebody else writes")

        for _ in range(100):
            monkeypatch.setattr(store, "upkeep", busy)
            await worker.do_chores()
            monkeypatch.setattr(store, "upkeep", upkeep)
            await worker.do_chores()
        repeats.end()
    failed = [one for one in said if "upkeep failed and is tried again: somebody" in one]
    again = [one for one in said if "upkeep works again" in one]
    assert len(failed) == len(again) == WHOLE + 1
    assert sum(_counted(failed)) == sum(_counted(again)) == 100


async def test_rounds_that_are_written_again_are_told(
    jobs: JobRunner, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.task(_nothing)
    async with jobs.running():
        store = store_of(jobs)
        write = store.write

        async def busy(request: object) -> None:
            monkeypatch.setattr(store, "write", write)
            raise StoreBusy("somebody else writes")

        monkeypatch.setattr(store, "write", busy)
        await next_round(jobs)
        await soon(committer_of(jobs).flushed())
    lines = [one for one in said if re.match("(a round|rounds) ", one)]
    assert lines == [
        "a round could not be written: somebody else writes",
        "rounds are written again",
    ]


async def _nothing() -> None:
    pass
