"""The server's queue of notices is full: jobs are stored and found all the same.

It can be filled since PostgreSQL 17 only, where its size is a setting; `.ci/run` runs this on 18.
"""

import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from jobrunner.store.postgres.store import PostgresStore
from tests.support.factories import OTHER_WORKER, claim, enqueue, new, worker_row
from tests.support.postgres import binaries
from tests.support.postgres_own import own_server


def version() -> int:
    """Return the major version of the server's programs."""
    said = subprocess.run((binaries() / "postgres", "--version"), capture_output=True, check=True)
    return int(said.stdout.split()[2].partition(b".")[0])


@pytest.fixture
async def full() -> AsyncIterator[str]:
    """The URL of a server whose queue of notices is full, since a listener has not read it."""
    if version() < 17:
        pytest.skip("the size of the queue is a setting since PostgreSQL 17")
    with tempfile.TemporaryDirectory(prefix="jr-own-") as name:
        Path(name).chmod(0o755)
        with own_server(Path(name, "one"), settings=("max_notify_queue_pages=64",)) as server:
            listener: Any = await asyncpg.connect(server.url)
            await listener.execute("LISTEN any_channel")
            await listener.execute("BEGIN; SELECT 1")
            for payload in ("x" * 7_900, ""):
                with pytest.raises(asyncpg.ProgramLimitExceededError, match="NOTIFY queue"):
                    await fill(server.url, payload)
            yield server.url
            await listener.close()


async def fill(url: str, payload: str) -> None:
    """Send more notices than the queue takes."""
    connection: Any = await asyncpg.connect(url)
    try:
        for number in range(1_000):
            await connection.execute("SELECT pg_notify('any_channel', $1)", f"{number}{payload}")
    finally:
        await connection.close()


async def test_F33_postgres_stores_jobs_when_its_queue_of_notices_is_full(
    full: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = PostgresStore(full)
    await store.open()
    await store.workers.join(worker_row(OTHER_WORKER), lambda: None)
    jobs = [new() for _ in range(3)]
    assert all(one.created for one in await enqueue(store, *jobs))
    store.workers._bell.announce_work()
    await store.close()  # after what is being sent
    assert "new work was not announced" in caplog.text
    other = PostgresStore(full)
    await other.open()
    await other.workers.join(worker_row(), lambda: None)
    assert {job.id for job in await claim(other)} == {job.id for job in jobs}
    await other.workers.leave(worker_row().worker, now=0)
    await other.close()
