"""``jobrunner backup`` and ``jobrunner vacuum``: copy or compact the file of a store."""

from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from jobrunner.cli.location import Location, as_json, with_location

if TYPE_CHECKING:
    from jobrunner.cli.session import StoreSession
    from jobrunner.store.protocol import FileStore

LONG: Final = 256 * 1024 * 1024
"""Bytes; rewriting a file of this size takes a second or more, and blocks other writes meanwhile."""


@click.command()
@click.argument("destination", type=click.Path(path_type=Path))
@with_location
@click.option("--force", is_flag=True, help="Replace an existing file.")
@as_json
def backup(location: Location, *, destination: Path, force: bool, as_json: bool) -> None:
    """Write a consistent copy of the store to DESTINATION while jobs continue.

    DESTINATION is a file or a directory; in a directory the copy is named after the store and the time. The copy is
    checked, and gets its name only when it is complete. PostgreSQL has its own tools for this, such as pg_dump.
    """
    from jobrunner.cli.session import run_in_session

    def copy(session: "StoreSession") -> Awaitable[None]:
        store = session.file(
            "a PostgreSQL database is backed up by its own tools, such as pg_dump, which also work while jobs run"
        )
        return _backup(store, _file(store.path, destination, force=force), as_json=as_json)

    run_in_session(location, copy)


def _file(store: Path, destination: Path, *, force: bool) -> Path:
    """Return the file to write to; raise ``Conflict`` if it must not be written."""
    from jobrunner.core.clock import utcnow
    from jobrunner.core.errors import Conflict

    if destination.is_dir():
        destination /= f"{store.stem}-{utcnow():%Y%m%dT%H%M%SZ}{store.suffix}"
    destination = destination.absolute()
    if destination.exists():
        if destination.samefile(store):
            raise Conflict("that is the store itself; name another file")
        if not destination.is_file():
            # For example a device, which the copy would replace.
            raise Conflict(f"{destination} is not a regular file; name another")
        if not force:
            raise Conflict(f"{destination} already exists; add --force to replace it")
    return destination


async def _backup(store: "FileStore", destination: Path, *, as_json: bool) -> None:
    from jobrunner.cli.output import say, say_json
    from jobrunner.cli.progress import Progress

    with Progress("pages") as progress:
        await store.backup(destination, progress.update)
    size = destination.stat().st_size  # noqa: ASYNC240 - nothing else runs on this loop
    if as_json:
        say_json({"store": store.path, "backup": destination, "bytes": size})
    else:
        say(f"{destination} ({size:,} bytes)")


@click.command()
@with_location
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@as_json
def vacuum(location: Location, *, yes: bool, as_json: bool) -> None:
    """Rewrite the file of the store without its empty pages.

    While it runs, all other writes to the file wait, and fail after 5 s; so stop the service before you vacuum a large
    file. It needs free disk space of the size of the file in two places: beside the file, and in SQLite's directory for
    temporary files ($SQLITE_TMPDIR, $TMPDIR, else /var/tmp). PostgreSQL vacuums by itself.
    """
    from jobrunner.cli.session import run_in_session

    run_in_session(location, lambda session: _vacuum(session, yes=yes, as_json=as_json))


async def _vacuum(session: "StoreSession", *, yes: bool, as_json: bool) -> None:
    import asyncio

    from jobrunner.cli.output import ask, say, say_json
    from jobrunner.cli.progress import Progress

    store = session.file(
        "PostgreSQL's autovacuum gives the space of deleted rows to new ones; VACUUM FULL rewrites a"
        " table while all others wait"
    )
    path = store.path
    before = path.stat().st_size
    if before > LONG and not yes and await store.workers.list():
        ask(
            f"{before:,} bytes: workers use this file, and their writes wait until this is done. Continue?"
        )
    try:
        with Progress("vacuum") as progress:
            progress.begin()
            await store.vacuum()
    except asyncio.CancelledError:
        click.echo(
            "waiting for SQLite, which cannot stop at any point; a second Ctrl-C ends it at once and is safe",
            err=True,
        )
        raise
    after = path.stat().st_size
    if as_json:
        say_json({"store": path, "bytes_before": before, "bytes_after": after})
    else:
        say(f"{before:,} bytes before, {after:,} after")
