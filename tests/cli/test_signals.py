"""``jobrunner jobs signal``, and the steps in ``jobrunner jobs show``."""

import json
from pathlib import Path

from jobrunner import JobContext, JobRunner
from jobrunner.cli import exit_codes
from tests.cli.commands import jobrunner
from tests.support.engine import soon


async def test_signal_by_command_reaches_a_job_and_is_refused_twice(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def order(job: JobContext) -> int:
        return await job.wait_for("approved", int)

    async with jobs.running(work=False):
        job = await jobs.enqueue(order)
    at = ("--store", tmp_db)
    sent = await jobrunner("jobs", "signal", job.id, "approved", "--value", "7", *at)
    assert (sent.code, sent.out.strip()) == (0, "sent")
    again = await jobrunner("jobs", "signal", job.id, "approved", "--json", *at)
    assert (again.code, json.loads(again.out)["kept"]) == (exit_codes.CONFLICT, False)
    wrong = await jobrunner("jobs", "signal", job.id, "approved", "--value", "{", *at)
    assert wrong.code == exit_codes.USAGE
    shown = await jobrunner("jobs", "show", job.id, "--json", *at)
    (step,) = json.loads(shown.out)["steps"]
    assert (step["kind"], step["name"]) == ("signal", "approved")
    async with jobs.running():
        assert await soon((await jobs.get(job.id)).result()) == 7
