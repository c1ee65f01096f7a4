"""Gathers the work of one round, with the callers that wait for it."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from jobrunner.core.errors import JobRunnerError, StoreError
from jobrunner.core.model import BatchEnqueue, Enqueue, Enqueued, Memo
from jobrunner.core.schedule import Fire, Fired
from jobrunner.core.workflows import BatchEnqueued
from jobrunner.store.round import Round, Written


class Unit(NamedTuple):
    """Jobs of one call, stored all or none, and the future of their caller."""

    jobs: Sequence[Enqueue]
    """Empty for a batch."""
    rows: int
    size: int
    answer: asyncio.Future[Any]
    """Of a list of ``Enqueued``, or of a ``BatchEnqueued``."""
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


def answer_all(work: Gathered, written: Written) -> None:
    """Give those who wait for the work of a round what became of it."""
    at = 0
    batches = iter(written.batches)
    for unit in work.units:
        if unit.batch is None:
            _answer(unit, written.enqueued[at : at + len(unit.jobs)])
            at += len(unit.jobs)
        else:
            _answer_batch(unit, next(batches))
    at = 0
    for step in work.fires:
        if not step.answer.done():
            step.answer.set_result(written.fired[at : at + len(step.fires)])
        at += len(step.fires)
    for kept, is_stored in zip(work.memos, written.memos, strict=True):
        if kept.answer is not None and not kept.answer.done():
            kept.answer.set_result(is_stored)


def _answer(unit: Unit, stored: Sequence[Enqueued | StoreError]) -> None:
    if unit.answer.done():
        return
    jobs: list[Enqueued] = []
    for one in stored:
        if isinstance(one, StoreError):
            unit.answer.set_exception(one)
            return
        jobs.append(one)
    unit.answer.set_result(jobs)


def _answer_batch(unit: Unit, stored: BatchEnqueued | JobRunnerError) -> None:
    if unit.answer.done():
        return
    if isinstance(stored, JobRunnerError):
        unit.answer.set_exception(stored)
    else:
        unit.answer.set_result(stored)
