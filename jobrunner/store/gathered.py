"""Gathers the work of one round, with the callers that wait for it."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from jobrunner.core.clock import now_s
from jobrunner.core.errors import JobRunnerError, StoreBusy, StoreError
from jobrunner.core.model import BatchEnqueue, Enqueue, Memo
from jobrunner.core.schedule import Fire, Fired
from jobrunner.core.workflows import BatchEnqueued
from jobrunner.store.round import Round, Written

PATIENCE_S: Final = 5.0
"""As long as a file waits for another process's write lock."""


class Unit(NamedTuple):
    """Jobs of one call, stored all or none, and the future of their caller."""

    jobs: Sequence[Enqueue]
    """Empty for a batch."""
    rows: int
    size: int
    answer: asyncio.Future[Any]
    """Of a sequence of ``Enqueued``, or of a ``BatchEnqueued``."""
    made_s: float
    """The time of the call, by ``now_s()``.

    For a while it is tried again, if another transaction holds what it needs.
    """
    batch: BatchEnqueue | None = None


class Fires(NamedTuple):
    """Steps of schedules and the future of the scheduler."""

    fires: Sequence[Fire]
    answer: asyncio.Future[Sequence[Fired | StoreError]]


class Kept(NamedTuple):
    """A memo and the future of its attempt; None if nobody waits for it."""

    memo: Memo
    answer: asyncio.Future[bool] | None


class Gathered(NamedTuple):
    """The work of one round, with those who wait for it."""

    units: Sequence[Unit]
    fires: Sequence[Fires]
    memos: Sequence[Kept]
    request: Round


def answer_all(work: Gathered, written: Written, *, patient: bool) -> Sequence[Unit]:
    """Give those who wait for the work of a round what became of it.

    Args:
        work: The work.
        written: The answer of the store.
        patient: False if no call is to be tried again.

    Returns:
        The calls to try again, of which nothing was stored.
    """
    held: list[Unit] = []
    at = 0
    batches = iter(written.batches)
    for unit in work.units:
        stored: Sequence[Any] | BatchEnqueued | JobRunnerError
        error: JobRunnerError | None
        if unit.batch is None:
            stored = written.enqueued[at : at + unit.rows]
            at += unit.rows
            # Its error is that of all jobs of a call. A crash of the testing kit answers nothing.
            error = stored[0] if stored and isinstance(stored[0], StoreError) else None
        else:
            stored = next(batches)
            error = stored if isinstance(stored, JobRunnerError) else None
        if unit.answer.done():
            continue
        if patient and isinstance(error, StoreBusy) and now_s() < unit.made_s + PATIENCE_S:
            held.append(unit)
        elif error is not None:
            unit.answer.set_exception(error)
        else:
            unit.answer.set_result(stored)
    at = 0
    for step in work.fires:
        if not step.answer.done():
            step.answer.set_result(written.fired[at : at + len(step.fires)])
        at += len(step.fires)
    for kept, is_stored in zip(work.memos, written.memos, strict=True):
        if kept.answer is not None and not kept.answer.done():
            kept.answer.set_result(is_stored)
    return held
