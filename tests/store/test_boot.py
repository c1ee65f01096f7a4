"""B11: two kernels on one file, which do not see each other's locks."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from jobrunner.core.clock import now_us
from jobrunner.core.errors import StoreUnsupported
from jobrunner.store.sqlite import SqliteStore, boot

HERE, ELSEWHERE = "here", "elsewhere"


@pytest.fixture
def boot_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that says which boot of which system this is."""
    told = tmp_path / "boot_id"
    told.write_text(f"{HERE}\n")
    monkeypatch.setattr(boot, "_BOOT_ID", told)
    return told


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    """Open a store, and close it."""
    store = SqliteStore(path)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def noted(path: Path) -> str:
    """Return the boot_id that the file has noted."""
    with closing(sqlite3.connect(path)) as db:
        (boot_id,) = db.execute(
            "SELECT value FROM jobrunner_meta WHERE name = 'boot_id'"
        ).fetchone()
    return str(boot_id)


def worker(path: Path, beat: int) -> None:
    """Let a worker of the other system beat."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute(
            "INSERT INTO jobrunner_workers VALUES (7, 1, 'other-host', ?, ?, NULL, '{}', '[]', NULL, NULL)"
            " ON CONFLICT (worker) DO UPDATE SET beat_at = excluded.beat_at",
            (beat, beat),
        )
        db.commit()


async def left_by_another(path: Path, boot_id: Path, beat: int) -> None:
    """Leave a store as another system has it open, whose worker beat then."""
    boot_id.write_text(ELSEWHERE)
    async with opened(path):
        worker(path, beat)
    boot_id.write_text(HERE)


async def test_B11_store_of_a_live_worker_on_another_kernel_is_refused(
    tmp_db: Path, boot_id: Path
) -> None:
    await left_by_another(tmp_db, boot_id, now_us())

    async def beat() -> None:
        while True:
            await asyncio.to_thread(worker, tmp_db, now_us())

    beating = asyncio.create_task(beat())
    try:
        with pytest.raises(StoreUnsupported, match=r"another machine \(a worker on other-host"):
            await SqliteStore(tmp_db).open()
    finally:
        beating.cancel()
        await asyncio.wait([beating])
    assert noted(tmp_db) == ELSEWHERE


async def test_B11_store_whose_workers_ended_with_the_last_boot_is_opened_after_a_look(
    tmp_db: Path, boot_id: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await left_by_another(tmp_db, boot_id, now_us())
    monkeypatch.setattr(boot, "WATCH_S", 0.5)
    async with opened(tmp_db):
        pass
    assert noted(tmp_db) == HERE


async def test_B11_store_whose_workers_are_long_silent_is_opened_at_once(
    tmp_db: Path, boot_id: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await left_by_another(tmp_db, boot_id, now_us() - boot.FRESH_US - 1)
    monkeypatch.setattr(boot, "WATCH_S", 3600)
    async with asyncio.timeout(10):
        async with opened(tmp_db):
            assert noted(tmp_db) == HERE


async def test_store_on_a_system_without_boot_ids_is_opened(tmp_db: Path, boot_id: Path) -> None:
    boot_id.unlink()
    async with opened(tmp_db) as store:
        assert await store.workers.list() == []
