"""Random lives of jobs in lanes break no limit and lose no job."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest

from jobrunner.core.limits import RateLimit
from jobrunner.core.model import Claimed, Enqueue, Outcome
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.support.factories import (
    NOW,
    OTHER_WORKER,
    OUTCOMES,
    SECOND,
    WORKER,
    claim_of,
    enqueue,
    new,
    retry,
    succeeded,
)
from tests.support.lanes import MANY_TASKS, limit, sync


class Life:
    """Random lives of jobs in a few lanes, checked against the limits after each round."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.rng = random.Random(seed)
        self.ordered = seed % 3 == 0
        self.rate = RateLimit(5, SECOND) if seed % 3 == 1 else None
        self.most = 1 if self.ordered else self.rng.choice([1, 2, 5])
        self.running: dict[str, Claimed] = {}
        self.unfinished: dict[str | None, list[str]] = defaultdict(list)
        self.now = NOW

    async def set_limits(self) -> None:
        await limit(self.store, "lanes", "sync", self.most, rate=self.rate)
        await limit(self.store, "task", "sync", 9)
        await limit(self.store, "queue", "default", 12)

    def job(self) -> Enqueue:
        if self.rng.random() < 0.2:
            return new("play", created_at=self.now)
        key = int(self.rng.expovariate(0.3))
        return sync(key, ordered=self.ordered, created_at=self.now)

    async def add(self) -> None:
        jobs = [self.job() for _ in range(self.rng.randint(0, 12))]
        await enqueue(self.store, *jobs, now=self.now)
        for job in jobs:
            self.unfinished[job.lane].append(job.id)

    def end(self, id: str) -> Outcome:
        job = self.running.pop(id)
        end = self.rng.choices(["succeeded", "retry", "released", "dead"], [6, 2, 1, 1])[0]
        if end == "retry":
            return retry(job, self.now + self.rng.randint(0, 3 * SECOND))
        if end != "released":
            self.unfinished[job.lane].remove(id)
        return OUTCOMES[end](job)

    async def round(self, outcomes: Sequence[Outcome], slots: int) -> None:
        worker = self.rng.choice([WORKER, OTHER_WORKER])
        wanted = claim_of(worker=worker, slots=slots, tasks=MANY_TASKS)
        request = Round(self.now, outcomes=outcomes, promote_due=True, claim=wanted)
        for job in (await self.store.write(request)).claimed:
            assert job.id not in self.running
            self.running[job.id] = job
        self.check()

    def check(self) -> None:
        lanes = Counter(job.lane for job in self.running.values() if job.lane)
        assert max(lanes.values(), default=0) <= self.most
        assert sum(job.task == "sync" for job in self.running.values()) <= 9
        assert len(self.running) <= 12
        if self.ordered:
            heads = [self.unfinished[job.lane][0] for job in self.running.values() if job.lane]
            assert self.running.keys() >= set(heads)
            assert len(heads) == sum(job.lane is not None for job in self.running.values())

    async def live(self, steps: int) -> None:
        for _ in range(steps):
            self.now += self.rng.choice([100, 1_000, 50_000, 400_000])
            await self.add()
            ended = self.rng.sample(sorted(self.running), self.rng.randint(0, len(self.running)))
            await self.round([self.end(id) for id in ended], self.rng.choice([1, 3, 50]))

    async def drain(self) -> int:
        """End all jobs, and return the number of those that were never claimed."""
        for _ in range(sum(map(len, self.unfinished.values())) * 3):
            if not any(self.unfinished.values()):
                break
            self.now += SECOND // 4
            outcomes = [succeeded(job) for job in self.running.values()]
            for job in self.running.values():
                self.unfinished[job.lane].remove(job.id)
            self.running.clear()
            await self.round(outcomes, 50)
        await self.round([], 50)
        assert not self.running  # no job that has ended is claimed again
        return sum(map(len, self.unfinished.values()))


@pytest.mark.parametrize("seed", range(12))
async def test_no_life_of_jobs_breaks_a_limit_or_forgets_a_job(store: Store, seed: int) -> None:
    life = Life(store, seed)
    await life.set_limits()
    await life.live(100)
    assert await life.drain() == 0
