"""Tests applications with the real engine, on the test's store and clock.

Each public name is imported when it is first used, because pytest imports the plugin of this package at every start.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobrunner.testing.context import FakeContext, fake_context
    from jobrunner.testing.crash_points import CrashPoint, UnseenCommit
    from jobrunner.testing.records import Run
    from jobrunner.testing.sync import SyncJobTester
    from jobrunner.testing.tester import JobTester

__all__ = [
    "CrashPoint",
    "FakeContext",
    "JobTester",
    "Run",
    "SyncJobTester",
    "UnseenCommit",
    "fake_context",
]

_HOMES = {
    "CrashPoint": "crash_points",
    "FakeContext": "context",
    "JobTester": "tester",
    "Run": "records",
    "SyncJobTester": "sync",
    "UnseenCommit": "crash_points",
    "fake_context": "context",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
        return value
