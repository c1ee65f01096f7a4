"""Counts the commits of a job as the crash points of a worker's life."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    contextmanager,
)
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, NoReturn

from jobrunner.core.model import MemoKind, Outcome, Parked
from jobrunner.queue.sync import BlockingVerbs
from jobrunner.store.open import GuardedCommits, Moment
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round, Written
from jobrunner.store.session import Session
from jobrunner.testing.crash_points import Life, current_life, leave_open
from jobrunner.worker.steps import AttemptSteps


@contextmanager
def watched(store: Store, commits: GuardedCommits, life: Life) -> Iterator[Callable[[], bool]]:
    """Count the commits on a store as crash points inside the block.

    They are its rounds with a claim, an outcome or a job, and the application's own commits on its file. Yields a
    function that returns whether there was a commit that nobody could count.
    """
    guard = OwnCommits(life)
    write, session = store.write, store.session
    lock, blocking_lock = store.write_lock, store.blocking_write_lock

    async def write_or_die(request: Round) -> Written:
        name = await _name_of(request, store, life)
        if name is None:
            written = await write(request)
            # A round that ends the last child of a job claims the job too.
            claimed = life.point is None and any(one.id == life.job for one in written.claimed)
            if claimed and life.passes("after the commit of the claim"):
                await life.die()
            return written
        if life.passes(f"before the commit of {name}"):
            await life.die()
            # The round is the runner's own, which lives on, and carries a job of the attempt: the job is lost.
            return await write(request._replace(enqueues=(), batches=()))
        written = await write(request)
        if life.passes(f"after the commit of {name}"):
            await life.die()
        return written

    def session_of(source: object) -> Session:
        found = session(source)
        if current_life.get() is life:
            vars(found)["commit"] = _commit_or_die(guard, commits, found, found.commit)
        return found

    replaced: dict[str, Any] = {
        "write": write_or_die,
        "session": session_of,
        "write_lock": lambda holder: _NotedLock(lock(holder), life),
        "blocking_write_lock": lambda holder: _noted(blocking_lock(holder), life),
    }
    with ExitStack() as stack:
        vars(store).update(replaced)
        for name in replaced:
            stack.callback(vars(store).pop, name)
        witness = stack.enter_context(commits.guarded(guard))
        stack.enter_context(_waits_noted(life))
        yield witness.has_found


class _NotedLock(AbstractAsyncContextManager[None]):
    """A write lock that a dying life gives back."""

    def __init__(self, lock: AbstractAsyncContextManager[None], life: Life) -> None:
        self._lock = lock
        self._life = life

    async def __aenter__(self) -> None:
        await self._lock.__aenter__()
        self._life.locks.append(self._lock)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._life.locks.remove(self._lock)
        await self._lock.__aexit__(kind, error, trace)


@contextmanager
def _noted(lock: AbstractContextManager[None], life: Life) -> Iterator[None]:
    """Hold a thread's write lock, which a dying thread gives back."""
    with lock:
        life.thread_locks.append(lock)
        try:
            yield
        finally:
            life.thread_locks.remove(lock)


_committing: Final[ContextVar[bool]] = ContextVar("jobrunner.testing.committing", default=False)
"""True inside a commit that is counted: the commits below it belong to it."""


class OwnCommits:
    """The ``CommitGuard`` that counts the application's commits as crash points of a life."""

    def __init__(self, life: Life) -> None:
        self._life = life

    def concerns(self) -> bool:
        """Return whether the running code belongs to the life."""
        return current_life.get() is self._life and not _committing.get()

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Leave out the commits inside the block."""
        token = _committing.set(True)
        try:
            yield
        finally:
            _committing.reset(token)

    def ends(self, moment: Moment) -> bool:
        """Count a crash point, and return whether the running code gets no further line.

        A thread cannot be suspended from outside, so one that has outlived its life stops at its next commit.
        """
        life = self._life
        return life.passes(f"{moment} the commit of a transaction") or not life.lasts()

    async def stop(self) -> None:
        """See ``Life.die``."""
        await self._life.die()

    def stop_thread(self, close: Callable[[], object]) -> NoReturn:
        """See ``Life.die_in_thread``."""
        self._life.die_in_thread(close)


def _commit_or_die(
    guard: OwnCommits,
    commits: GuardedCommits,
    session: Session,
    commit: Callable[[], Awaitable[None]],
) -> Callable[[], Awaitable[None]]:
    async def die() -> None:
        if session.blocking:
            guard.stop_thread(leave_open)
        await guard.stop()

    async def commit_or_die() -> None:
        with guard.committing():
            if guard.ends("before"):
                await session.rollback()
                await die()
            with commits.announced():
                await commit()
            if guard.ends("after"):
                await die()

    return commit_or_die


@contextmanager
def _waits_noted(life: Life) -> Iterator[None]:
    """Let threads that wait for the loop, as in ``sync.enqueue``, end with their life."""
    verbs: Any = BlockingVerbs
    steps: Any = AttemptSteps
    run, wait = verbs.run, steps.wait

    def is_outside() -> bool:
        return current_life.get() is not life or life.is_on_loop()

    def run_or_die(self: BlockingVerbs[Any], coroutine: Coroutine[Any, Any, Any]) -> Any:
        return run(self, coroutine) if is_outside() else _wait_or_die(life, coroutine)

    def step_or_die(self: AttemptSteps, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return wait(self, call) if is_outside() else _wait_or_die(life, call())

    verbs.run, steps.wait = run_or_die, step_or_die
    try:
        yield
    finally:
        verbs.run, steps.wait = run, wait


def _wait_or_die(life: Life, coroutine: Coroutine[Any, Any, Any]) -> Any:
    future = asyncio.run_coroutine_threadsafe(coroutine, life.loop)
    life.add_wait(future)
    try:
        return future.result()
    except CancelledError:
        if life.point is None:
            raise
        life.die_in_thread(leave_open)
    finally:
        life.remove_wait(future)


async def _name_of(request: Round, store: Store, life: Life) -> str | None:
    """Return a name for what a round commits; None if it holds nothing of the job."""
    if life.job is None or life.point is not None:
        return None
    for memo in request.memos:
        if memo.job.id == life.job:
            return _MEMOS[memo.kind].format(memo.name)
    for outcome in request.outcomes:
        if outcome.job.id == life.job:
            return _end_of(outcome)
    if request.enqueues or request.batches:
        return "an enqueue"
    if request.claim is None:
        return None
    row = await store.jobs.get(life.job)
    waits = row is not None and row.state in ("queued", "scheduled") and row.run_at <= request.now
    return "the claim" if waits else None


_MEMOS: Final[Mapping[MemoKind, str]] = {
    "step": "the step {!r}",
    "sleep": "the sleep {!r}",
    "signal": "the time-out of {!r}",
    "batch": "the children {!r}",
    "cursor": "the cursor of {!r}",
}


def _end_of(outcome: Outcome) -> str:
    """Return a name for the end of an attempt; that of a parked job is what it waits for."""
    if not isinstance(outcome, Parked):
        return "the end of the attempt"
    for wait in outcome.waits:
        if wait.needs.startswith("!"):
            return f"the wait for {wait.needs[1:]!r}"
    for memo in outcome.memos:
        return _MEMOS[memo.kind].format(memo.name)
    return "the wait"  # once more
