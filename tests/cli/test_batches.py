"""The commands of batches."""

from pathlib import Path
from typing import Any

import pytest

from jobrunner import Batch, Bury, JobRunner
from jobrunner.fastapi.api.batch_schemas import BatchPageBody
from tests.cli.commands import jobrunner
from tests.support.engine import soon


class Stored:
    """A file with a failed batch, and a newer one that waits."""

    def __init__(self, file: Path) -> None:
        self.at = ("--store", str(file))
        self.file = file
        self.jobs = jobs = JobRunner(file)

        @jobs.task
        async def work(n: int) -> int:
            if n == 1:
                raise Bury("one is no good")
            return n

        @jobs.task
        async def report() -> None: ...

        self.work, self.report = work, report
        self.failed: Batch[int]
        self.waits: Batch[int]

    async def fill(self) -> "Stored":
        async with self.jobs.running():
            calls = [self.work.call(n) for n in range(3)]
            self.failed = await self.jobs.enqueue_batch(
                calls, then=self.report.call(), at_end=self.report.call(), name="pages"
            )
            await soon(self.failed.wait())
            assert self.failed.at_end is not None
            await soon(self.failed.at_end.result())
            later = self.work.options(delay=3600)
            self.waits = await self.jobs.enqueue_batch([later.call(n) for n in range(2)])
        return self


@pytest.fixture
async def stored(tmp_db: Path) -> Stored:
    return await Stored(tmp_db).fill()


async def test_batches_are_listed_with_their_numbers(stored: Stored) -> None:
    rows = (await jobrunner("batches", "list", *stored.at)).rows
    assert [(row["id"], row["name"], row["state"], row["dead"]) for row in rows] == [
        (stored.waits.id, "-", "running", "0"),
        (stored.failed.id, "pages", "failed", "1"),
    ]
    page = (await jobrunner("batches", "list", "--limit", "1", "--json", *stored.at)).json
    body = BatchPageBody.model_validate(page)
    assert body.model_dump(mode="json") == page  # what the route answers
    rest = await jobrunner("batches", "list", "--cursor", page["next_cursor"], "--json", *stored.at)
    assert [one["id"] for one in rest.json["items"]] == [stored.failed.id]
    for words in (("--state", "failed"), ("--name", "pages")):
        (row,) = (await jobrunner("batches", "list", *words, *stored.at)).rows
        assert row["id"] == stored.failed.id


async def test_batch_is_shown_with_its_callbacks(stored: Stored) -> None:
    answer = await jobrunner("batches", "show", stored.failed.id, *stored.at)
    assert stored.failed.then is not None
    assert f"report {stored.failed.then.id} (blocked)" in answer.out
    found: dict[str, Any] = (
        await jobrunner("batches", "show", stored.failed.id, "--json", *stored.at)
    ).json
    assert (found["state"], found["at_end"]["state"], found["otherwise"]) == (
        "failed",
        "succeeded",
        None,
    )
    answer = await jobrunner("batches", "show", "no", *stored.at)
    assert answer.code == 4


async def test_members_are_listed_by_batch(stored: Stored) -> None:
    rows = (await jobrunner("jobs", "list", "--batch", stored.waits.id, *stored.at)).rows
    assert [row["id"] for row in rows] == [job.id for job in reversed(stored.waits.jobs)]
    (letter,) = (await jobrunner("dead", "list", "--batch", stored.failed.id, *stored.at)).rows
    assert letter["id"] == stored.failed.jobs[1].id


async def test_retry_replays_the_dead_letters(stored: Stored) -> None:
    answer = await jobrunner("batches", "retry", stored.failed.id, *stored.at)
    assert (answer.code, answer.out) == (0, "1 replayed\n")
    found = (await jobrunner("batches", "show", stored.failed.id, "--json", *stored.at)).json
    assert (found["state"], found["dead"], found["waiting"]) == ("running", 0, 1)
    answer = await jobrunner("batches", "retry", stored.failed.id, "--json", *stored.at)
    assert answer.json == {"replayed": 0, "conflicts": 0, "invalid": 0}


async def test_cancel_asks_and_stores_the_request(stored: Stored) -> None:
    command = ("batches", "cancel", stored.waits.id)
    answer = await jobrunner(*command, *stored.at)
    assert answer.code == 2
    assert "--yes" in answer.err
    answer = await jobrunner(*command, "--yes", *stored.at)
    assert (answer.code, answer.out) == (0, "2 member(s) are being cancelled\n")
    answer = await jobrunner(*command, *stored.at)
    assert answer.code == 5
    assert "was cancelled before" in answer.err
    answer = await jobrunner("batches", "cancel", stored.failed.id, "--json", *stored.at)
    assert (answer.code, answer.json) == (5, {"id": stored.failed.id, "cancelled": False})
    log = (await jobrunner("audit", "--json", *stored.at)).json["items"]
    assert [(one["action"], one["count"]) for one in log] == [
        ("batches.cancel", 0),
        ("batches.cancel", 0),
        ("batches.cancel", 1),
    ]
