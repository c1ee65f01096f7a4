"""Adds the running job to records of the log."""

import logging

from jobrunner.core.exports import exported
from jobrunner.worker.attempt import Attempt
from jobrunner.worker.unawaited import caller

FIELDS = ("job_id", "task", "attempt")


@exported
class JobLogFilter(logging.Filter):
    """Adds the running job to each record of a handler.

    ::

        handler.addFilter(JobLogFilter())

    A record that is made inside a task, also in its threads, dependencies and subtasks, gets ``job_id``, ``task`` and
    ``attempt``, unless it has them. Every record gets ``job``, for a format such as ``%(name)s%(job)s: %(message)s``:
    empty outside of tasks, else `` task=charge attempt=1 job_id=0193...``.

    Add it to handlers: a logger's filter does not see the records of the loggers below it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields to a record, which is always let through."""
        attempt = caller.get()
        if isinstance(attempt, Attempt):
            job = attempt.context
            for name, value in zip(FIELDS, (job.id, job.task, job.attempt), strict=True):
                if not hasattr(record, name):
                    setattr(record, name, value)
        record.job = "".join(
            f" {name}={getattr(record, name)}"
            for name in ("task", "attempt", "job_id")
            if hasattr(record, name)
        )
        return True
