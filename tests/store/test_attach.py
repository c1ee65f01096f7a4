"""``attach``: which engines it takes, and what it says of the others."""

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from jobrunner import ConfigurationError
from jobrunner.sqlalchemy import attach


@pytest.mark.parametrize(
    "url",
    ["sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:", "sqlite:///file::memory:?uri=true"],
)
def test_engine_in_memory_is_refused(url: str) -> None:
    engine: Any = create_async_engine(url) if "aiosqlite" in url else create_engine(url)
    with pytest.raises(ConfigurationError, match="in memory: name the runner's file"):
        attach(engine)


def test_engine_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_db: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_db}")
    monkeypatch.setattr(engine.dialect, "name", "postgresql")
    with pytest.raises(ConfigurationError, match=r"create_async_engine\(\"sqlite\+aiosqlite"):
        attach(engine)


def test_something_else_is_refused(tmp_db: Path) -> None:
    with pytest.raises(ConfigurationError, match="takes an engine"):
        attach(tmp_db)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="neither"):
        attach(create_engine(f"sqlite:///{tmp_db}"), durability="Full")  # type: ignore[arg-type]


def test_attaching_twice_is_once_and_with_another_durability_refused(tmp_db: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_db}")
    attach(engine)
    listeners = len(engine.pool.dispatch.connect)
    attach(engine)
    attach(engine.execution_options(isolation_level="SERIALIZABLE"))
    assert len(engine.pool.dispatch.connect) == listeners
    with pytest.raises(ConfigurationError, match="attached already"):
        attach(engine, durability="normal")


async def test_async_engine_with_open_connections_is_refused_until_disposed(tmp_db: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_db}")
    async with engine.connect():
        pass
    with pytest.raises(ConfigurationError, match=r"await engine.dispose\(\)"):
        attach(engine)
    await engine.dispose()
    attach(engine)


def test_sync_engine_with_open_connections_is_disposed_or_refused(tmp_db: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_db}")
    with (
        engine.connect(),
        pytest.raises(ConfigurationError, match=r"or `engine.dispose\(\)` before it"),
    ):
        attach(engine)
    attach(engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == 0
    engine.dispose()


def test_importing_jobrunner_imports_no_sqlalchemy() -> None:
    code = (
        "import sys, jobrunner; jobrunner.JobRunner; jobrunner.Task;"
        " import jobrunner.store.sqlite.store; sys.exit('sqlalchemy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


TABLE = "CREATE TABLE links (id INTEGER PRIMARY KEY, other REFERENCES links DEFERRABLE INITIALLY DEFERRED)"
DANGLING = "INSERT INTO links VALUES (1, 2)"


def assert_nobody_writes(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file, timeout=0)) as conn:
        conn.execute("BEGIN IMMEDIATE")


async def test_commit_that_fails_leaves_no_open_transaction_in_the_pool(tmp_db: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_db}")
    attach(engine)
    async with AsyncSession(engine) as session:
        await session.execute(text(TABLE))
        await session.commit()
        await session.execute(text("PRAGMA foreign_keys = ON"))
        await session.execute(text(DANGLING))
        with pytest.raises(IntegrityError):
            await session.commit()
    assert_nobody_writes(tmp_db)
    await engine.dispose()


def test_commit_of_a_sync_session_that_fails_leaves_none_either(tmp_db: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_db}")
    attach(engine)
    with Session(engine) as session:
        session.execute(text(TABLE))
        session.commit()
        session.execute(text("PRAGMA foreign_keys = ON"))
        session.execute(text(DANGLING))
        with pytest.raises(IntegrityError):
            session.commit()
    assert_nobody_writes(tmp_db)
    engine.dispose()
