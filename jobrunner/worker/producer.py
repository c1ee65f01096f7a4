"""Fills free slots in each round: claims jobs, hands them to the supervisor, and settles ended attempts.

A producer writes nothing itself.  The committer asks it before each round which slots are free, and calls it with the
result afterwards.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.errors import StoreError, StoreOutcomeUnknown
from jobrunner.core.logs import log_of
from jobrunner.core.model import Cancelled, Claim, Claimed, Ended, Progressed, Released, Succeeded
from jobrunner.store.committer import Committer
from jobrunner.store.round import Round, Written
from jobrunner.store.statistics import StatisticsRow
from jobrunner.worker.events import Events
from jobrunner.worker.membership import Membership
from jobrunner.worker.outcomes import extra, failed, log
from jobrunner.worker.progress import ProgressReports
from jobrunner.worker.statistics import Statistics
from jobrunner.worker.supervisor import Supervisor

logger = log_of("jobrunner")

POLL_S: Final = 0.5
"""The longest wait of a due job if every wake-up fails: the doorbell is lost, or the clock was set."""


class Producer:
    """A worker's ``RoundParticipant``: it claims jobs and processes the results of each round."""

    def __init__(
        self,
        membership: Membership,
        committer: Committer,
        supervisor: Supervisor,
        *,
        events: Events,
        statistics: Statistics,
        progress: ProgressReports,
        notify_others: Callable[[], None],
        on_next_tick: Callable[[int | None], None],
    ) -> None:
        self.tasks = frozenset(supervisor.specs)
        self._membership = membership
        self._committer = committer
        self.supervisor = supervisor
        self._events = events
        self._statistics = statistics
        self._progress = progress
        self._notify_others = notify_others
        self._on_next_tick = on_next_tick
        self._promote_due = True
        self._suspects_wait = True
        self._claim_lost = False
        """True if a round with a claim may have been written and its answer was lost."""
        self._due_timer: asyncio.TimerHandle | None = None
        self.next_due: int | None = None
        """The time (µs) of the next due job, as the last promotion returned it; None if none is scheduled."""

    # -- rounds --------------------------------------------------------------------

    def next_claim(self) -> Claim | None:
        """Return a claim for the free slots; None if there are none, or the worker stops or may be taken for dead."""
        supervisor = self.supervisor
        if supervisor.stopping or self._membership.standing != "held":
            return None
        free = supervisor.free_slots()
        if not free:
            return None
        suspects = self._suspects_wait and supervisor.suspect is None
        held = (
            frozenset((one.job.seq, one.job.lease) for one in supervisor.attempts.values())
            if self._claim_lost
            else None
        )
        return Claim(self._membership.number, free, self.tasks, suspects, held)

    def take_promote_due(self) -> bool:
        """Return whether the next round should promote due jobs, and reset the flag."""
        requested, self._promote_due = self._promote_due, False
        return requested

    def take_statistics(self, *, all_of_them: bool = False) -> Sequence[StatisticsRow]:
        """Return the statistics to add with the next round."""
        return self._statistics.take(all_of_them=all_of_them)

    def put_back_statistics(self, rows: Sequence[StatisticsRow]) -> None:
        """Keep statistics that were not stored for a later round."""
        self._statistics.put_back(rows)

    def take_progress(self) -> Sequence[Progressed]:
        """Return the progress to store with the next round."""
        return self._progress.take()

    def put_back_progress(self, rows: Sequence[Progressed]) -> None:
        """Keep progress that was not stored for the next round."""
        self._progress.put_back(rows)

    def after_commit(self, request: Round, written: Written, took_s: float) -> None:
        """Called after the commit: start the claimed jobs and resolve waiters."""
        rows = len(request.outcomes) + len(written.enqueued)
        rows += sum(len(batch.members) for batch in request.batches)
        rows += len(written.claimed) + len(written.fired)
        if rows:
            self._statistics.count_commit(rows, round(took_s * SECOND_US))
        if request.outcomes:
            self._settled(request, written)
        for batch in written.ended:
            self._events.wake(batch)
        watches = self._events.watches
        if watches and (request.progress or written.claimed):
            watches.changed([row.job.id for row in request.progress])
            watches.changed([job.id for job in written.claimed])
        if request.claim is not None:
            self._claimed(request.claim, written.claimed)
        if request.promote_due or (
            written.next_due is not None
            and (self.next_due is None or written.next_due < self.next_due)
        ):
            self.next_due = written.next_due
            self._arm()
        if request.ticks_of is not None:
            self._on_next_tick(written.next_tick)
        if written.more_due:
            self.wake()
        if written.left_queued:
            self._notify_others()

    def _claimed(self, claim: Claim, jobs: Sequence[Claimed]) -> None:
        if claim.held is not None:
            self._claim_lost = False
        if claim.suspects:
            self._suspects_wait = any(job.suspect for job in jobs)
        if self.supervisor.stopping:
            # The stop came while the claim was being committed.
            for job in jobs:
                self._committer.settle(Released(job, Ended("released", now_us())))
        elif claim.worker != self._membership.number:
            # Found dead while the claim was being committed: whoever finds these jobs queues them again.
            return
        elif jobs:
            self.supervisor.start(jobs)

    def after_failure(self, request: Round, error: StoreError) -> None:
        """Called after a failed round: request the same again."""
        self._promote_due = self._promote_due or request.promote_due
        if request.claim is not None and isinstance(error, StoreOutcomeUnknown):
            self._claim_lost = True

    def count_lag(self, lag_s: float) -> None:
        """Count how late the event loop has called a timer."""
        self._statistics.count_lag(round(lag_s * SECOND_US))

    def warn_slow(self) -> None:
        """Called while a round is slow: log the tasks whose sessions may delay it."""
        self.supervisor.warn_of_sessions()

    # -- wake-ups -----------------------------------------------------------------------

    def wake(self, *, suspects: bool = False) -> None:
        """Request a round soon that promotes and claims due jobs."""
        self._promote_due = True
        self._suspects_wait = self._suspects_wait or suspects
        self._committer.wake()

    def _arm(self) -> None:
        """Set a timer for the next due job, unless the poll comes first."""
        self._disarm()
        if self.next_due is None or self.supervisor.stopping:
            return
        wait_s = (self.next_due - now_us()) / SECOND_US
        if wait_s <= POLL_S:
            # If the clock is set meanwhile, the job is at most half a second late: the poll reads the clock again.
            self._due_timer = asyncio.get_running_loop().call_later(max(0.0, wait_s), self.wake)

    def begin_stop(self) -> None:
        """Stop claiming jobs, and let the supervisor stop."""
        self._disarm()
        self.supervisor.begin_stop()

    def _disarm(self) -> None:
        if self._due_timer is not None:
            self._due_timer.cancel()
            self._due_timer = None

    # -- outcomes ---------------------------------------------------------------------------------

    def _settled(self, request: Round, written: Written) -> None:
        outcomes = request.outcomes
        undone = {(one.job.seq, one.job.lease) for one in (*written.stale, *written.busy)}
        for success, error in written.refused:
            job = success.job
            undone.add((job.seq, job.lease))
            self._committer.settle(failed(job, self.supervisor.specs[job.task], error, now_us()))
        if undone:
            outcomes = [one for one in outcomes if (one.job.seq, one.job.lease) not in undone]
        self._statistics.count(outcomes, request.now)
        events = self._events
        debug = logger.isEnabledFor(logging.DEBUG)
        nobody_listens = not events.has_listeners("succeeded")
        for outcome in written.stale:
            logger.warning(
                "%s %s ended, but its lease had been taken away: its outcome was not written",
                outcome.job.task,
                outcome.job.id,
                extra=extra(outcome.job),
            )
        for outcome in outcomes:
            job = outcome.job
            if type(outcome) is Succeeded:
                if debug:
                    logger.debug("%s %s succeeded", job.task, job.id, extra=extra(job))
                if nobody_listens:
                    continue
            elif job.seq in written.cancelled:
                outcome = Cancelled(job, outcome.ended)  # noqa: PLW2901 - this was written instead
            else:
                log(outcome)
            events.notify_outcome(outcome)
