"""``jobrunner doctor``: finds problems of a store and suggests a fix for each."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobrunner.cli import exit_codes
from jobrunner.cli.location import Location, as_json, with_location

if TYPE_CHECKING:
    from jobrunner.store.findings import Finding


@click.command()
@with_location
@click.option("--deep", is_flag=True, help="Also read every page of the file.")
@as_json
def doctor(location: Location, *, deep: bool, as_json: bool) -> None:
    """Check a store for problems, without changing anything.

    The store may be in use. With an application, its SQLAlchemy engines are checked too: an engine that opens the file
    with other settings can damage it. So are waiting jobs whose limits were counted by another by= when they were
    enqueued.
    """
    from jobrunner.cli.output import say_json
    from jobrunner.cli.target import load_runner
    from jobrunner.core.clock import now_us
    from jobrunner.core.errors import JobRunnerError
    from jobrunner.runner.shutdown import SIGNALS
    from jobrunner.store.findings import Finding
    from jobrunner.store.open import diagnose, location_of

    for number in SIGNALS:
        # Use the default action: Python handles no signal while SQLite reads, and there is nothing to clean up.
        signal.signal(number, signal.SIG_DFL)
    store = location.store
    runner, found = None, [_time_zones()]
    if location.target is not None:
        try:
            runner = load_runner(location.target)
        except JobRunnerError as error:
            if store is None:
                raise
            what = f"it cannot be loaded: {error}"
            found.append(Finding("problem", "application", what, "fix that, or leave out --app"))
    if store is None:
        assert runner is not None  # noqa: S101 - a location has one of the two
        store = runner.settings.store
    lanes = None
    if runner is not None:
        lanes = {name: task.spec.lane_of for name, task in runner.tasks.items()}
    found += diagnose(store, now=now_us, deep=deep, lanes=lanes)
    healthy = not any(one.level == "problem" for one in found)
    if as_json:
        say_json(
            {
                "store": location_of(store),
                "healthy": healthy,
                "findings": [one._asdict() for one in found],
            }
        )
    else:
        for one in found:
            _say(one)
    if not healthy:
        raise click.exceptions.Exit(exit_codes.PROBLEMS)


def _time_zones() -> "Finding":
    from importlib.util import find_spec
    from zoneinfo import TZPATH, ZoneInfo, ZoneInfoNotFoundError

    from jobrunner.store.findings import Finding

    try:
        # A rare time zone, which an incomplete database lacks.
        ZoneInfo("Australia/Lord_Howe")
    except ZoneInfoNotFoundError:
        return Finding(
            "warning",
            "time zones",
            "none are installed",
            "install tzdata, the Python package or that of the system",
        )
    system = any(Path(location, "Australia/Lord_Howe").exists() for location in TZPATH)
    where = "the system's" if system else "those of the package tzdata"
    also = ", and the package tzdata" if system and find_spec("tzdata") else ""
    return Finding("ok", "time zones", f"{where}{also}")


_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def _say(one: "Finding") -> None:
    from jobrunner.cli.output import say

    level = click.style(f"{one.level:<8}", fg=_COLOURS[one.level])
    say(f"{one.about}: {one.what}", lead=level)
    if one.do is not None:
        say(f"→ {one.do}", lead=" " * 8)
