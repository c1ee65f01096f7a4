"""A stopped store with something of everything in it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from jobrunner import JobDead
from tests.cli import service


class Stored(NamedTuple):
    """A store that nobody has open, and ids of what lies in it."""

    path: Path
    done: str
    waiting: str
    dead: tuple[str, str, str]

    @property
    def env(self) -> Mapping[str, str]:
        """The environment variables for the application."""
        return {"SERVICE_STORE": str(self.path)}


@pytest.fixture
async def stored(tmp_db: Path, monkeypatch: pytest.MonkeyPatch) -> Stored:
    """Make one succeeded job, one that waits for an hour, and three dead letters."""
    monkeypatch.setitem(os.environ, "SERVICE_STORE", str(tmp_db))
    runner = service.create_runner()
    async with runner.running():
        done = await runner.enqueue(service.greet.options(tag="vip"), "ada")
        await done.result(timeout=15)
        waiting = await runner.enqueue(service.send.options(delay=3600), 1)
        dead = []
        for number in range(3):
            job = await runner.enqueue(service.fail, number)
            with pytest.raises(JobDead):
                await job.result(timeout=15)
            dead.append(job.id)
    return Stored(tmp_db, done.id, waiting.id, (dead[0], dead[1], dead[2]))
