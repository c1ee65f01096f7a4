"""A worker whose loop is blocked, or whose process is stopped, lives: nobody takes its jobs."""

import os
import signal
from pathlib import Path

from jobrunner import JobRunner
from tests.support.children import block_loop, echo, hold, tasks
from tests.support.engine import Gate, history, next_round, worker_of
from tests.support.processes import child


async def test_C9_blocked_loop_keeps_its_job_and_others_go_on(tmp_db: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    jobs = JobRunner(tmp_db)
    jobs.include(tasks)
    async with jobs.running(work=False), child("work", tmp_db) as blocked:
        await blocked.heard("open")
        job = await jobs.enqueue(block_loop, str(pipe))
        assert (await blocked.heard("blocked"))["attempt"] == 1
        async with child("work", tmp_db) as other:
            await other.heard("open")
            # The other one has looked for the dead at its start, and goes on looking; it runs what is new.
            for word in ("one", "two", "three"):
                assert await (await jobs.enqueue(echo, word)).result(timeout=15) == word
            await worker_of(jobs).maintenance.recovery.recover(thorough=True)
            await next_round(jobs)
            assert (await job.refresh()).state == "running"
            assert len((await jobs.health()).workers) == 2
            with pipe.open("w") as writing:
                writing.write("released")
            assert await job.result(timeout=15) == "released"
            assert [a.outcome for a in await history(jobs, job.id)] == ["succeeded"]


async def test_D15_stopped_process_keeps_its_job_until_it_is_killed(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    jobs.include(tasks)
    async with jobs.running(work=False), child("work", tmp_db) as stopped:
        await stopped.heard("open")
        job = await jobs.enqueue(hold, "a")
        await stopped.heard("held")
        stopped.send_signal(signal.SIGSTOP)
        for _ in range(3):
            await worker_of(jobs).maintenance.recovery.recover(thorough=True)
        assert (await job.refresh()).state == "running"
        stopped.send_signal(signal.SIGKILL)
        await stopped.ended()
        await worker_of(jobs).maintenance.recovery.recover(thorough=True)
        assert (await job.refresh()).state == "queued"
        assert [a.outcome for a in await history(jobs, job.id)] == ["lost"]


async def test_D15_stale_settle_of_a_job_that_was_taken_away_changes_nothing(
    jobs: JobRunner,
) -> None:
    """The fence: should a worker be taken for dead after all, its late outcome is refused and said."""
    gate = Gate()

    @jobs.task
    async def work() -> str:
        await gate.enter()
        return f"run {len(gate.arrivals)}"

    async with jobs.running():
        worker = worker_of(jobs)
        job = await jobs.enqueue(work)
        await gate.arrival()
        # As if somebody had found the lock free: the row says that another life of the job has begun.
        await worker._store.workers.leave(worker.id, now=1)
        await next_round(jobs)
        await gate.arrival()
        assert gate.inside == 2
        gate.open()
        assert await job.result(timeout=15) == "run 2"
        await next_round(jobs)
        outcomes = [a.outcome for a in await history(jobs, job.id)]
        assert outcomes == ["released", "succeeded"]
