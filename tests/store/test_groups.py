"""Groups in SQLite: old dead letters are filled in, the search ends in time, and indexes find a group."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from jobrunner.core.clock import now_s
from jobrunner.core.errors import StoreUnavailable
from jobrunner.core.fingerprint import fingerprint
from jobrunner.core.model import Dead, Ended, Filter
from jobrunner.store.groups import Groups
from jobrunner.store.sqlite import SqliteStore, readers
from jobrunner.store.sqlite.sql import groups, queries, walks
from tests.store.older_rows import ID
from tests.store.test_migrations import written_by
from tests.support import scripts
from tests.support.factories import HOUR, NOW, claim, enqueue, new, row_of, settle

OLD = fingerprint("work", "ValueError", "no luck", "Traceback: no luck")
"""The group of every dead letter in the files of older versions."""


@pytest.fixture
def old_file(tmp_db: Path) -> Path:
    return written_by(4, tmp_db)


async def find(store: SqliteStore) -> Groups:
    return await store.dead_letters.groups(now=NOW, limit=200)


async def bury(store: SqliteStore, *errors: str) -> None:
    """Store jobs, each of which dies of an error, a second apart."""
    await enqueue(store, *[new() for _ in errors])
    jobs = await claim(store)
    ends = [Ended("failed", NOW + n * 1_000_000, "E", error) for n, error in enumerate(errors)]
    await settle(store, *[Dead(job, end, "exhausted") for job, end in zip(jobs, ends, strict=True)])


# -- dead letters of older versions --------------------------------------------------------------


async def test_dead_letters_of_an_older_version_are_filled_in_slice_by_slice(
    old_file: Path,
) -> None:
    store = SqliteStore(old_file)
    await store.open()
    try:
        before = await find(store)
        # The seventh was replayed with other arguments, and is in no group.
        assert (before.ungrouped, before.complete) == (6, True)
        assert [(row.letters, row.retrying) for row in before.rows] == [(0, 1)]
        assert (await store.dead_letters.count(Filter(group=OLD), cap=10)).number == 0
        for filled, ungrouped in ((4, 2), (2, 0), (0, 0)):
            assert await store.dead_letters.fill_groups(limit=4) == filled
            assert (await find(store)).ungrouped == ungrouped
        (row,) = (await find(store)).rows
        assert (row.fingerprint, row.letters, row.error) == (OLD, 6, "no luck")
        assert (await store.dead_letters.count(Filter(group=OLD), cap=10)).number == 6
        assert (await row_of(store, ID.format(1))).fingerprint == OLD
        assert (await row_of(store, ID.format(7))).fingerprint is None
    finally:
        await store.close()


async def test_filled_in_letters_are_as_those_that_die_now(old_file: Path) -> None:
    store = SqliteStore(old_file)
    await store.open()
    try:
        await store.dead_letters.fill_groups(limit=100)
        await store.dead_letters.replay(ID.format(1), now=NOW)
        (job,) = [job for job in await claim(store, now=NOW) if job.id == ID.format(1)]
        end = Ended("failed", NOW, "ValueError", "no luck", "Traceback: no luck")
        await settle(store, Dead(job, end, "exhausted"))
        (row,) = (await find(store)).rows
        assert (row.letters, row.newest) == (6, ID.format(1))
    finally:
        await store.close()


async def test_two_workers_that_fill_in_at_once_do_no_harm(old_file: Path) -> None:
    store = SqliteStore(old_file)
    await store.open()
    try:
        sides = [await store._access.read_list(groups.without_group, limit) for limit in (4, 100)]
        for found in sides:
            await store._access.write(groups.fill, found)
        assert [len(found) for found in sides] == [4, 6]
        assert await store.dead_letters.fill_groups(limit=100) == 0
        assert [row.letters for row in (await find(store)).rows] == [6]
    finally:
        await store.close()


async def test_letter_that_goes_while_it_is_read_is_skipped(
    old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(old_file)
    await store.open()
    try:
        write = store._access.write

        async def write_later(function: Callable[..., object], *args: object) -> object:
            monkeypatch.undo()
            await store.dead_letters.delete(ID.format(1))
            await store.dead_letters.replay(ID.format(2), now=NOW)
            return await write(function, *args)

        monkeypatch.setattr(store._access, "write", write_later)
        assert await store.dead_letters.fill_groups(limit=100) == 6
        found = await find(store)
        assert ([row.letters for row in found.rows], found.ungrouped) == ([4], 0)
        assert (await row_of(store, ID.format(2))).state == "queued"
    finally:
        await store.close()


async def test_slice_ends_with_its_time(old_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(old_file)
    await store.open()
    try:
        monkeypatch.setattr(walks, "STEP_S", 0.0)
        assert [await store.dead_letters.fill_groups(limit=100) for _ in range(7)] == [1] * 6 + [0]
    finally:
        await store.close()


FILL = """
import asyncio, sys
from jobrunner.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    print(await store.dead_letters.fill_groups(limit=2), flush=True)
    sys.stdin.readline()

asyncio.run(main())
"""


async def test_what_a_killed_process_has_filled_in_stays(old_file: Path) -> None:
    process = scripts.start(FILL, old_file)
    assert process.stdout is not None
    assert process.stdout.readline() == "2\n"
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()
    process.stdout.close()
    if process.stderr is not None:
        process.stderr.close()
    store = SqliteStore(old_file)
    await store.open()
    try:
        assert (await find(store)).ungrouped == 4
        assert await store.dead_letters.fill_groups(limit=100) == 4
        assert [row.letters for row in (await find(store)).rows] == [6]
    finally:
        await store.close()


# -- the end of a search ---------------------------------------------------------------------------


async def test_search_that_has_no_time_is_not_complete(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bury(store, "a", "b", "c")
    monkeypatch.setattr(readers, "PAGE_S", 0.0)
    assert not (await find(store)).complete
    monkeypatch.setattr(readers, "PAGE_S", 60.0)
    assert (await find(store)).complete


async def test_search_lets_other_lists_run_between_its_steps(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bury(store, "a", "b", "c")
    monkeypatch.setattr(readers, "PAGE_S", 60.0)
    monkeypatch.setattr(walks, "STEP_S", 0.0)
    steps = 0
    step = groups.Search.step

    def counted(search: groups.Search, conn: sqlite3.Connection) -> bool:
        nonlocal steps
        steps += 1
        return step(search, conn)

    monkeypatch.setattr(groups.Search, "step", counted)
    found = await find(store)
    assert found.complete
    assert [row.error for row in found.rows] == ["c", "b", "a"]
    # A look for each group and one for the end, then one for the details of each.
    assert steps == 3 + 1 + 3 + 1


async def test_group_that_is_counted_when_the_time_is_up_is_listed(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bury(store, *["a"] * 200)
    clock = Clock()
    monkeypatch.setattr(groups, "now_s", clock)
    monkeypatch.setattr(walks, "now_s", clock)
    count = groups._hours

    def too_late(*args: object) -> tuple[int, ...]:
        clock.now += 1_000
        return count(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(groups, "_hours", too_late)
    search = groups.Search(NOW + HOUR, 200, end_s=clock.now + 100)
    with closing(sqlite3.connect(store.path)) as conn:
        assert search.step(conn)
    (row,) = search.groups().rows
    assert not search.groups().complete
    assert (row.error, row.letters) == ("a", 1)


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def test_interrupt_before_the_time_is_up_is_an_error(store: SqliteStore) -> None:
    await bury(store, *["a"] * 200)
    endless = (
        "WITH RECURSIVE n (n) AS (SELECT stop() UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n"
    )
    with closing(sqlite3.connect(store.path)) as conn:
        conn.create_function("stop", 0, conn.interrupt)
        with (
            pytest.raises(sqlite3.OperationalError, match="interrupted"),
            walks.interrupted(conn, now_s() + 1_000),
        ):
            conn.execute(endless).fetchall()


async def test_closed_store_has_no_groups(store: SqliteStore) -> None:
    await store.close()
    with pytest.raises(StoreUnavailable):
        await find(store)


# -- how a group is found ----------------------------------------------------------------------------


@pytest.fixture
def conn(store: SqliteStore) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(store.path)) as conn:
        yield conn


def plan(
    conn: sqlite3.Connection, sql: str, values: Mapping[str, str | int] | Sequence[str | int]
) -> str:
    rows = conn.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
    return "\n".join(row[3] for row in rows)


def test_every_statement_of_groups_seeks_in_an_index(conn: sqlite3.Connection) -> None:
    values: Mapping[str, str | int] = {"group": OLD, "since": NOW, "length": HOUR}
    statements: Sequence[tuple[str, Mapping[str, str | int] | Sequence[str | int]]] = (
        (groups._UNGROUPED, ()),
        (groups._NEXT, ("g",)),
        (groups._NEWEST, values),
        (groups._OLDER, values),
        (groups._RECENT, values),
        (groups._BY_HOUR, values),
        (groups._RETRYING, (0, 0, 50)),
        (groups._WITHOUT, (100,)),
    )
    for sql, given in statements:
        found = plan(conn, sql, given)
        assert "SEARCH" in found
        scanned = [line for line in found.splitlines() if line.startswith("SCAN jobrunner")]
        assert not scanned, sql
    # The statement for which no dead letter is left reads the entries without a fingerprint alone.
    assert "jobrunner_dead_letters_groups (fingerprint=?)" in plan(conn, groups._WITHOUT, (100,))


async def test_few_dead_letters_of_a_group_are_found_by_its_index(
    store: SqliteStore, conn: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bury(store, "rare", *["no"] * 9)
    where = Filter(group=fingerprint("work", "E", "no", None))
    few = queries.letters(conn, where)
    monkeypatch.setattr(groups, "FEW", 8)
    assert groups.is_small(conn, fingerprint("work", "E", "rare", None))
    many = queries.letters(conn, where)
    assert (few.how, few.window) == ("NOT INDEXED", walks.EVERYTHING)
    assert (many.how, many.window) == (
        "INDEXED BY jobrunner_dead_letters_listed",
        walks.FIRST_WINDOW,
    )
    pages = [[row.id for row in (await store.dead_letters.list(where, before=None, limit=5)).rows]]
    monkeypatch.setattr(groups, "FEW", 9)
    pages.append(
        [row.id for row in (await store.dead_letters.list(where, before=None, limit=5)).rows]
    )
    assert len(pages[0]) == 5
    assert pages[0] == pages[1]
    assert (await store.dead_letters.count(where, cap=100)).number == 9
