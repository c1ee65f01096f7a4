"""Counts a worker's ended attempts in memory, until a round adds them to the statistics of the store."""

from collections.abc import Sequence
from typing import Final

from jobrunner.core.histogram import Histogram
from jobrunner.core.logs import log_of
from jobrunner.core.model import Claimed, Dead, Outcome, Succeeded
from jobrunner.store.statistics import MINUTE_US, StatisticsRow, summed
from jobrunner.worker.chores import Period

logger = log_of("jobrunner")

WRITE_S: Final = 1.0
"""The time between two rounds with statistics; a process that is killed loses as much of them."""
ROWS_PER_ROUND: Final = 500
"""The most rows that a round adds, which takes about 20 ms; the next rounds add the rest."""
MOST_WAITING: Final = 20_000
"""The most rows that wait while the store cannot write them; further ones are dropped, with a log line."""


_COUNTED: Final = frozenset({"succeeded", "failed", "timed_out"})
"""The ends of attempts that count; a cancelled, snoozed or released one does not."""


class _Counted:
    """The attempts of one task in one queue, since the rows were last made."""

    __slots__ = ("dead", "durations", "failed")

    def __init__(self) -> None:
        self.failed = 0
        self.dead = 0
        self.durations: list[int] = []
        """The wait and the run of each attempt (µs), alternately; lanes are found once a second, which is cheaper."""


class Statistics:
    """The attempts that ended in this process and are not yet in the statistics of the store."""

    def __init__(self) -> None:
        self._period = Period(WRITE_S)
        self._minute = 0
        """The start of the minute of what is in ``_counted``."""
        self._counted: dict[str, dict[str, _Counted]] = {}
        """By queue and task."""
        self._rows: list[StatisticsRow] = []

    def count(self, outcomes: Sequence[Outcome], now: int) -> None:
        """Count attempts whose outcomes were stored in a round at ``now``."""
        minute = now - now % MINUTE_US
        if minute != self._minute:
            self._make_rows()
            self._minute = minute
        queues = self._counted
        for outcome in outcomes:
            job = outcome.job
            ended = outcome.ended
            if type(outcome) is not Succeeded and ended.outcome not in _COUNTED:
                continue
            try:
                counted = queues[job.queue][job.task]
            except KeyError:
                counted = self._first_of(job)
            started_at = job.started_at
            add = counted.durations.append
            add(started_at - job.run_at)
            add(ended.at - started_at)
            if type(outcome) is not Succeeded and ended.outcome != "succeeded":
                counted.failed += 1
                counted.dead += type(outcome) is Dead

    def _first_of(self, job: Claimed) -> _Counted:
        counted = _Counted()
        self._counted.setdefault(job.queue, {})[job.task] = counted
        return counted

    def _make_rows(self) -> None:
        """Turn what was counted into rows of its minute."""
        rows = self._rows
        for queue, tasks in self._counted.items():
            for task, counted in tasks.items():
                waits, runs = counted.durations[::2], counted.durations[1::2]
                rows.append(
                    StatisticsRow(
                        *(self._minute, queue, task),
                        succeeded=len(waits) - counted.failed,
                        failed=counted.failed,
                        dead=counted.dead,
                        wait=Histogram(waits),
                        run=Histogram(runs),
                    )
                )
        self._counted.clear()
        if len(rows) > MOST_WAITING:
            logger.error(
                "the statistics of %d minutes could not be written and are dropped; jobs are not affected",
                len({row.start for row in rows}),
            )
            rows.clear()

    def take(self, *, all_of_them: bool = False) -> Sequence[StatisticsRow]:
        """Take rows for the next round; none before ``WRITE_S`` is over, unless ``all_of_them``."""
        if not (self._counted or self._rows) or not (self._period.begin() or all_of_them):
            return ()
        self._make_rows()
        if len(self._rows) <= ROWS_PER_ROUND or all_of_them:
            rows, self._rows = self._rows, []
            return rows
        self._period.end()
        rows, self._rows = self._rows[:ROWS_PER_ROUND], self._rows[ROWS_PER_ROUND:]
        return rows

    def put_back(self, rows: Sequence[StatisticsRow]) -> None:
        """Keep rows that were not stored for a later round."""
        self._rows = summed([*rows, *self._rows])
