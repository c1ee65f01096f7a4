"""The route that shows what ended, by time, queue or task."""

from typing import Annotated, Any

from fastapi import Query

from jobrunner.fastapi.api import problems
from jobrunner.fastapi.api.operations import Operations
from jobrunner.fastapi.api.problems import Problems
from jobrunner.fastapi.api.stats_schemas import StatsBody, StatsQueryBody
from jobrunner.queue.queue import JobQueue

StatsFilter = Annotated[StatsQueryBody, Query(), Problems(problems.INVALID_OPTIONS)]


def add_stats(reading: Operations, provided: Any) -> None:
    """Add the statistics route to the jobs router."""

    @reading.route("GET", "/stats", summary="Get statistics", answers="The statistics.")
    async def get_stats(where: StatsFilter, queue: JobQueue = provided) -> StatsBody:
        """Get what ended in a window of time: attempts, dead letters, and percentiles of waits and runs.

        By default it has the minutes of the last hour. The last one or two seconds may be missing.
        """
        found = await queue.stats(
            per=where.per,
            by=where.by,
            since=where.since,
            until=where.until,
            queue=where.queue,
            task=where.task,
        )
        return StatsBody.model_validate(found)
