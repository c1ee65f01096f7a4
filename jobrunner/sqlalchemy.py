"""SQLAlchemy engines on the jobs' file, prepared so that their transactions can carry jobs."""

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

import jobrunner.store.sqlite.attached
from jobrunner.settings import Durability

__all__ = ["attach"]


def attach(engine: AsyncEngine | Engine, *, durability: Durability = "full") -> None:
    """Let sessions of the engine carry jobs: each connection that it opens keeps the promises of the jobs' file.

    Write it where the engine is made, before its first connection; once more does no harm::

        engine = create_async_engine("sqlite+aiosqlite:///shop.db")
        attach(engine)

    Args:
        engine: an ``AsyncEngine`` or ``Engine`` on the runner's SQLite file, with aiosqlite or sqlite3.
        durability: as ``JobRunner``'s: ``"full"`` survives a power cut.

    Raises:
        ConfigurationError: another kind of database, one in memory, or connections are open already.
    """
    jobrunner.store.sqlite.attached.attach(engine, durability)
