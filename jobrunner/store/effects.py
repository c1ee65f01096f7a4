"""Collects what a transaction does to jobs, for the answer of a round."""

from collections.abc import Sequence

from jobrunner.core.model import Enqueue, Enqueued, State


class Effects:
    """Counts the jobs that a transaction makes claimable, and finds the next due time."""

    def __init__(self) -> None:
        self.added = 0
        """Number of jobs that became claimable."""
        self.laned = 0
        """The part of ``added`` that arrived in lanes, which may have no room."""
        self.next_due: int | None = None
        """Earliest time at which one of the jobs becomes due or expires."""
        self.left_over = False
        """True if later transactions go on with what this one has begun; see ``followups``."""
        self.ended: Sequence[str] = ()
        """Ids of batches that ended."""

    def merge(self, other: "Effects") -> None:
        """Add the effects of a part of the transaction that was not rolled back."""
        self.added += other.added
        self.laned += other.laned
        self.left_over = self.left_over or other.left_over
        self.ended = (*self.ended, *other.ended)
        if other.next_due is not None:
            self.add_due(other.next_due)

    def add_due(self, due: int) -> None:
        """Record a time at which a job becomes due or expires."""
        if self.next_due is None or due < self.next_due:
            self.next_due = due

    def add(self, state: State, run_at: int, expires_at: int | None) -> None:
        """Record a job that now waits."""
        if state == "blocked":
            return
        if state == "queued":
            self.added += 1
        else:
            self.add_due(run_at)
        if expires_at is not None:
            self.add_due(expires_at)

    def add_stored(self, jobs: Sequence[Enqueue], made: Sequence[Enqueued]) -> None:
        """Record jobs that were enqueued."""
        for job, one in zip(jobs, made, strict=True):
            if not one.created:
                continue
            if job.lane is not None and one.state == "queued":
                self.laned += 1
            if one.state == "queued" and job.expires_at is None:
                # Inlined for nearly all jobs: a call would cost 0.2 µs of the 12 µs per row.
                self.added += 1
            else:
                self.add(one.state, one.run_at, job.expires_at)
