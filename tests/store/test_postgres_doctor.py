"""Each check of the doctor on PostgreSQL, on a real server that was made ill."""

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import pytest

from jobrunner.core.clock import now_us
from jobrunner.core.errors import StoreUnavailable, StoreUnsupported
from jobrunner.store.findings import Finding
from jobrunner.store.open import diagnose, open_store
from jobrunner.store.postgres import doctor
from jobrunner.store.postgres.connection import READER, Connection, close, connect
from tests.support.factories import enqueue, new, worker_row
from tests.support.workflows import a_batch


@pytest.fixture
async def outside(bare_postgres_url: str) -> AsyncIterator[Connection]:
    """A session of the owner, on a database whose tables nobody else uses."""
    store = await open_store(bare_postgres_url)
    await store.close()
    connection = await connect(bare_postgres_url, READER)
    yield connection
    await close(connection)


async def findings(
    url: str, lanes: Mapping[str, Any] | None = None, ahead_us: int = 0
) -> Sequence[Finding]:
    """Run the doctor in a thread, as the command runs it in another process."""
    return await asyncio.to_thread(
        diagnose, url, now=lambda: now_us() + ahead_us, deep=False, lanes=lanes
    )


async def finding(url: str, about: str, **more: Any) -> Finding:
    (found,) = [one for one in await findings(url, **more) if one.about == about]
    return found


@pytest.mark.usefixtures("outside")
async def test_healthy_store_has_no_problem_but_the_settings_of_the_tests(
    bare_postgres_url: str,
) -> None:
    found = await findings(bare_postgres_url)
    assert [one for one in found if one.level != "ok" and one.about != "durability"] == []
    (durability,) = [one for one in found if one.about == "durability"]
    assert "fsync is off" in durability.what
    assert {"PostgreSQL", "pooler", "rights", "schema", "workers"} <= {one.about for one in found}


async def test_server_that_does_not_answer_is_a_problem() -> None:
    (found,) = await findings("postgresql://ann:secret@127.0.0.1:1/jobs")
    assert found.level == "problem"
    assert "secret" not in str(found)


async def test_database_without_tables_is_a_problem(bare_postgres_url: str) -> None:
    found = await finding(bare_postgres_url, "database")
    assert "holds no jobs" in found.what


async def test_missing_rights_are_named_with_the_line_that_grants_them(
    bare_postgres_url: str, outside: Connection
) -> None:
    parts = urlsplit(bare_postgres_url)
    role = f"few_{parts.path[1:]}"
    database = parts.path[1:]
    url = f"postgresql://{role}@{parts.hostname}:{parts.port}/{database}"
    await outside.execute(
        f"CREATE ROLE {role} LOGIN; GRANT CONNECT ON DATABASE {database} TO {role}"
    )
    try:
        found = await finding(url, "rights")
        assert found.level == "problem"
        assert f"the role {role} lacks USAGE on schema jobrunner" in found.what
        assert found.do is not None
        with pytest.raises(StoreUnavailable, match="lacks a right"):
            await open_store(url)
        # What it tells to write is what is missing, and enough.
        await outside.execute(found.do.removeprefix("as the owner of the tables write "))
        assert (await finding(url, "rights")).level == "ok"
        store = await open_store(url)
        await enqueue(store, new())
        await store.workers.join(worker_row(), lambda: None)
        await store.workers.leave(worker_row().worker, now=now_us())
        await store.close()
        await outside.execute(f"REVOKE DELETE ON jobrunner.jobs FROM {role}")
        found = await finding(url, "rights")
        assert f"the role {role} lacks DELETE on jobs" in found.what
    finally:
        await outside.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_table_without_autovacuum_is_a_problem(
    bare_postgres_url: str, outside: Connection
) -> None:
    await outside.execute("ALTER TABLE jobrunner.jobs SET (autovacuum_enabled = false)")
    found = await finding(bare_postgres_url, "autovacuum")
    assert (found.level, found.what) == ("problem", "it is switched off for jobs")
    assert found.do is not None
    await outside.execute(found.do.removeprefix("write "))
    assert (await finding(bare_postgres_url, "autovacuum")).level == "ok"


async def test_old_snapshot_is_named_with_its_session(
    bare_postgres_url: str, outside: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "OLD_SNAPSHOT_S", 0)
    await outside.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    found = await finding(bare_postgres_url, "autovacuum")
    assert found.level == "warning"
    assert "jobrunner reader (pid" in found.what
    await outside.execute("ROLLBACK")


@pytest.mark.usefixtures("outside")
async def test_clock_that_differs_from_the_server_s_is_a_warning(bare_postgres_url: str) -> None:
    found = await finding(bare_postgres_url, "clock", ahead_us=3_600_000_000)
    assert found.level == "warning"
    assert "3600.0 s behind" in found.what or "3599.9 s behind" in found.what


@pytest.mark.usefixtures("outside")
async def test_worker_that_has_not_reported_is_a_warning(bare_postgres_url: str) -> None:
    store = await open_store(bare_postgres_url)
    await store.workers.join(worker_row(now=1), lambda: None)
    found = await finding(bare_postgres_url, "workers")
    await store.close()
    assert found.level == "warning"
    assert str(worker_row().worker) in found.what


@pytest.mark.usefixtures("outside")
async def test_waiting_jobs_in_other_lanes_than_the_code_says_are_a_warning(
    bare_postgres_url: str,
) -> None:
    store = await open_store(bare_postgres_url)
    job = new(lane="work[1]")
    await enqueue(store, job)
    await store.close()
    found = await finding(bare_postgres_url, "limits", lanes={job.task: lambda _: "work[2]"})
    assert found.level == "warning"
    assert "work[1] instead of work[2]" in found.what
    same = await findings(bare_postgres_url, lanes={job.task: lambda _: "old name[1]"})
    assert "limits" not in {one.about for one in same}


# -- a pooler in transaction mode ----------------------------------------------------------------------------


class Pooler:
    """Gives each transaction of a client the next of two sessions, as a pooler in transaction mode does."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = host, port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sessions = [await asyncio.open_connection(*self._upstream) for _ in range(2)]
        current = 0

        async def pass_on(session: int) -> None:
            nonlocal current
            while True:
                kind, message = await _message(sessions[session][0])
                writer.write(message)
                if (kind, message[-1:]) == (b"Z", b"I"):
                    current = 1 - session

        pumps: list[asyncio.Task[None]] = []
        try:
            start = await _start(reader, writer)
            said = b""
            for from_server, to_server in sessions:
                to_server.write(start)
                said = b""
                kind = b""
                while kind != b"Z":
                    kind, message = await _message(from_server)
                    said += message
            writer.write(said)
            pumps = [asyncio.create_task(pass_on(session)) for session in range(2)]
            while True:
                _, message = await _message(reader)
                sessions[current][1].write(message)
        except asyncio.IncompleteReadError:
            pass  # the client has gone
        finally:
            for pump in pumps:
                pump.cancel()
            for _, to_server in sessions:
                to_server.close()
            writer.close()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind = await reader.readexactly(1)
    head = await reader.readexactly(4)
    return kind, kind + head + await reader.readexactly(struct.unpack("!i", head)[0] - 4)


async def _start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Return a client's start-up packet, after the refusal of TLS."""
    while True:
        head = await reader.readexactly(4)
        packet = head + await reader.readexactly(struct.unpack("!i", head)[0] - 4)
        if len(packet) > 8:
            return packet
        writer.write(b"N")


@pytest.fixture
async def pooled_url(bare_postgres_url: str) -> AsyncIterator[str]:
    """The same database behind the pooler."""
    parts = urlsplit(bare_postgres_url)
    assert parts.hostname is not None
    assert parts.port is not None
    pooler = Pooler(parts.hostname, parts.port)
    server = await asyncio.start_server(pooler.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield f"postgresql://jobrunner@127.0.0.1:{port}{parts.path}"
    server.close()


async def test_F34_pooler_in_transaction_mode_is_refused_at_open(pooled_url: str) -> None:
    with pytest.raises(StoreUnsupported, match="pooler in transaction mode"):
        await open_store(pooled_url)


async def test_broken_rule_about_batches_is_a_problem(
    outside: Connection, bare_postgres_url: str
) -> None:
    store = await open_store(bare_postgres_url)
    made = await a_batch(store, new())
    await store.close()
    await outside.execute("UPDATE jobrunner.batches SET state = 'failed', ended_at = 1")
    found = [one for one in await findings(bare_postgres_url) if one.about == "workflows"]
    assert {one.level for one in found} == {"problem"}
    assert found[0].what == f"a batch has ended while a member is unfinished: {made.id}"
