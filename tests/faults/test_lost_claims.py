"""A round is written and its answer is lost: what it claimed runs all the same, once, in the worker that claimed it."""

import asyncio
import contextlib
from collections import Counter
from itertools import count
from pathlib import Path

import pytest
from tenacity import wait_none

from jobrunner import JobContext, JobRunner, Snooze
from jobrunner.core.errors import StoreOutcomeUnknown
from jobrunner.store.round import Round, Written
from tests.support.engine import Gate, history, producer_of, soon, store_of, supervisor_of


class Answers:
    """Loses the answers to chosen rounds, counted from the first one that stores a job."""

    def __init__(self, jobs: JobRunner, monkeypatch: pytest.MonkeyPatch, *lost: int) -> None:
        self.rounds = 0
        self.lost = set(lost)
        self._write = store_of(jobs).write
        monkeypatch.setattr(store_of(jobs), "write", self._lose)

    async def _lose(self, request: Round) -> Written:
        if self.rounds or request.enqueues:
            self.rounds += 1
        number = self.rounds
        written = await self._write(request)
        if number in self.lost:
            raise StoreOutcomeUnknown("the commit failed")
        return written


async def test_H11_job_claimed_in_a_round_whose_answer_is_lost_runs_in_the_same_worker(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = JobRunner(tmp_db, queues={"default": 2})
    gate = Gate()

    @jobs.task
    async def work(name: str) -> str:
        await gate.enter(name)
        return name

    async with jobs.running():
        # One attempt is under way, and is none of those that nobody has heard of.
        before = await jobs.enqueue(work, "before")
        assert await gate.arrival() == "before"
        # The answer to the round after the lost one is lost as well.
        Answers(jobs, monkeypatch, 1, 2)
        with pytest.raises(StoreOutcomeUnknown):
            await jobs.enqueue(work, "lost")
        assert await gate.arrival() == "lost"
        (lost, _) = (await jobs.list()).items
        assert supervisor_of(jobs)._busy == {"default": 2}
        gate.open()
        assert await lost.result(timeout=15) == "lost"
        assert await before.result(timeout=15) == "before"
        for job in (lost, before):
            assert [a.outcome for a in await history(jobs, job.id)] == ["succeeded"]
        assert gate.arrivals == ["before", "lost"]
        assert not producer_of(jobs)._claim_lost


async def test_H11_the_answer_to_the_nth_round_is_lost_and_every_job_comes_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in count(1):
        runs: Counter[tuple[str, int]] = Counter()
        # Two slots for three jobs, so that rounds settle and claim, and a retry that is due at once, so that one round
        # settles an attempt and claims the next one of the same job.
        jobs = JobRunner(tmp_path / f"{n}.db", queues={"default": 2})

        @jobs.task(wait=wait_none(), max_attempts=3)
        async def stumble(job: JobContext, runs: Counter[tuple[str, int]] = runs) -> None:
            runs[job.id, job.attempt] += 1
            if job.attempt < 3:
                raise LookupError

        @jobs.task
        async def rest(job: JobContext, runs: Counter[tuple[str, int]] = runs) -> None:
            runs[job.id, 0] += 1
            if runs[job.id, 0] == 1:
                raise Snooze(0)

        async with jobs.running():
            answers = Answers(jobs, monkeypatch, n, n + 1)
            calls = [stumble.call(), rest.call(), stumble.call()]
            with contextlib.suppress(StoreOutcomeUnknown):
                await jobs.enqueue_many(calls)
            stored = (await jobs.list()).items
            await soon(asyncio.gather(*(job.result() for job in stored)))
            outcomes = [[a.outcome for a in await history(jobs, job.id)] for job in stored]
            assert outcomes == [
                ["failed", "failed", "succeeded"],
                ["snoozed", "succeeded"],
                ["failed", "failed", "succeeded"],
            ]
        assert all(times == 1 for (_, attempt), times in runs.items() if attempt)
        assert sorted(times for (_, attempt), times in runs.items() if not attempt) == [2]
        if answers.rounds < n:
            assert n > 4, "the story is too short to tell anything"
            break
