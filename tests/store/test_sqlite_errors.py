"""Each error of SQLite is mapped to one of ours, and none loses an acknowledged job."""

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobrunner.core.errors import (
    NotADatabase,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFailed,
    StoreFull,
    StoreOutcomeUnknown,
    StoreReplaced,
    StoreUnavailable,
)
from jobrunner.core.model import Filter, Outcome
from jobrunner.store.round import Round
from jobrunner.store.sqlite import SqliteStore, connection
from jobrunner.store.sqlite.connection import Connection, transact
from jobrunner.store.sqlite.driver_errors import as_ours
from jobrunner.store.sqlite.host import turnstile
from jobrunner.store.sqlite.maintenance import migrate
from jobrunner.store.sqlite.sql.statements import COMMIT
from tests.support import scripts
from tests.support.factories import (
    NOW,
    WORKER,
    claim,
    claim_one,
    dead,
    enqueue,
    new,
    row_of,
    settle,
    succeeded,
    worker_row,
)

pytestmark = pytest.mark.usefixtures("room_in_log")


def writer_of(store: SqliteStore) -> Connection:
    assert store._access._writer is not None
    return store._access._writer._connection


# -- every code -----------------------------------------------------------------------------------------

OURS: dict[str, type[StoreError]] = {
    "SQLITE_BUSY": StoreBusy,
    "SQLITE_LOCKED": StoreBusy,
    "SQLITE_FULL": StoreFull,
    "SQLITE_READONLY": StoreUnavailable,
    "SQLITE_CANTOPEN": StoreUnavailable,
    "SQLITE_PERM": StoreUnavailable,
    "SQLITE_IOERR": StoreUnavailable,
    "SQLITE_NOTADB": NotADatabase,
    "SQLITE_CORRUPT": StoreCorrupt,
}
"""By primary code; every other is ``StoreUnavailable``."""

NOT_ERRORS = {"SQLITE_OK", "SQLITE_ROW", "SQLITE_DONE", "SQLITE_NOTICE", "SQLITE_WARNING"}


def codes() -> Iterator[tuple[str, int]]:
    """Return every result code that this Python knows by name, primary and extended."""
    primary = {"ABORT", "AUTH", "CONSTRAINT", "EMPTY", "ERROR", "FORMAT", "INTERNAL", "INTERRUPT"}
    primary |= {"MISMATCH", "MISUSE", "NOLFS", "NOMEM", "NOTFOUND", "PROTOCOL", "RANGE", "SCHEMA"}
    primary |= {"TOOBIG"} | {name.removeprefix("SQLITE_") for name in OURS}
    for name in dir(sqlite3):
        words = name.split("_")
        if words[0] == "SQLITE" and words[1] in primary and name not in NOT_ERRORS:
            yield name, getattr(sqlite3, name)


@pytest.mark.parametrize(("name", "code"), list(codes()))
def test_error_with_any_code_of_sqlite_is_one_of_ours(name: str, code: int) -> None:
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    path = Path("/srv/jobs.db")
    ours = as_ours(error, path)
    expected = OURS.get("_".join(name.split("_")[:2]), StoreUnavailable)
    assert type(ours) is expected
    assert str(path) in str(ours)


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.Error("x"),
        sqlite3.DatabaseError("x"),
        sqlite3.OperationalError("x"),
        sqlite3.IntegrityError("x"),
        sqlite3.ProgrammingError("x"),
        sqlite3.InterfaceError("x"),
        sqlite3.InternalError("x"),
        sqlite3.DataError("x"),
        sqlite3.NotSupportedError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_error_of_the_driver_never_passes_through(
    store: SqliteStore, error: sqlite3.Error
) -> None:
    def fail(conn: sqlite3.Connection) -> None:
        raise error

    for run in (store._access.write, store._access.read):
        with pytest.raises(StoreError) as raised:
            await run(fail)
        assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    ("statement", "ours"),
    [
        ("SELECT * FROM jobrunner_jobs", StoreReplaced),
        ("INSERT INTO jobrunner_attempts DEFAULT VALUES", StoreReplaced),
        ("DELETE FROM jobrunner_later_version", StoreReplaced),
        ("SELECT * FROM users", StoreUnavailable),
        ("SELECT jobrunner_jobs", StoreUnavailable),
        ("SELEKT * FROM jobrunner_jobs", StoreUnavailable),
    ],
)
def test_table_of_ours_that_is_gone_is_told_with_how_it_may_have_gone(
    statement: str, ours: type[StoreError]
) -> None:
    with (
        contextlib.closing(sqlite3.connect(":memory:")) as db,
        pytest.raises(sqlite3.OperationalError) as raised,
    ):
        db.execute(statement)
    error = as_ours(raised.value, Path("/srv/jobs.db"))
    assert type(error) is ours
    assert ("metadata.reflect(engine, only=" in str(error)) == (ours is StoreReplaced)


# -- BUSY -----------------------------------------------------------------------------------------------


HOLDER = """
import sys
from pathlib import Path
from jobrunner.store.sqlite.host.turnstile import Turnstile
turnstile = Turnstile(Path(sys.argv[1]))
turnstile.acquire(10)
print("held", flush=True)
sys.stdin.readline()
"""


def hold_turnstile(store: SqliteStore) -> "subprocess.Popen[str]":
    """Let another process hold the write lock until it reads a line."""
    holder = scripts.start(HOLDER, store._folder)
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    return holder


async def test_B3_write_behind_a_stopped_holder_of_the_lock_raises_store_busy(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turnstile, "TIMEOUT_S", 0.1)
    store = SqliteStore(tmp_db)
    await store.open()
    holder = hold_turnstile(store)
    job = new()
    with pytest.raises(StoreBusy):
        await enqueue(store, job)
    assert await store.jobs.get(job.id) is None
    scripts.communicate(holder, "go\n")
    assert (await enqueue(store, job))[0].created
    await store.close()


async def test_B6_open_of_a_new_file_leaves_it_alone_until_its_turn(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of processes that switch a file to its log at once, SQLite fails some with "database is locked"."""
    monkeypatch.setattr(turnstile, "TIMEOUT_S", 0.1)
    store = SqliteStore(tmp_db)
    store._folder.mkdir()
    holder = hold_turnstile(store)
    with pytest.raises(StoreBusy):
        await store.open()
    assert tmp_db.read_bytes() == b""
    scripts.communicate(holder, "go\n")
    await store.open()
    await store.close()


async def test_write_behind_a_program_that_knows_no_turnstile_raises_store_busy(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_S", 0.1)
    store = SqliteStore(tmp_db)
    await store.open()
    shell = sqlite3.connect(tmp_db, isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    job = new()
    with pytest.raises(StoreBusy):
        await enqueue(store, job)
    assert await store.jobs.get(job.id) is None
    shell.execute("ROLLBACK")
    shell.close()
    assert (await enqueue(store, job))[0].created
    await store.close()


# -- FULL -----------------------------------------------------------------------------------------------


async def limit(store: SqliteStore, more_pages: int | None) -> None:
    """Let the file grow by so many pages from here on, or without end."""

    def set_limit(conn: sqlite3.Connection) -> None:
        (pages,) = conn.execute("PRAGMA page_count").fetchone()
        most = 2**31 if more_pages is None else pages + more_pages
        conn.execute(f"PRAGMA max_page_count = {most}").fetchone()

    await writer_of(store).run(set_limit)


async def test_A3_write_on_a_full_disk_raises_store_full_and_loses_nothing_acknowledged(
    store: SqliteStore,
) -> None:
    await limit(store, 20)
    acked = []
    while True:
        job = new(args='{"text":"' + "x" * 1_000 + '"}')
        try:
            await enqueue(store, job)
        except StoreFull:
            break
        acked.append(job.id)
    assert acked
    assert await store.jobs.get(job.id) is None
    with pytest.raises(StoreFull):
        await enqueue(store, *[new(args='{"text":"' + "x" * 9_000 + '"}') for _ in range(3)])
    page = await store.jobs.list(Filter(), before=None, limit=1_000)
    assert [row.id for row in reversed(page.rows)] == acked

    await limit(store, None)
    assert (await enqueue(store, job))[0].created
    assert len(await claim(store)) == len(acked) + 1


async def test_A4_settle_on_a_full_disk_is_refused_whole_and_written_later(
    store: SqliteStore,
) -> None:
    first, second = await claim_one(store), await claim_one(store)
    await limit(store, 0)
    outcomes: list[Outcome] = [succeeded(first, '"' + "x" * 50_000 + '"'), dead(second)]
    with pytest.raises(StoreFull):
        await settle(store, *outcomes)
    assert (await row_of(store, first.id)).state == "running"
    assert (await row_of(store, second.id)).state == "running"
    await limit(store, None)
    assert (await settle(store, *outcomes)).stale == []


async def test_A3_write_that_gets_full_row_by_row_says_so(store: SqliteStore) -> None:
    """A stale outcome makes the round go item by item; running out of room there is nobody's fault either."""
    job = await claim_one(store)
    await settle(store, succeeded(job))
    await limit(store, 5)
    large = [new(args='{"text":"' + "x" * 9_000 + '"}') for _ in range(20)]
    with pytest.raises(StoreFull):
        await store.write(Round(NOW, outcomes=[succeeded(job)], enqueues=large))
    assert [await store.jobs.get(one.id) for one in large] == [None] * 20
    await limit(store, None)
    written = await store.write(Round(NOW, outcomes=[succeeded(job)], enqueues=large))
    assert len(written.stale) == 1
    assert len(await claim(store)) == 20


def test_A5_write_past_the_file_size_limit_loses_nothing_acknowledged(tmp_db: Path) -> None:
    """Real failures of the system's write, amid the log and at the commit."""
    script = """
import asyncio, resource, sys
from jobrunner.core.errors import StoreError
from jobrunner.store.sqlite import SqliteStore
from tests.support.factories import enqueue, new

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900_000, hard))  # the schema takes 300,000
    for cycle in range(3):
        acked = unclear = 0
        ids = []
        while not unclear:
            job = new(args='{"text":"' + "x" * 3_000 + '"}')
            try:
                await enqueue(store, job)
            except StoreError as error:
                unclear += 1
                kind = type(error).__name__
            else:
                ids.append(job.id)
        for id in ids:
            assert await store.jobs.get(id) is not None
        assert await store.jobs.get(job.id) is None
        print(kind, len(ids))
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000 * (cycle + 4), hard))
        assert (await enqueue(store, job))[0].created
    await store.close()
    await store.open()
    for id in ids:
        assert await store.jobs.get(id) is not None
    await store.close()

asyncio.run(main())
"""
    said = [line.split() for line in scripts.run(script, tmp_db).splitlines()]
    assert len(said) == 3
    for kind, acked in said:
        assert kind in {"StoreFull", "StoreUnavailable", "StoreOutcomeUnknown"}
        assert int(acked) > 0
    conn = sqlite3.connect(tmp_db)
    assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    conn.close()


# -- a commit that fails ------------------------------------------------------------------------------------


class FailingCommit(sqlite3.Connection):
    """A real connection on which some commits fail as a disk fails them."""

    failures: list[int]
    """The error codes of the commits to come."""

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if sql == COMMIT and self.failures:
            code = self.failures.pop(0)
            if code == sqlite3.SQLITE_IOERR_FSYNC:
                super().execute("ROLLBACK")  # as SQLite does by itself
            error = sqlite3.OperationalError("commit failed")
            error.sqlite_errorcode = code
            raise error
        return super().execute(sql, *args)


@pytest.fixture
def failing(tmp_db: Path) -> Iterator[FailingCommit]:
    conn = sqlite3.connect(tmp_db, isolation_level=None, factory=FailingCommit)
    conn.failures = []
    while transact(conn, migrate.migrate_one):
        pass
    yield conn
    conn.close()


def insert(conn: sqlite3.Connection) -> None:
    conn.execute("INSERT INTO jobrunner_meta (name, value) VALUES ('row', 1)")


def meta(conn: sqlite3.Connection) -> dict[str, object]:
    return dict(conn.execute("SELECT name, value FROM jobrunner_meta"))


def test_A2_commit_that_fails_at_the_disk_is_sealed_by_a_good_one(failing: FailingCommit) -> None:
    failing.failures = [sqlite3.SQLITE_IOERR_FSYNC]
    with pytest.raises(sqlite3.OperationalError, match="commit failed") as raised:
        transact(failing, insert)
    assert isinstance(as_ours(raised.value, Path("jobs.db")), StoreUnavailable)
    assert failing.in_transaction is False
    assert "row" not in meta(failing)
    assert meta(failing)["barrier"] == 1


def test_A2_commit_that_fails_and_cannot_be_sealed_is_unknown(failing: FailingCommit) -> None:
    failing.failures = [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_FSYNC]
    with pytest.raises(StoreOutcomeUnknown):
        transact(failing, insert)
    assert failing.in_transaction is False
    failing.failures = []
    transact(failing, insert)
    assert meta(failing)["row"] == 1


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL])
def test_commit_that_fails_before_the_disk_needs_no_seal(failing: FailingCommit, code: int) -> None:
    failing.failures = [code]
    with pytest.raises(sqlite3.OperationalError):
        transact(failing, insert)
    assert failing.in_transaction is False
    assert meta(failing) == {"schema_version": len(migrate.migrations())}


# -- a file that is damaged, or no longer there ---------------------------------------------------------------


async def test_A7_write_to_a_damaged_file_raises_store_corrupt(tmp_db: Path) -> None:
    store = SqliteStore(tmp_db)
    await store.open()
    await enqueue(store, *[new(args='{"text":"' + "x" * 500 + '"}') for _ in range(500)])
    await store.close()
    damaged = bytearray(tmp_db.read_bytes())
    for page in range(2 * 4096, len(damaged), 4096):
        damaged[page : page + 12] = b"\xff" * 12
    tmp_db.write_bytes(damaged)

    async def use() -> None:
        await store.open()
        await claim(store)

    with pytest.raises(StoreCorrupt, match="restore a backup") as raised:
        await use()
    assert isinstance(raised.value, StoreFailed)
    await store.close()


@pytest.mark.parametrize("what", ["moved", "replaced", "log deleted"])
async def test_A10_upkeep_after_the_file_was_tampered_with_raises_store_replaced(
    tmp_db: Path, what: str
) -> None:
    """A9: deleting the log is the same; acknowledgements would go on without an error."""
    store = SqliteStore(tmp_db)
    await store.open()
    await enqueue(store, new())
    await store.upkeep()
    match what:
        case "moved":
            tmp_db.rename(tmp_db.with_name("moved.db"))
        case "replaced":
            copy = tmp_db.with_name("copy.db")
            shutil.copyfile(tmp_db, copy)
            copy.rename(tmp_db)
        case "log deleted":
            tmp_db.with_name("jobs.db-wal").unlink()
    with pytest.raises(StoreReplaced):
        await store.upkeep()
    await store.close()


async def test_B7_upkeep_after_the_workers_lock_file_was_removed_raises_store_replaced(
    store: SqliteStore,
) -> None:
    """Others will take the worker for dead: it must stop before they give its jobs away."""
    await store.workers.join(worker_row(), lambda: None)
    await store.upkeep()
    store.workers._locks[WORKER].path.unlink()
    with pytest.raises(StoreReplaced, match="lock"):
        await store.upkeep()


async def test_write_whose_checkpoint_cannot_begin_is_still_acknowledged(
    store: SqliteStore,
) -> None:
    """An error after the commit must not make the write fail: its callers would repeat it."""
    shutil.rmtree(store._folder)
    written = await store.write(Round(NOW, enqueues=[new() for _ in range(20_000)]))
    assert len(written.enqueued) == 20_000


async def test_errors_of_concurrent_callers_are_each_their_own(store: SqliteStore) -> None:
    answers = await asyncio.gather(
        *[store.dead_letters.replay(f"missing {n}", now=NOW) for n in range(5)],
        return_exceptions=True,
    )
    assert [str(one).split("missing ")[1][0] for one in answers] == list("01234")
