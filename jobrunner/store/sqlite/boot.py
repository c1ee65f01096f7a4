"""Prevents two running systems from using one file at the same time.

File locks prove that workers live and that one process writes, but a lock is only visible within one kernel.  Two
machines, virtual or not, that share a directory do not see each other's locks: each would take the other's workers for
dead, run their jobs a second time, and damage the file.  So the file stores the boot id of the system that opened it
last.  Another system may open the file after it (after a restart or a move), but not at the same time.
"""

import asyncio
import sqlite3
from pathlib import Path
from typing import Final

from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.errors import StoreUnsupported
from jobrunner.store.sqlite.host import locks
from jobrunner.store.sqlite.writer import Writer

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
"""The boot id: the same in all containers of a system, new at each boot.  Source: random(4)."""

FRESH_US: Final = 30 * SECOND_US
"""Maximum age of a live worker's beat; an older worker is gone, or hangs and will be fenced."""
WATCH_S: Final = 12.0
"""Time to watch for beats; a little longer than the interval between two beats of a worker."""
CHECK_S: Final = 0.25

_NOTE = """
INSERT INTO jobrunner_meta (name, value) VALUES ('boot_id', ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value"""


async def require_one_system(writer: Writer, path: Path, folder: Path) -> None:
    """Store this system's boot id, if no other system uses the file.

    If another system had the file open moments ago, first watch whether its workers still beat: after a reboot they do
    not. A worker whose lock is held belongs to this system, even if the stored boot id differs or is missing.

    Args:
        writer: the writer of the store.
        path: the database file, for the error.
        folder: the folder of the locks.

    Raises:
        StoreUnavailable: The file is read-only.
        StoreUnsupported: Workers of another system still beat. Nothing was changed.
    """
    boot = _boot_id()
    noted = await writer.write(_noted)
    if boot is None or noted == boot:
        return
    seen = await _beats_elsewhere(writer, folder, now_us() - FRESH_US)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WATCH_S
    while seen and loop.time() < deadline:
        await asyncio.sleep(CHECK_S)
        for worker, (host, beat) in (await _beats_elsewhere(writer, folder, 0)).items():
            if worker not in seen or beat > seen[worker][1]:
                raise StoreUnsupported(
                    f"{path} is in use on another machine (a worker on {host} beats). Locks do not reach from one"
                    " kernel to another, so two would run the same jobs and damage the file: stop one of them, or give"
                    " each its own file"
                )
    await writer.write(note)


def _boot_id() -> str | None:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return None  # not Linux


def _noted(conn: sqlite3.Connection) -> str | None:
    # SQLite opens a file that is read-only without an error, and raises only at the first change of a row.
    conn.execute("DELETE FROM jobrunner_meta WHERE name = ''")
    row = conn.execute("SELECT value FROM jobrunner_meta WHERE name = 'boot_id'").fetchone()
    return None if row is None else str(row[0])


def _beats(conn: sqlite3.Connection, since: int) -> dict[int, tuple[str, int]]:
    rows = conn.execute(
        "SELECT worker, host, beat_at FROM jobrunner_workers WHERE beat_at >= ?", (since,)
    )
    return {worker: (host, beat) for worker, host, beat in rows}


async def _beats_elsewhere(writer: Writer, folder: Path, since: int) -> dict[int, tuple[str, int]]:
    """Return host and last beat of each worker whose lock is free here."""
    beats = await writer.read(_beats, since)
    return {
        worker: beat
        for worker, beat in beats.items()
        if not locks.lives(locks.worker_file(folder, worker))
    }


def note(conn: sqlite3.Connection) -> None:
    """Store the boot id of this system in the file."""
    if (boot := _boot_id()) is not None:
        conn.execute(_NOTE, (boot,))
