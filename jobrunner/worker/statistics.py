"""Counts a worker's ended attempts in memory, until a round stores the counts."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Final

from jobrunner.core.histogram import Histogram
from jobrunner.core.logs import log_of
from jobrunner.core.model import Dead, Outcome, Succeeded
from jobrunner.store.counters import COMMIT_ROWS, COMMIT_TIME, LOOP_LAG, RUN, WAIT, histogram
from jobrunner.store.statistics import MINUTE_US, StatisticsRow, Total
from jobrunner.worker.chores import Period

logger = log_of("jobrunner")

WRITE_S: Final = 1.0
"""The least time between two rounds with statistics; a process that is killed loses as much of them."""
IDLE_S: Final = 10.0
"""The least time between two rounds that add to the workers' own counters alone, such as the loop's lag.

An idle worker writes them as often as its heartbeat.
"""
ROW_S: Final = 0.005
"""The time between two rounds for each row of the second one: to make and add a row takes less than 1 % of it."""
ROWS_PER_ROUND: Final = 500
"""The most rows that a round adds, which takes about 10 ms; the rest is for later rounds."""
MOST_WAITING: Final = 10_000
"""The most rows that wait while the store cannot write them; further ones are dropped, with a log line."""

_FAILED: Final = frozenset({"failed", "timed_out"})


class Statistics:
    """The counts of one worker that no round has stored yet."""

    def __init__(self) -> None:
        self._period = Period(WRITE_S)
        self._idle = Period(IDLE_S)
        self._minute = 0
        """The start of the minute of the next three."""
        self._durations: dict[str, dict[str, list[int]]] = {}
        """The wait and the run of each attempt (µs), alternately, by queue and task.

        Their lanes are found once a second, which is cheaper than at once.
        """
        self._failed: Counter[tuple[str, str]] = Counter()
        self._dead: Counter[tuple[str, str]] = Counter()
        self._rows: dict[tuple[int, str, str], StatisticsRow] = {}
        """The rows of earlier seconds and minutes, by key."""
        self._observed: dict[str, list[int]] = {COMMIT_ROWS: [], COMMIT_TIME: [], LOOP_LAG: []}
        """The values for the histograms of the workers; their buckets are found once a second too."""

    def count(self, outcomes: Sequence[Outcome], now: int) -> None:
        """Count attempts whose outcomes were stored in a round at ``now``."""
        minute = now - now % MINUTE_US
        if minute != self._minute:
            self._make_rows()
            self._minute = minute
        by_queue = self._durations
        for outcome in outcomes:
            if type(outcome) is not Succeeded and not self._counts(outcome):
                continue
            job = outcome.job
            try:
                durations = by_queue[job.queue][job.task]
            except KeyError:
                durations = by_queue.setdefault(job.queue, {})[job.task] = []
            started_at = job.started_at
            durations.append(started_at - job.run_at)
            durations.append(outcome.ended.at - started_at)

    def count_commit(self, rows: int, took_us: int) -> None:
        """Count a round that was stored, with the number of its rows."""
        self._observed[COMMIT_ROWS].append(rows)
        self._observed[COMMIT_TIME].append(took_us)

    def count_lag(self, lag_us: int) -> None:
        """Count how late the event loop has called a timer."""
        self._observed[LOOP_LAG].append(lag_us)

    def _counts(self, outcome: Outcome) -> bool:
        """Count a failure; return whether the attempt counts, as one that was snoozed or cancelled does not."""
        job, ended = outcome.job, outcome.ended
        if ended.outcome not in _FAILED:
            return ended.outcome == "succeeded"
        self._failed[job.queue, job.task] += 1
        if type(outcome) is Dead:
            self._dead[job.queue, job.task] += 1
        return True

    def _make_rows(self) -> None:
        """Turn what was counted into rows of its minute."""
        for queue, tasks in self._durations.items():
            for task, durations in tasks.items():
                failed = self._failed.get((queue, task), 0)
                waits, runs = durations[::2], durations[1::2]
                self._keep(
                    StatisticsRow(
                        *(self._minute, queue, task),
                        succeeded=len(durations) // 2 - failed,
                        failed=failed,
                        dead=self._dead.get((queue, task), 0),
                        wait=Histogram(waits),
                        run=Histogram(runs),
                        counts={WAIT: _sum(waits), RUN: _sum(runs)},
                    )
                )
        self._durations.clear()
        self._failed.clear()
        self._dead.clear()
        if len(self._rows) > MOST_WAITING:
            logger.error(
                "the statistics of %d minute(s) could not be written and are dropped; jobs are not affected",
                len({start for start, _, _ in self._rows}),
            )
            self._rows.clear()

    def _keep(self, row: StatisticsRow) -> None:
        waiting = self._rows.get(row.key)
        self._rows[row.key] = row if waiting is None else Total((waiting, row)).row(*row.key)

    def take(self, *, all_of_them: bool = False) -> Sequence[StatisticsRow]:
        """Take rows for the next round; none before the period is over, unless ``all_of_them``."""
        taken = list[StatisticsRow]()
        # First, since it is asked for every round, and is false for nearly all.
        if all_of_them or self._period.is_over():
            number = len(self._rows) + sum(map(len, self._durations.values()))
            if not all_of_them:
                number = min(number, ROWS_PER_ROUND)
                self._period.lasts(max(WRITE_S, ROW_S * number))
            if number and (all_of_them or self._period.begin()):
                self._make_rows()
                taken = [self._rows.pop(key) for key in list(islice(self._rows, number))]
        if (taken or all_of_them or self._idle.is_over()) and any(self._observed.values()):
            self._idle.begin()
            taken.append(self._row_of_workers())
        return taken or ()

    def _row_of_workers(self) -> StatisticsRow:
        """Take the observations of this worker as a row of counters."""
        counts: dict[str, int] = {}
        for name, values in self._observed.items():
            if values:
                counts.update(histogram(name, values))
                self._observed[name] = []
        nothing = Histogram()
        return StatisticsRow(self._minute, "", "", 0, 0, 0, nothing, nothing, counts)

    def put_back(self, rows: Sequence[StatisticsRow]) -> None:
        """Keep rows that were not stored for the next period."""
        for row in rows:
            self._keep(row)


def _sum(durations: Sequence[int]) -> int:
    """Return the sum of durations; a negative one counts as 0, since a counter may only grow."""
    return sum(durations) if min(durations) >= 0 else sum(max(one, 0) for one in durations)
