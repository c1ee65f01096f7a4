"""SQLAlchemy on the jobs' file: engines whose sessions carry jobs, and migrations that leave our tables alone."""

from collections.abc import Mapping
from typing import Literal

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

import jobrunner.store.sqlite.sessions.engine

# Sessions of an engine are listened to from here on: with the first job's session its commit would be over.
import jobrunner.store.sqlite.sessions.sqlalchemy
from jobrunner.worker.settings import Durability

__all__ = ["attach", "include_name"]

_Parent = Literal["schema_name", "table_name", "schema_qualified_table_name"]

OURS = "jobrunner_"
"""What the names of jobrunner's tables begin with, also of those of later versions."""


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
    jobrunner.store.sqlite.sessions.engine.attach(engine, durability)


def include_name(
    name: str | None,
    type_: str,
    parent_names: Mapping[_Parent, str | None],
) -> bool:
    """Leave jobrunner's tables out of Alembic's autogenerate, which would drop them.

    No metadata of the application has them. Write in ``env.py``::

        context.configure(..., include_name=include_name)

    A hook of your own asks it first: ``return include_name(name, type_, parent_names) and ...``

    Args:
        name: of what Alembic has found in the database; None for the default schema.
        type_: such as ``"table"``, ``"index"``.
        parent_names: the names of what it is in.

    Returns:
        False for jobrunner's tables, and for the columns, indexes and constraints on them.
    """
    table = name if type_ == "table" else parent_names.get("table_name")
    return table is None or not table.startswith(OURS)
