"""Defines the part of a worker in the rounds of a committer."""

from collections.abc import Sequence
from typing import Protocol

from jobrunner.core.errors import StoreError
from jobrunner.core.model import Claim, Progressed
from jobrunner.store.round import Round, Written
from jobrunner.store.statistics import StatisticsRow


class RoundParticipant(Protocol):
    """A worker that claims jobs in every round and starts them after the commit."""

    tasks: frozenset[str]
    """Names of all tasks that the worker can run, including aliases."""

    def next_claim(self) -> Claim | None:
        """Return the claim for the next round; None if the worker claims nothing."""
        ...

    def take_promote_due(self) -> bool:
        """Return whether the next round should promote due jobs, and reset the request."""
        ...

    def take_statistics(self, *, all_of_them: bool = False) -> Sequence[StatisticsRow]:
        """Return the statistics to add with the next round; by default about once a second."""
        ...

    def put_back_statistics(self, rows: Sequence[StatisticsRow]) -> None:
        """Keep statistics that were not stored for a later round."""
        ...

    def take_progress(self) -> Sequence[Progressed]:
        """Return the progress of attempts to store with the next round."""
        ...

    def put_back_progress(self, rows: Sequence[Progressed]) -> None:
        """Keep progress that was not stored for the next round."""
        ...

    def after_commit(self, request: Round, written: Written, took_s: float) -> None:
        """Called after the commit: start the claimed jobs and resolve waiters.

        ``took_s`` is the time from handing the round to the store to its answer.
        """
        ...

    def warn_slow(self) -> None:
        """Called while a round is slow: name the tasks whose sessions may block it."""
        ...

    def after_failure(self, request: Round, error: StoreError) -> None:
        """Called after a failed round: request the same work again."""
        ...
