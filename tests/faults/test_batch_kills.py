"""Batches, graphs and durable jobs when two processes are killed: none is stuck, and each callback starts once."""

import contextlib
import random
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from jobrunner import JobRunner
from jobrunner.store.open import open_store
from jobrunner.store.sqlite.sql import workflow_checks
from tests.soak.budget import Figures, rounds
from tests.support import batched
from tests.support.engine import next_round
from tests.support.processes import Child, child

LEAST_ROUNDS = 3


async def assert_no_contradiction(url: str) -> None:
    """Check the store as the killed processes left it."""
    if url.startswith("postgresql:"):
        store = await open_store(url)
        try:
            assert await store.workflows.check(limit=5) == []
        finally:
            await store.close()
    else:
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as conn:
            assert workflow_checks.check(conn, 5) == []


async def kill_workflows(url: str, ledger: Path, *, seed: int, seconds: float) -> Figures:
    """Kill one or both of two workers under a load of workflows at random times, then run what is left."""
    dice = random.Random(seed)
    kills = 0
    for _ in rounds(seconds, least=LEAST_ROUNDS):
        async with AsyncExitStack() as both:
            victims = [
                await both.enter_async_context(child("workflows", url, ledger)) for _ in "ab"
            ]
            for victim in victims:
                await victim.heard("open")
            # The first dies while the second goes on with its jobs, then the second. A poisoned job may kill either.
            await victims[0].lives(dice.uniform(0.05, 0.6))
            await end(victims[0])
            await assert_no_contradiction(url)
            await victims[1].lives(dice.choice([0.0, dice.uniform(0.0, 0.4)]))
            await end(victims[1])
        kills += 2
        await assert_no_contradiction(url)
    jobs = batched.runner(url, ledger)
    async with jobs.running():
        await drain(jobs)
    await assert_no_contradiction(url)
    return {"kills": kills} | read_ledger(ledger.read_text().splitlines())


async def end(victim: Child) -> None:
    """Kill a worker, which has died of nothing else."""
    victim.send_signal(signal.SIGKILL)
    assert await victim.ended() == -signal.SIGKILL


async def drain(jobs: JobRunner) -> None:
    """Run until nothing is left."""
    while any(
        q.queued or q.scheduled or q.running or q.blocked for q in (await jobs.queues.list()).items
    ):
        await next_round(jobs)


def read_ledger(lines: Sequence[str]) -> Figures:
    """Compare what ran with what was acknowledged."""
    by_kind: dict[str, list[list[str]]] = {}
    called: set[str] = set()
    for line in lines:
        what, *words = line.split()
        by_kind.setdefault(what, []).append(words)
        if what == "then":
            called.add(words[0])
        elif what == "ran":
            assert words[0] not in called, (
                "a member ran after the callback of its batch had started"
            )
    assert "otherwise" not in by_kind, "every member succeeds in the end"
    callbacks = _told(by_kind.get("then", ()))
    acked = by_kind.get("acked", [])
    for tag, size in acked:
        assert tag in callbacks, f"batch {tag} of {size} has not called back"
        assert len(callbacks[tag]) == 1, f"{tag} has called back twice: {callbacks[tag]}"
        ((seen, _),) = callbacks[tag]
        assert seen == size, f"the callback of {tag} saw {seen} of {size} members"
    flowing = {tag for (tag,) in by_kind.get("flowing", ())}
    flows = _told(by_kind.get("flow", ()))
    assert flowing <= flows.keys(), "a durable job is stuck"
    assert all(len(values) == 1 for values in flows.values()), "a step had several values"
    effects = Counter(tag for (tag,) in by_kind.get("effect", ()))
    return {
        "batches acknowledged": len(acked),
        "durable jobs": len(flowing),
        "stuck, called twice or too early": 0,
        "runs of the two steps of a job, at most": max(effects.values(), default=0),
    }


def _told(lines: Iterable[list[str]]) -> dict[str, set[tuple[str, ...]]]:
    """Return the words of the lines about each tag."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for tag, *words in lines:
        found.setdefault(tag, set()).add(tuple(words))
    return found


@pytest.mark.slow
@pytest.mark.each_store
async def test_faults_1_2_3_6_12_21_23_24_killed_workers_leave_no_workflow_stuck_and_call_back_once(
    store_url: str, tmp_path: Path, seed: int, seconds: float
) -> None:
    figures = await kill_workflows(store_url, tmp_path / "ledger", seed=seed, seconds=seconds)
    assert figures["batches acknowledged"] != 0
