"""Checks a store without changing it, and names each fault and its remedy.

The store may be in use.  The doctor tries the locks and releases them at once.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from jobrunner.core.clock import SECOND_US, from_us
from jobrunner.core.errors import (
    SchemaTooNew,
    StoreBusy,
    StoreError,
)
from jobrunner.store.findings import Finding, Level
from jobrunner.store.sqlite.connection import read_snapshot
from jobrunner.store.sqlite.driver_errors import as_ours
from jobrunner.store.sqlite.host import identity, locks, processes
from jobrunner.store.sqlite.host.location import (
    MINIMUM_SQLITE,
    ON_CONTAINER_LAYER,
    check_folder,
    check_place,
    folder_of,
)
from jobrunner.store.sqlite.host.turnstile import Turnstile
from jobrunner.store.sqlite.maintenance import migrate
from jobrunner.store.sqlite.maintenance.read_only import PATIENCE_S, open_read_only
from jobrunner.store.sqlite.sql import queues, workers, workflow_checks
from jobrunner.store.workflow_checks import MOST_NAMED, finding

LARGE_LOG: Final = 64 * 1024 * 1024
LITTLE_ROOM: Final = 256 * 1024 * 1024
MUCH_EMPTY: Final = 64 * 1024 * 1024
STALLED_US: Final = 30 * SECOND_US
CLOCK_STEP_US: Final = 2 * SECOND_US
WAL_RESET_FIXED: Final = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""Releases with the fix: two connections that reset the log at once do no harm.  The last one is the first release of
the current line; the others are releases of older lines.

Source: sqlite.org/wal.html, "The WAL-Reset Bug".
"""
_CHAINS_SINCE: Final = 3
"""The first schema version with chains."""
_LANES_SINCE: Final = 8
"""The first schema version with lanes of limited jobs."""
_BATCHES_SINCE: Final = 9
"""The first schema version with batches."""
MEBIBYTE: Final = 1024 * 1024


def diagnose(path: Path, *, now: Callable[[], int], deep: bool) -> Iterator[Finding]:
    """Run all checks on a store.

    Args:
        path: the database file; it may be missing.
        now: returns the current time in µs; called by each check that needs it, since reading every page takes long.
        deep: also have SQLite read every page.
    """
    yield _library()
    try:
        check_place(path)
    except StoreError as error:
        yield Finding("problem", "place", str(error))
        # A file on a network file system can still be checked.
        if not os.path.isfile(path):
            return
    if not path.exists():
        yield Finding(
            "problem",
            "file",
            f"there is no file {path}",
            "check the name; the application makes it",
        )
        return
    yield from _place(path)
    yield from _open_in(path)
    # Before the file is opened: SQLite creates an empty log at the first read.
    log = _log(path)
    try:
        with open_read_only(path) as conn:
            yield from _schema(conn)
            if not migrate.version(conn):
                # The file is not a store: the other checks do not apply, and its lock must not be tried.
                return
            yield from _file(conn)
            yield log
            yield from _workers(conn, path, now)
            yield from _waiting(conn)
            yield from _chains(conn)
            yield from _workflows(conn)
            yield from _clock(conn, now)
            if deep:
                yield _pages(conn)
            # Inside the block: the connection that tries the lock can write, and would move the log if it closed last.
            yield from _locks(path)
    except StoreError as error:
        yield Finding("problem", "file", str(error))


# -- the machine ---------------------------------------------------------------------------------------


def _library() -> Finding:
    version, found = sqlite3.sqlite_version, sqlite3.sqlite_version_info
    if found < MINIMUM_SQLITE:
        wanted = ".".join(map(str, MINIMUM_SQLITE))
        return Finding("problem", "SQLite", f"{version} is too old", f"upgrade it to {wanted}")
    if _has_wal_reset_fault(found):
        return Finding(
            "warning",
            "SQLite",
            f"{version}: before 3.51.3 a foreign program that writes while jobs run can damage the file (jobrunner's"
            " own processes and attached engines take turns)",
            "stop the application before another program writes to the file, or use a Python with SQLite 3.51.3 or"
            " newer",
        )
    return Finding("ok", "SQLite", version)


def _has_wal_reset_fault(version: tuple[int, ...]) -> bool:
    if version >= WAL_RESET_FIXED[-1]:
        return False
    return not any(fixed <= version and fixed[:2] == version[:2] for fixed in WAL_RESET_FIXED)


def _place(path: Path) -> Iterator[Finding]:
    size = path.stat().st_size / MEBIBYTE
    yield Finding("ok", "file", f"{path}, {size:,.1f} MiB")
    if kind := identity.container_layer(path):
        yield Finding("warning", "place", f"{path} {ON_CONTAINER_LAYER % kind}")
    if (names := path.stat().st_nlink) != 1:
        yield Finding(
            "problem", "file", f"it has {names} names (hard links)", "remove all of them but one"
        )
    # The log can have another owner or mode than the file, depending on the user that opened the file first.
    beside = [one for ending in ("-wal", "-shm") if (one := Path(f"{path}{ending}")).exists()]
    for needed in (path, path.parent, *beside):
        if not os.access(needed, os.R_OK | os.W_OK):
            yield Finding(
                "problem",
                "rights",
                f"user {os.geteuid()} may not write to {needed}",
                "give it to the user that the service runs as, and ask as that user",
            )
    room = os.statvfs(path.parent)
    free = room.f_bavail * room.f_frsize
    level: Level = "warning" if free < LITTLE_ROOM else "ok"
    yield Finding(
        level,
        "disk",
        f"{free / MEBIBYTE:,.0f} MiB free",
        "free some space: a full disk takes no new jobs" if level == "warning" else None,
    )


def _open_in(path: Path) -> Iterator[Finding]:
    found = [str(one) for one in processes.that_have_open(path)]
    yield Finding("ok", "open in", ", ".join(found) or "no process that can be seen from here")


# -- the file ------------------------------------------------------------------------------------------


def _schema(conn: sqlite3.Connection) -> Iterator[Finding]:
    found, known = migrate.version(conn), len(migrate.migrations())
    if found == 0:
        yield Finding("problem", "tables", "the file has no tables of jobrunner", "check its name")
        return
    try:
        waits = migrate.check(conn)
    except SchemaTooNew as error:
        yield Finding("problem", "tables", str(error))
        return
    noted = migrate.noted_version(conn)
    if not migrate.is_version(noted):
        yield Finding(
            "warning",
            "tables",
            f"version {found}, by their columns: {migrate.say_noted(noted)}; the next start writes it",
            "find the code that empties all tables of the file, and exclude those named jobrunner_*",
        )
    elif waits:
        yield Finding("ok", "tables", f"version {found}; the next start migrates them to {known}")
    else:
        yield Finding("ok", "tables", f"version {found}")


def _ask(conn: sqlite3.Connection, pragma: str) -> str:
    (answer,) = conn.execute(f"PRAGMA {pragma}").fetchone()
    return str(answer)


def _file(conn: sqlite3.Connection) -> Iterator[Finding]:
    mode, page_size = _ask(conn, "journal_mode"), _ask(conn, "page_size")
    if mode == "wal":
        yield Finding("ok", "pragmas", f"journal_mode={mode}, page_size={page_size}")
    else:
        yield Finding(
            "problem",
            "pragmas",
            f"journal_mode={mode}, where readers and writers wait for each other",
            "start the application: it sets WAL; then find the program that sets it back",
        )
    empty = int(_ask(conn, "freelist_count")) * int(page_size)
    if empty > MUCH_EMPTY:
        yield Finding(
            "ok",
            "room",
            f"{empty / MEBIBYTE:,.0f} MiB are empty pages",
            "jobrunner vacuum gives them back",
        )


def _pages(conn: sqlite3.Connection) -> Finding:
    verdict = _ask(conn, "integrity_check(1)")
    if verdict == "ok":
        return Finding("ok", "pages", "every page was read and is sound")
    return Finding("problem", "pages", verdict, "stop the service, keep the file, restore a backup")


def _log(path: Path) -> Finding:
    try:
        size = os.stat(f"{path}-wal").st_size
    except FileNotFoundError:
        return Finding(
            "ok", "log", "none: nobody has the file open, and the last one closed it well"
        )
    what = f"{size / MEBIBYTE:,.1f} MiB"
    if size > LARGE_LOG:
        return Finding(
            "warning",
            "log",
            f"{what}: it is not being moved into the file",
            "find a transaction that is held open (the processes above), or start a worker",
        )
    return Finding("ok", "log", what)


# -- workers and jobs ----------------------------------------------------------------------------------


def _workers(conn: sqlite3.Connection, path: Path, now: Callable[[], int]) -> Iterator[Finding]:
    folder = folder_of(path)
    # Both in one snapshot: a worker that joins in between may claim jobs.
    conn.execute("BEGIN")
    rows = workers.rows(conn)
    running = dict(
        conn.execute(
            "SELECT worker, count(*) FROM jobrunner_jobs WHERE state = 'running' GROUP BY worker"
        )
    )
    conn.execute("ROLLBACK")
    try:
        lock_files = locks.worker_files(folder)
    except StoreError:
        lock_files = {}
    lives = {row.worker: locks.lives(locks.worker_file(folder, row.worker)) for row in rows}
    for worker in lives:
        lock_files.pop(worker, None)
    # Read again: the row of a worker that has just left or was just recovered is gone by now.
    there = {row.worker for row in workers.rows(conn)}
    for row in rows:
        name = f"pid {row.pid} on {row.host}"
        jobs = running.pop(row.worker, 0)
        if row.worker not in there:
            continue
        if not lives[row.worker]:
            yield Finding(
                "warning",
                "orphans",
                f"worker {name} is dead and held {jobs} running job(s)",
                "start the application: it runs them again",
            )
        elif now() - row.beat_at > STALLED_US:
            yield Finding(
                "problem",
                "worker",
                f"{name} lives, but its loop has not turned since {from_us(row.beat_at):%F %T} UTC",
                f"find out what it does (py-spy dump --pid {row.pid}), then restart it",
            )
        else:
            yield Finding("ok", "worker", f"{name}, {jobs} job(s) running")
    for worker, jobs in running.items():
        yield Finding(
            "problem",
            "orphans",
            f"{jobs} job(s) are marked as running by worker {worker}, which is not there",
            "start the application: its workers take them over within seconds, and if not, report it",
        )
    for worker in lock_files:
        yield Finding(
            "ok",
            "locks",
            f"a lock file of worker {worker} without a row; it is cleaned up by itself",
        )
    if not rows:
        yield Finding("ok", "worker", "none: nobody runs jobs")


def _waiting(conn: sqlite3.Connection) -> Iterator[Finding]:
    if migrate.version(conn) < _LANES_SINCE:
        return
    rows = workers.rows(conn)
    tasks = {task for row in rows for task in row.tasks}
    served = {queue for row in rows for queue in row.queues}
    paused = {one.name for one in read_snapshot(conn, queues.queues) if one.paused}
    for queue in sorted(paused):
        yield Finding("ok", "queue", f"{queue} is paused", f"jobrunner queues resume {queue}")
    if not rows:
        return
    for queue, task, due in read_snapshot(conn, queues.waiting_tasks):
        since = f"jobs of {task} wait in queue {queue} since {from_us(due):%F %T} UTC"
        if queue not in served and queue not in paused:
            yield Finding(
                "warning",
                "queue",
                f"{since}, and no worker serves it",
                f"serve it: queues={{'{queue}': 10}}",
            )
        elif task not in tasks:
            yield Finding(
                "warning",
                "task",
                f"{since}, and no worker knows the task",
                f"register it, or keep its old name: @jobs.task(aliases=['{task}'])",
            )


def _chains(conn: sqlite3.Connection) -> Iterator[Finding]:
    if migrate.version(conn) < _CHAINS_SINCE:
        return
    # What is left over of a cancelled chain has an end that is already there.
    left_over = (
        ""
        if migrate.version(conn) < _BATCHES_SINCE
        else " AND NOT EXISTS (SELECT 1 FROM jobrunner_followups WHERE id = follower.after)"
    )
    stuck = conn.execute(
        f"""
        SELECT id, after FROM jobrunner_jobs AS follower
        WHERE state = 'blocked' AND after IS NOT NULL AND lease = 0 AND NOT EXISTS (
            SELECT 1 FROM jobrunner_jobs AS one WHERE one.id = follower.after
            AND one.state IN ('scheduled', 'queued', 'running', 'blocked')
        ){left_over} LIMIT 1
        """
    ).fetchone()
    if stuck is not None:
        yield Finding(
            "problem",
            "chains",
            f"job {stuck[0]} is blocked behind {stuck[1]}, which is no unfinished job: it would wait for ever",
            f"report this: it is a bug. jobrunner jobs cancel {stuck[0]} ends it",
        )


def _workflows(conn: sqlite3.Connection) -> Iterator[Finding]:
    if migrate.version(conn) < _BATCHES_SINCE:
        return
    yield from map(finding, workflow_checks.contradictions(conn, MOST_NAMED))


def _clock(conn: sqlite3.Connection, ask: Callable[[], int]) -> Iterator[Finding]:
    (latest,) = conn.execute(
        """
        SELECT max(coalesce((SELECT created_at FROM jobrunner_jobs ORDER BY seq DESC LIMIT 1), 0),
            coalesce((SELECT max(beat_at) FROM jobrunner_workers), 0))
        """
    ).fetchone()
    now = ask()
    if latest - now > CLOCK_STEP_US:
        yield Finding(
            "problem",
            "clock",
            f"it says {from_us(now):%F %T} UTC, but the file was written at {from_us(latest):%F %T}: it was set back by"
            f" {(latest - now) / SECOND_US:,.0f} s",
            "set the clock (timedatectl); jobs that wait for their time come later by as much",
        )
    else:
        yield Finding("ok", "clock", f"{from_us(now):%F %T} UTC")


def _locks(path: Path) -> Iterator[Finding]:
    """Try the write lock as a writer does: first the turnstile, then SQLite's own lock."""
    folder = folder_of(path)
    if not os.path.lexists(folder):
        yield Finding("ok", "locks", "none: no process has worked on the file here")
        return
    try:
        check_folder(folder, path)
        turnstile = Turnstile(folder)
    except (StoreError, OSError) as error:
        yield Finding("problem", "locks", str(error), "check the owner and mode of the folder")
        return
    try:
        if not turnstile.try_acquire(PATIENCE_S):
            yield Finding(
                "problem",
                "locks",
                f"a process of jobrunner has held the write lock for {PATIENCE_S:g} s",
                "find the one that was stopped (state T in ps), and continue or kill it",
            )
            return
        yield _try_to_write(path)
    finally:
        turnstile.close()


def _try_to_write(path: Path) -> Finding:
    try:
        with contextlib.closing(
            sqlite3.connect(path, isolation_level=None, timeout=PATIENCE_S)
        ) as conn:
            conn.execute("BEGIN IMMEDIATE")
            conn.execute("ROLLBACK")
    except sqlite3.Error as error:
        ours = as_ours(error, path)
        held = "check the processes above: one that is no worker keeps a write transaction open"
        return Finding("problem", "locks", str(ours), held if isinstance(ours, StoreBusy) else None)
    return Finding("ok", "locks", "the write lock can be acquired")
