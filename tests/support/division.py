"""Divides the suite: ``--cases N`` runs N cases of each test, and ``--rest`` what that leaves out."""

from collections import defaultdict
from typing import Final

import pytest

SECONDS: Final = 5.0
"""The time for the rounds of a test that could go on for ever, such as those of kill -9."""
FEW_SECONDS: Final = 1.0
"""The same in the first part of a divided run."""


def cases(config: pytest.Config) -> int | None:
    """Return ``--cases`` for a run of the whole suite, and None for a run of what the command line names."""
    named = config.args_source is pytest.Config.ArgsSource.ARGS or config.option.keyword
    asked: int | None = config.option.cases
    return None if named else asked


def divide(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of this part of a divided run, and deselect those of the other."""
    first = _first_part(items, config.option.cases)
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        here = item in first
        if config.option.rest:
            here = not here or "seconds" in getattr(item, "fixturenames", ())
        (kept if here else left_out).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


def _first_part(items: list[pytest.Item], most: int) -> set[pytest.Item]:
    """Return at most so many cases of each test, spread over all of its cases, without those marked ``rest``."""
    by_test: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("rest") is None:
            test, *_ = item.nodeid.split("[")
            by_test[test].append(item)
    found: set[pytest.Item] = set()
    for all_cases in by_test.values():
        number = min(most, len(all_cases))
        found.update(all_cases[place * len(all_cases) // number] for place in range(number))
    return found


def seconds(config: pytest.Config) -> float:
    """Return the time for the rounds of a test."""
    return SECONDS if config.option.cases is None or config.option.rest else FEW_SECONDS


def summary(config: pytest.Config) -> str | None:
    """Return the line that says which part of the suite has run."""
    if config.option.cases is None:
        return None
    if config.option.rest:
        return f"this was what a run with --cases {config.option.cases} leaves out"
    return f"at most {config.option.cases} cases of each test; `just test-rest` runs the others"
