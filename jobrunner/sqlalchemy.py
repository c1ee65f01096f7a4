"""Connects jobrunner to SQLAlchemy and Alembic, on the runner's SQLite file.

Sessions of an attached engine can store jobs, and migrations do not change jobrunner's tables.
"""

from collections.abc import Mapping
from typing import Literal

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

import jobrunner.store.sqlite.sessions.engine

# This import registers the listeners for commits of sessions. With the import at the first job of a session, they would
# miss that session's commit.
import jobrunner.store.sqlite.sessions.sqlalchemy
from jobrunner.worker.settings import Durability

__all__ = ["attach", "include_name"]

_Parent = Literal["schema_name", "table_name", "schema_qualified_table_name"]

OURS = "jobrunner_"
"""The prefix of the names of jobrunner's tables, in this version and in later ones."""


def attach(engine: AsyncEngine | Engine, *, durability: Durability = "full") -> None:
    """Let sessions of an engine store jobs.

    Each connection that the engine opens gets the SQLite pragmas that the jobs need. Call it where the engine is made,
    before its first connection::

        engine = create_async_engine("sqlite+aiosqlite:///shop.db")
        attach(engine)

    A second call with the same durability has no effect.

    Args:
        engine: An ``AsyncEngine`` or ``Engine`` on the runner's SQLite file, with aiosqlite or sqlite3.
        durability: As of the ``JobRunner``: ``"full"`` survives a power cut; ``"normal"`` may lose the last commits.
            Default: ``"full"``.

    Raises:
        ConfigurationError: The engine is not on an SQLite file, has open connections already, or is attached with
            another durability.
    """
    jobrunner.store.sqlite.sessions.engine.attach(engine, durability)


def include_name(
    name: str | None,
    type_: str,
    parent_names: Mapping[_Parent, str | None],
) -> bool:
    """Exclude jobrunner's tables from Alembic's autogenerate.

    Alembic would drop them, because no metadata of the application has them. Write in ``env.py``::

        context.configure(..., include_name=include_name)

    If the application has such a hook already, the hook calls this one first::

        return include_name(name, type_, parent_names) and ...

    Args:
        name: The name of an object in the database; None for the default schema.
        type_: The kind of the object, such as ``"table"`` or ``"index"``.
        parent_names: The names of its table and its schema.

    Returns:
        False for jobrunner's tables, and for their columns, indexes and constraints.
    """
    table = name if type_ == "table" else parent_names.get("table_name")
    return table is None or not table.startswith(OURS)
