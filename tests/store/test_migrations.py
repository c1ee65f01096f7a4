"""The schema is the sum of its migrations: a file of any version becomes what a new one is, with all that it holds."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobrunner.core.errors import StoreBusy
from jobrunner.core.limits import Limit, LimitName, RateLimit
from jobrunner.core.model import Filter, Progressed
from jobrunner.store.round import Round
from jobrunner.store.sqlite import SqliteStore
from jobrunner.store.sqlite.host import turnstile
from jobrunner.store.sqlite.host.location import make_folder
from jobrunner.store.sqlite.maintenance import migrate
from tests.store import older_rows
from tests.store.older_rows import ID
from tests.support import scripts
from tests.support.factories import (
    DUE,
    NOW,
    SECOND,
    claim,
    dead,
    enqueue,
    new,
    row_of,
    settle,
    succeeded,
)

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


FIXTURES = sorted(
    int(path.stem.split("_")[1]) for path in Path(__file__).parent.glob("version_*.sql")
)


def written_by(version: int, path: Path) -> Path:
    """Make a file as this version of the schema left it, with what its ``version_N.sql`` holds."""
    script = Path(__file__).with_name(f"version_{version}.sql").read_text(encoding="utf-8")
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript(script)
        assert migrate.version(conn) == version
    return path


@pytest.fixture
def version_1(tmp_db: Path) -> Path:
    """A dead letter, a job that succeeded, one that waits, one for later."""
    return written_by(1, tmp_db)


@pytest.fixture(params=[version for version in FIXTURES if version >= 3])
def older_file(request: pytest.FixtureRequest, tmp_db: Path) -> Path:
    """Rows in every state, of every reason and every outcome of a tick; the worker of the running ones is gone."""
    return written_by(request.param, tmp_db)


@pytest.fixture
def last_version(tmp_db: Path) -> Path:
    """A file with the schema before the newest."""
    return written_by(len(migrate.migrations()) - 1, tmp_db)


@pytest.fixture
def new_file(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "new.db", isolation_level=None)) as conn:
        while migrate.check(conn):
            conn.execute("BEGIN IMMEDIATE")
            migrate.migrate_one(conn)
            conn.execute("COMMIT")
        yield conn


def schema(conn: sqlite3.Connection) -> set[tuple[str, str, tuple[object, ...]]]:
    """Return tables and indexes with their columns: the text of an altered table is of SQLite's own making."""
    found = conn.execute(
        "SELECT type, name FROM sqlite_schema WHERE name LIKE 'jobrunner%' AND sql IS NOT NULL"
    ).fetchall()
    pragma = {"table": "table_xinfo", "index": "index_xinfo"}
    return {
        (kind, name, tuple(conn.execute(f"PRAGMA {pragma[kind]}({name})").fetchall()))
        for kind, name in found
    }


@pytest.mark.parametrize("version", FIXTURES)
async def test_file_of_an_older_version_opens_and_becomes_what_a_new_one_is(
    version: int, tmp_db: Path, new_file: sqlite3.Connection
) -> None:
    store = SqliteStore(written_by(version, tmp_db))
    await store.open()
    await store.close()
    with closing(sqlite3.connect(tmp_db)) as conn:
        assert migrate.version(conn) == len(migrate.migrations())
        assert schema(conn) == schema(new_file)
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_file_of_version_1_keeps_its_jobs_and_goes_on(version_1: Path) -> None:
    store = SqliteStore(version_1)
    await store.open()
    try:
        letter = await row_of(store, ID.format(1))
        assert (letter.state, letter.args, letter.tag) == ("dead", '{"n":1}', "dead")
        assert (letter.schedule, letter.scheduled_for) == (None, None)
        assert (letter.chain, letter.after) == (None, None)
        assert len(await store.jobs.attempts(letter.seq)) == 1
        done = await row_of(store, ID.format(2))
        assert (done.state, done.result) == ("succeeded", '"done"')
        waiting = await row_of(store, ID.format(3))
        assert (waiting.state, waiting.key) == ("queued", "k")
        assert [queue.name for queue in await store.jobs.queues() if queue.paused] == ["side"]
        (held,) = await enqueue(store, new(key="k"))
        assert (held.id, held.created) == (ID.format(3), False)
        await store.dead_letters.replay(ID.format(1), now=NOW)
        claimed = await claim(store, now=DUE)
        assert {job.id for job in claimed} == {ID.format(n) for n in (1, 3, 4)}
        assert (await store.dead_letters.list(Filter(), before=None, limit=9)).rows == []
        assert max(job.seq for job in claimed) == 4
    finally:
        await store.close()


async def test_older_file_keeps_rows_in_every_state(older_file: Path) -> None:
    store = SqliteStore(older_file)
    await store.open()
    try:
        await older_rows.keeps_rows_in_every_state(store)
    finally:
        await store.close()


async def test_older_file_goes_on(older_file: Path) -> None:
    store = SqliteStore(older_file)
    await store.open()
    try:
        await older_rows.goes_on(store)
    finally:
        await store.close()


async def test_file_of_version_5_keeps_its_statistics_and_takes_progress_and_traces(
    tmp_db: Path,
) -> None:
    store = SqliteStore(written_by(5, tmp_db))
    await store.open()
    try:
        letters = (await store.dead_letters.list(Filter(), before=None, limit=99)).rows
        assert {row.fingerprint is None for row in letters if row.seq <= 3} == {False}
        assert {(row.progress, row.trace) for row in letters} == {(None, None)}
        (entry,) = (await store.audit.list(actor=None, action=None, before=None, limit=9)).rows
        assert (entry.actor, entry.action) == ("ada@example.org", "dead_letters.replay")
        (worker,) = await store.workers.list()
        assert worker.revision == 12
        running = await row_of(store, ID.format(18))
        assert (running.state, running.progress, running.trace) == ("running", None, None)
        traced = new(trace="context")
        await enqueue(store, traced)
        claimed = {job.id: job for job in await claim(store, "side", "default", now=DUE)}
        assert claimed[ID.format(8)].trace is None
        reports = [Progressed(claimed[id], "[1,2,null]") for id in (ID.format(8), traced.id)]
        await store.write(Round(DUE, progress=reports))
        assert (await row_of(store, ID.format(8))).progress == "[1,2,null]"
        await settle(store, dead(claimed[traced.id]))
        letter = await row_of(store, traced.id)
        assert (letter.progress, letter.trace) == ("[1,2,null]", "context")
    finally:
        await store.close()


async def test_file_of_version_6_keeps_its_traces_and_counts_from_now_on(tmp_db: Path) -> None:
    store = SqliteStore(written_by(6, tmp_db))
    await store.open()
    try:
        letters = (await store.dead_letters.list(Filter(), before=None, limit=99)).rows
        assert [row.trace for row in letters if row.seq == 1] == [TRACE]
        assert (await row_of(store, ID.format(18))).progress == '[3,10,"rendering"]'
        measured = store.statistics.measure()
        assert measured.counters == {}
        assert set(measured.last_ticks) == {"a", "nightly"}
        claimed = {job.id: job for job in await claim(store, "side", "default", now=DUE)}
        assert claimed[ID.format(8)].trace == TRACE
        await settle(store, dead(claimed[ID.format(8)]))
        assert (await row_of(store, ID.format(8))).trace == TRACE
        counters = store.statistics.measure().counters
        assert counters["dead:exhausted", "side", "work"] == 1
    finally:
        await store.close()


async def test_file_of_version_7_keeps_its_order_and_takes_limits(tmp_db: Path) -> None:
    store = SqliteStore(written_by(7, tmp_db))
    await store.open()
    try:
        assert store.statistics.measure().counters == {("dead:exhausted", "side", "work"): 3}
        waiting = {queue.name: queue.queued for queue in await store.jobs.queues()}
        name = LimitName("task", "work")
        await store.limits.set(name, Limit(4), now=NOW)
        laned = [new("work", lane="work[1]"), new("work", lane="work[2]", ordered=True)]
        await enqueue(store, *laned)
        after = {queue.name: queue.queued for queue in await store.jobs.queues()}
        assert after == {**waiting, "default": waiting["default"] + 2}
        claimed = await claim(store, "side", "default", now=DUE)
        running = (await store.jobs.list(Filter(state="running"), before=None, limit=99)).rows
        assert sum(job.task == "work" for job in running) == 4
        await store.limits.reset(name)
        rest = await claim(store, "side", "default", now=DUE)
        assert {job.id for job in laned} <= {job.id for job in [*claimed, *rest]}
    finally:
        await store.close()


async def test_file_of_version_8_keeps_its_lanes_and_takes_batches(tmp_db: Path) -> None:
    store = SqliteStore(written_by(8, tmp_db))
    await store.open()
    try:
        laned = {n: await row_of(store, ID.format(n)) for n in (1, 8, 21)}
        assert {n: row.lane for n, row in laned.items()} == {
            1: "work[1]",
            8: "work[8]",
            21: "work[21]",
        }
        assert {(row.batch, row.handed) for row in laned.values()} == {(None, None)}
        limit = await store.limits.get(LimitName("task", "mail.send"))
        assert limit is not None
        assert limit.set.rate == RateLimit(7, SECOND, 7)
        assert await store.workflows.get(ID.format(1)) is None
        claimed = await claim(store, "side", now=DUE)
        assert {job.id for job in claimed} == {ID.format(8), ID.format(21)}
        await settle(store, *map(succeeded, claimed), now=DUE)
        await store.dead_letters.replay(ID.format(1), now=DUE)
        assert (await row_of(store, ID.format(1))).lane == "work[1]"
    finally:
        await store.close()


async def test_file_of_version_9_keeps_its_lanes_batches_and_steps(tmp_db: Path) -> None:
    store = SqliteStore(written_by(9, tmp_db))
    await store.open()
    try:
        await older_rows.keeps_lanes_batches_and_steps(store)
    finally:
        await store.close()


@pytest.mark.parametrize(("many", "level"), [(0, "WARNING"), (100_000, "INFO")])
async def test_migration_says_beforehand_that_it_takes_its_time(
    last_version: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    many: int,
    level: str,
) -> None:
    monkeypatch.setattr(migrate, "MANY_ROWS", many)
    caplog.set_level("INFO", "jobrunner")
    store = SqliteStore(last_version)
    await store.open()
    await store.close()
    said = [record for record in caplog.records if "version" in record.getMessage()]
    assert [record.levelname for record in said] == [level] * 2
    newest = len(migrate.migrations())
    assert f"its tables go from version {newest - 1} to {newest}" in said[0].getMessage()
    assert f"version {newest} after" in said[1].getMessage()


async def test_new_file_is_no_migration_to_speak_of(
    tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "jobrunner")
    store = SqliteStore(tmp_db)
    await store.open()
    await store.close()
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        f"jobs are stored in {tmp_db}"
    ]


HOLD = """
import sys
from pathlib import Path
from jobrunner.store.sqlite.host.turnstile import Turnstile
turnstile = Turnstile(Path(sys.argv[1]))
turnstile.acquire(5)
print("held", flush=True)
sys.stdin.readline()
"""


async def test_start_waits_for_the_process_that_migrates_a_large_file(
    last_version: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With `--workers 4` three of four died at the first start of a new version: two million rows take ten seconds."""
    monkeypatch.setattr(turnstile, "TIMEOUT_S", 0.05)
    tries: list[bool] = []
    waits = asyncio.Event()
    look = migrate._is_due

    async def is_due(path: Path) -> bool:
        tries.append(await look(path))
        if len(tries) == 3:
            waits.set()
        return tries[-1]

    monkeypatch.setattr(migrate, "_is_due", is_due)
    first = scripts.start(HOLD, make_folder(last_version))
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        store = SqliteStore(last_version)
        opening = asyncio.create_task(store.open())
        async with asyncio.timeout(15):
            await waits.wait()
        assert not opening.done()
    finally:
        scripts.communicate(first, "\n")
    async with asyncio.timeout(15):
        await opening
    await store.close()
    assert caplog.text.count("waiting for another process") == 1


async def test_start_waits_for_no_process_that_migrates_nothing(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(tmp_db)
    await store.open()
    await store.close()
    monkeypatch.setattr(turnstile, "TIMEOUT_S", 0.05)
    holder = scripts.start(HOLD, make_folder(tmp_db))
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreBusy):
            await SqliteStore(tmp_db).open()
    finally:
        scripts.communicate(holder, "\n")
