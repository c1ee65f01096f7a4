"""Runs the steps, waits and children of an attempt, and parks its job.

A memo is stored before the next line of the task runs.  Parking ends the attempt with ``Suspend``; the next one runs
the task from its beginning, and finds in the memos what is done.
"""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn

from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.errors import (
    ChildrenFailed,
    InvalidStep,
    LeaseLost,
    NotRunning,
    ResultNotStored,
    StepMismatch,
    WaitTimedOut,
    WrongThread,
    shown,
)
from jobrunner.core.logs import log_of
from jobrunner.core.model import BatchEnqueue, Edge, Ended, Memo, MemoKind, Parked
from jobrunner.core.units import Seconds, duration_us, is_step_name
from jobrunner.core.workflows import BatchRow
from jobrunner.store.committer import Committer
from jobrunner.store.protocol import Store
from jobrunner.tasks.call import Call
from jobrunner.tasks.spec import TaskSpec
from jobrunner.tasks.step_codec import StepCodec, codec_of_cursor, codec_of_model, codec_of_result
from jobrunner.worker.attempt import Attempt
from jobrunner.worker.cursors import Cursor
from jobrunner.worker.dependencies import AttemptScope
from jobrunner.worker.outcomes import OUR_FILES

logger = log_of("jobrunner")

LOOP_CHECK_S: Final = 1.0
"""The time between two checks of a waiting thread that the loop is still open."""
PAGE: Final = 1_000
"""The most results of children that one read returns."""

_WRITTEN: Final[Mapping[MemoKind, str]] = {
    "step": "job.step",
    "sleep": "job.sleep",
    "signal": "job.wait_for",
    "batch": "job.run",
    "cursor": "job.iterate",
}


OUR_FILES.add(__file__)


class Suspend(BaseException):
    """Ends an attempt whose job waits.

    It is no ``Exception``, so that ``except Exception`` in a task lets it pass.
    """


class StepRuntime(NamedTuple):
    """The parts of one worker that its attempts' steps use."""

    store: Store
    committer: Committer
    specs: Mapping[str, TaskSpec]
    around: AttemptScope
    loop: asyncio.AbstractEventLoop


class AttemptSteps:
    """The ``Steps`` of one attempt."""

    __slots__ = ("_attempt", "_cursors", "_memos", "_runtime", "_used", "parked")

    def __init__(self, attempt: Attempt, runtime: StepRuntime) -> None:
        self._attempt = attempt
        self._runtime = runtime
        # A job that has never run has no memos of its own.
        self._memos: dict[tuple[MemoKind, str], str | None] | None = (
            {} if attempt.job.lease == 1 else None
        )
        self._used: set[tuple[MemoKind, str]] = set()
        self._cursors: list[Cursor] = []
        self.parked: Parked | None = None
        """The outcome of the attempt, once it has parked its job."""

    # -- steps -------------------------------------------------------------------------------

    async def step(
        self,
        name: str,
        function: Callable[..., object],
        args: Sequence[object],
        kwargs: Mapping[str, object],
    ) -> Any:
        codec, is_done, value = await self._begin_step(name, function)
        if is_done:
            return value
        value = function(*args, **kwargs)
        if inspect.isawaitable(value):
            value = await value
        await self._end_step(name, codec, value)
        return value

    def step_in_thread(
        self,
        name: str,
        function: Callable[..., object],
        args: Sequence[object],
        kwargs: Mapping[str, object],
    ) -> Any:
        codec, is_done, value = self.wait(lambda: self._begin_step(name, function))
        if is_done:
            return value
        value = function(*args, **kwargs)
        if inspect.iscoroutine(value):
            value.close()
            raise InvalidStep(
                f"{self._what('step', name)} is an `async def`, which a `def` task cannot await: write the task as"
                " `async def`"
            )
        self.wait(lambda: self._end_step(name, codec, value))
        return value

    async def _begin_step(
        self, name: str, function: Callable[..., object]
    ) -> tuple[StepCodec, bool, Any]:
        """Return the codec of a step, whether it is done, and its stored result."""
        self._use("step", name)
        if not callable(function):
            raise InvalidStep(
                f"{self._what('step', name)} takes a function and its arguments, not {shown(function)}"
            )
        codec = codec_of_result(function)
        memos = await self._load()
        if ("step", name) not in memos:
            return codec, False, None
        return codec, True, self._read(codec, "step", name, memos["step", name])

    async def _end_step(self, name: str, codec: StepCodec, value: object) -> None:
        text = codec.write(value, self._what("step", name))
        await self._keep("step", name, text)

    async def begin_transaction(self, name: str) -> Memo | None:
        """Return the memo to store in the transaction of a step; None if the step is done."""
        self._use("step", name)
        if ("step", name) in await self._load():
            return None
        return self._memo("step", name, "null")

    # -- waits -------------------------------------------------------------------------------

    async def sleep(self, delay: Seconds, name: str) -> None:
        self._use("sleep", name)
        delay_us = duration_us(delay, "delay")
        stored = (await self._load()).get(("sleep", name))
        now = now_us()
        until = now + delay_us if stored is None else int(stored)
        if until > now:
            self._park(until, (), () if stored else (self._memo("sleep", name, str(until)),))

    async def wait_for(self, name: str, model: Any, timeout: Seconds | None) -> Any:
        self._use("signal", name)
        codec = None if model is None else codec_of_model(model)
        timeout_us = None if timeout is None else duration_us(timeout, "timeout")
        memos = await self._load()
        if ("signal", name) not in memos:
            # It may have come since, or before the first run.
            memos = await self._load(again=True)
        if ("signal", name) in memos:
            return self._signalled(name, codec, memos["signal", name])
        if timeout_us is None:
            self._park(None, (f"!{name}",), ())
        stored = memos.get(("sleep", f"!{name}"))
        now = now_us()
        until = now + timeout_us if stored is None else int(stored)
        if until > now:
            deadline = () if stored else (self._memo("sleep", f"!{name}", str(until)),)
            self._park(until, (f"!{name}",), deadline)
        # The first memo of the name counts: this one, or a signal that has just come.
        return self._signalled(name, codec, await self._keep("signal", name, None))

    def _signalled(self, name: str, codec: StepCodec | None, value: str | None) -> Any:
        if value is None:
            raise WaitTimedOut(f"{self._what('signal', name)}: no signal came in time")
        return None if codec is None else self._read(codec, "signal", name, value)

    # -- children ----------------------------------------------------------------------------

    async def run(self, name: str, calls: Any) -> Any:
        self._use("batch", name)
        many = [calls] if isinstance(calls, Call) else calls
        if not isinstance(many, Sequence) or not all(isinstance(one, Call) for one in many):
            raise InvalidStep(
                f"{self._what('batch', name)} takes calls of tasks: write"
                f" `await job.run({name!r}, [task.call(...), ...])`, not {shown(calls)}"
            )
        stored = (await self._load()).get(("batch", name))
        if stored is None:
            children = self._runtime.around.children(many, name, self._attempt.job.id)
            assert not isinstance(children.batch, str)  # noqa: S101 - a new one
            memo = json.dumps({"batch": children.batch.id, "calls": len(many)})
            waits = (children.batch.id,)
            self._park(None, waits, (self._memo("batch", name, memo),), children)
        memo = json.loads(stored)
        row = await self._runtime.store.workflows.get(memo["batch"])
        if row is None:
            raise StepMismatch(
                f"{self._what('batch', name)}: its batch {memo['batch']} is past its retention{_forget(name)}"
            )
        if row.state == "running":
            self._park(None, (row.id,), ())
        if row.state != "succeeded":
            raise self._children_failed(name, row)
        results = await self._results(row, memo["calls"])
        return results[0] if isinstance(calls, Call) and results else results

    def _children_failed(self, name: str, row: BatchRow) -> ChildrenFailed:
        return ChildrenFailed(
            f"{self._what('batch', name)}: of {row.total} children {row.succeeded} succeeded, {row.dead} are dead"
            f" letters and {row.cancelled} were cancelled or expired (batch {row.id}); retry the batch, then replay"
            " this job",
            row.id,
        )

    async def _results(self, row: BatchRow, number: int) -> list[Any]:
        """Return the results of the first members of a batch, in their order."""
        found: list[Any] = []
        after: int | None = 0
        while after is not None and len(found) < number:
            page = await self._runtime.store.workflows.member_results(
                row.id, tasks=None, after=after, limit=min(PAGE, number - len(found))
            )
            for one in page.rows:
                spec = self._runtime.specs.get(one.task)
                if one.result_omitted is not None:
                    raise ResultNotStored(f"{one.task} {one.id}: {one.result_omitted}")
                found.append(
                    spec.result.decode(one.result)
                    if spec is not None
                    else None
                    if one.result is None
                    else json.loads(one.result)
                )
            after = page.next
        return found

    # -- iterations --------------------------------------------------------------------------

    async def iterate(
        self,
        name: str,
        source: Callable[[Any], AsyncIterator[tuple[Any, Any]]],
        every: int,
        seconds: Seconds,
    ) -> AsyncIterator[Any]:
        cursor, start = await self._begin_iteration(name, source, every, seconds)
        async for position, item in source(start):
            yield item
            if cursor.is_due(position):
                await self._save(cursor)
        await self._save(cursor)

    def iterate_in_thread(
        self,
        name: str,
        source: Callable[[Any], Iterator[tuple[Any, Any]]],
        every: int,
        seconds: Seconds,
    ) -> Iterator[Any]:
        cursor, start = self.wait(lambda: self._begin_iteration(name, source, every, seconds))
        for position, item in source(start):
            yield item
            if cursor.is_due(position):
                self.wait(lambda: self._save(cursor))
        self.wait(lambda: self._save(cursor))

    async def _begin_iteration(
        self, name: str, source: Callable[..., object], every: int, seconds: Seconds
    ) -> tuple[Cursor, Any]:
        """Return the cursor of an iteration, and the stored position."""
        self._use("cursor", name)
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise InvalidStep(
                f"{self._what('cursor', name)}: every={every!r} is not a whole number of at least 1"
            )
        codec = codec_of_cursor(source)
        seconds_s = duration_us(seconds, "seconds") / SECOND_US
        stored = (await self._load()).get(("cursor", name))
        start = None if stored is None else self._read(codec, "cursor", name, stored)
        cursor = Cursor(name, codec, every, seconds_s, self._runtime.loop)
        self._cursors.append(cursor)
        return cursor, start

    async def _save(self, cursor: Cursor) -> None:
        self._check_runs()
        if cursor.is_new:
            await self._keep("cursor", cursor.name, self._position(cursor))

    def _position(self, cursor: Cursor) -> str:
        """Return the position of a cursor as text, which counts as stored."""
        cursor.stored()
        return cursor.codec.write(cursor.position, self._what("cursor", cursor.name))

    def unsaved(self) -> Sequence[Memo]:
        """Return the cursors that are to be stored with the end of the attempt.

        Raises:
            InvalidStep: A cursor cannot be stored.
        """
        return [
            self._memo("cursor", one.name, self._position(one))
            for one in self._cursors
            if one.is_new
        ]

    # -- memos -------------------------------------------------------------------------------

    def _use(self, kind: MemoKind, name: str) -> None:
        """Check that the attempt runs and that the name is new in it."""
        self._check_runs()
        if not is_step_name(name):
            raise InvalidStep(
                f"{_WRITTEN[kind]}: {shown(name)} is no name of a step: a letter, a digit or _, then also . : @ + -, at"
                " most 200 in all"
            )
        self._runtime.store.refuse_wait(_WRITTEN[kind])
        if (kind, name) in self._used:
            raise InvalidStep(
                f"{self._what(kind, name)} was called before in this run, and a name stands for one result: in a loop"
                f' write f"{name}-{{number}}"'
                if kind != "sleep"
                else f"{self._what(kind, name)} was called before in this run, and would return at once: write"
                ' `await job.sleep(..., name="...")`'
            )
        self._used.add((kind, name))

    def _check_runs(self) -> None:
        if self.parked is not None:
            # The task has swallowed the first one, or goes on in another asyncio task.
            raise Suspend
        attempt = self._attempt
        if attempt.ended:
            raise NotRunning("the attempt has ended: a step is for the task that runs the job")
        if attempt.transaction_ended is not None:
            raise LeaseLost(
                "a transaction of this attempt has settled the job: let the block be its last part, or write"
                ' `job.transaction(step="...")`'
            )

    async def _load(self, *, again: bool = False) -> dict[tuple[MemoKind, str], str | None]:
        """Return the memos of the job."""
        if self._memos is None or again:
            rows = await self._runtime.store.workflows.steps(self._attempt.job.seq)
            self._memos = {(row.kind, row.name): row.value for row in rows}
        return self._memos

    async def _keep(self, kind: MemoKind, name: str, value: str | None) -> str | None:
        """Store a memo, and return the one that is stored.

        Raises:
            LeaseLost: The attempt is no longer this worker's.
        """
        self._runtime.store.refuse_wait(_WRITTEN[kind])
        if await self._runtime.committer.keep(self._memo(kind, name, value)):
            return value
        # It is there already, as after a commit whose answer was lost, or a signal has come first.
        memos = await self._load(again=True)
        stored = memos.get((kind, name), _MISSING)
        if stored is _MISSING or (kind != "signal" and stored != value):
            job = self._attempt.job
            raise LeaseLost(f"{job.task} {job.id} was taken away from this worker")
        return memos[kind, name]

    def _memo(self, kind: MemoKind, name: str, value: str | None) -> Memo:
        return Memo(self._attempt.job, kind, name, value)

    def _read(self, codec: StepCodec, kind: MemoKind, name: str, stored: str | None) -> Any:
        what = f"the stored value of {self._what(kind, name)} does not fit{_forget(name)}"
        return codec.read(stored or "null", what)

    def _what(self, kind: MemoKind, name: str) -> str:
        return f"{_WRITTEN[kind]}({name!r}) in {self._attempt.job.task}"

    # -- parking -----------------------------------------------------------------------------

    def _park(
        self,
        until: int | None,
        needs: Sequence[str],
        memos: Sequence[Memo],
        children: BatchEnqueue | None = None,
    ) -> NoReturn:
        """End the attempt, and let its job wait.

        Raises:
            Suspend: Always.
        """
        job = self._attempt.job
        waits = [Edge(job.id, needed, "end") for needed in needs]
        ended = Ended("snoozed", now_us())
        self.parked = Parked(job, ended, until, waits, memos, children)
        raise Suspend

    def wait(self, call: Callable[[], Awaitable[Any]]) -> Any:
        loop = self._runtime.loop
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - as get_running_loop(), without an error to catch
            raise WrongThread(
                "job.sync would block this event loop: in an `async` task write `await job.step(...)`, without `sync`"
            )

        # Here too: the loop does not see what transaction this thread is in.
        self._runtime.store.refuse_wait("job.sync")

        async def run() -> Any:
            return await call()

        future = asyncio.run_coroutine_threadsafe(run(), loop)
        while True:
            try:
                return future.result(LOOP_CHECK_S)
            except TimeoutError:
                if future.done():
                    return future.result()  # the call itself raised a TimeoutError
                if loop.is_closed():
                    raise NotRunning("the runner's event loop was closed meanwhile") from None


_MISSING: Final = object()


def _forget(name: str) -> str:
    return f'; replay the dead letter with forget=["{name}"] to do it again'
