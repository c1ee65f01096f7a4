"""Checks that the application's SQLAlchemy engines on the store's file are attached.

An engine that checkpoints by itself does so outside the write lock, where SQLite before 3.51.3 can damage the file.
"""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from jobrunner.core.errors import StoreError
from jobrunner.store.findings import Finding
from jobrunner.store.sqlite.maintenance.read_only import open_read_only

RULES: Final = {"wal_autocheckpoint": 0, "mmap_size": 0}
"""Pragmas that every connection to the file must have."""


def findings(path: Path) -> Iterator[Finding]:
    """Check the engines on the file that the loaded application has created."""
    if "sqlalchemy" not in sys.modules or not path.exists():
        # Connecting would create a missing file.
        return
    from sqlalchemy.engine import Engine  # noqa: PLC0415 - SQLAlchemy is optional

    found = [one for one in gc.get_objects() if isinstance(one, Engine) and _is_on(one, path)]
    try:
        # An engine's connection can write, and would move the log if it were the last to close.
        with open_read_only(path):
            # Copies of an engine with other execution options share its pool.
            for engine in {id(one.pool): one for one in found}.values():
                yield _check(engine)
    except StoreError:
        return  # ``doctor.diagnose`` reports the same error


def _is_on(engine: Any, path: Path) -> bool:
    url = engine.url
    if url.get_backend_name() != "sqlite" or not url.database:
        return False
    named = url.database
    if named.startswith("file:"):
        named = unquote(named.removeprefix("file:").removeprefix("//").partition("?")[0])
    return bool(os.path.realpath(named) == os.path.realpath(path))


def _check(engine: Any) -> Finding:
    from jobrunner.store.sqlite.sessions.engine import ATTACH, engines  # noqa: PLC0415 - SQLAlchemy is optional

    name = f"{engine.url.render_as_string(hide_password=True)}"
    durability = engines.get(engine.dialect)
    try:
        found = _pragmas(engine)
    except Exception as error:  # noqa: BLE001 - whatever its drivers and listeners raise
        return Finding(
            "warning",
            "engine",
            f"{name} cannot be checked: {error}",
            "see that the application itself can connect with it",
        )
    wrong = ", ".join(
        f"{rule}={found[rule]}" for rule, wanted in RULES.items() if found[rule] != wanted
    )
    harm = "moves the log outside the write lock, which can damage it"
    if durability is not None and not wrong:
        return Finding("ok", "engine", f'{name} is attached, with durability="{durability}"')
    if durability is not None:
        return Finding(
            "problem",
            "engine",
            f"{name} is attached, but then set to {wrong} by the application: it {harm}",
            "remove these pragmas from the application's listener",
        )
    if wrong:
        return Finding(
            "problem",
            "engine",
            f"{name} is not attached and opens the store's file with {wrong}: it {harm}",
            ATTACH,
        )
    return Finding(
        "ok",
        "engine",
        f"{name} keeps the rules of the file by itself; it is not attached, so its sessions cannot carry jobs",
    )


def _pragmas(engine: Any) -> dict[str, int]:
    if engine.dialect.is_async:
        import asyncio  # noqa: PLC0415 - SQLAlchemy is optional

        from sqlalchemy.ext.asyncio import AsyncEngine  # noqa: PLC0415 - SQLAlchemy is optional

        async def ask() -> dict[str, int]:
            own = AsyncEngine(engine)
            try:
                async with own.connect() as connection:
                    return await connection.run_sync(_ask)
            finally:
                await own.dispose()

        return asyncio.run(ask())
    try:
        with engine.connect() as connection:
            return _ask(connection)
    finally:
        engine.dispose()


def _ask(connection: Any) -> dict[str, int]:
    return {
        rule: int(connection.exec_driver_sql(f"PRAGMA {rule}").scalar_one() or 0) for rule in RULES
    }
