"""The application's own SQLAlchemy engines on the store's file: do they keep its rules?

An engine that moves the log by itself does so outside the write lock, where SQLite before 3.51.3 can damage the file.
"""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from jobrunner.store.sqlite.diagnosis import Finding

RULES: Final = {"wal_autocheckpoint": 0, "mmap_size": 0}
"""What every connection to the file has to have set."""


def findings(path: Path) -> Iterator[Finding]:
    """Look at the engines of the application that has been loaded into this process."""
    if "sqlalchemy" not in sys.modules or not path.exists():
        # Without a file a look would make one.
        return
    from sqlalchemy.engine import Engine

    found = [one for one in gc.get_objects() if isinstance(one, Engine) and _is_on(one, path)]
    # An engine with other execution options is another object on the same connections.
    for engine in {id(one.pool): one for one in found}.values():
        yield _look_at(engine)


def _is_on(engine: Any, path: Path) -> bool:
    url = engine.url
    if url.get_backend_name() != "sqlite" or not url.database:
        return False
    return bool(os.path.realpath(url.database) == os.path.realpath(path))


def _look_at(engine: Any) -> Finding:
    name = f"{engine.url.render_as_string(hide_password=True)}"
    try:
        found = _pragmas(engine)
    except Exception as error:  # noqa: BLE001 - whatever its drivers and listeners raise
        return Finding("warning", "engine", f"{name} cannot be looked at: {error}")
    wrong = {rule: found[rule] for rule, wanted in RULES.items() if found[rule] != wanted}
    if not wrong:
        return Finding("ok", "engine", f"{name} keeps the rules of the file")
    settings = ", ".join(f"{rule}={value}" for rule, value in wrong.items())
    lines = "; ".join(f"PRAGMA {rule} = {RULES[rule]}" for rule in wrong)
    return Finding(
        "problem",
        "engine",
        f"{name} opens the store's file with {settings}: it moves the log outside the write lock, which can damage it",
        f'run on each connect (@event.listens_for(engine, "connect")): {lines}',
    )


def _pragmas(engine: Any) -> dict[str, int]:
    if engine.dialect.is_async:
        import asyncio

        from sqlalchemy.ext.asyncio import AsyncEngine

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
