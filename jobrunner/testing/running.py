"""Offers the methods of ``JobTester`` that run jobs and move the clock."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, overload

from jobrunner.core.clock import MICROSECOND
from jobrunner.core.dead_letter import DeadLetter
from jobrunner.core.job import Job
from jobrunner.tasks.task import Task
from jobrunner.testing.assertions import split
from jobrunner.testing.clock import instant_of
from jobrunner.testing.reading import TesterReads
from jobrunner.testing.records import Record, Run
from jobrunner.testing.runners import DEFAULT_TIMEOUT_S

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
Until = Literal["succeeded", "dead"]


class TesterRuns(TesterReads):
    """Runs jobs and moves the clock; the base of ``JobTester``."""

    # -- running ----------------------------------------------------------------------

    async def run_until_idle(self, *, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        """Run the due jobs, and those that they enqueue, until none is due.

        Jobs whose delay or whose wait for a retry lies ahead stay as they are: see ``travel``.

        Args:
            timeout: The longest real time in seconds. Default: 30.

        Raises:
            TimeoutError: Jobs still run after ``timeout``; the message names them.
        """
        async with self._runners.driven() as drivers:
            await self._runners.in_time(drivers, self._runners.run_due(drivers), timeout)

    @overload
    async def perform(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Run[R]: ...
    @overload
    async def perform(
        self, task: Task[[], R], /, *, until: Until = ..., timeout: float = ...
    ) -> Run[R]: ...
    @overload
    async def perform(
        self,
        task: Task[Concatenate[A, ...], R],
        a: A,
        /,
        *,
        until: Until = ...,
        timeout: float = ...,
    ) -> Run[R]: ...
    @overload
    async def perform(
        self,
        task: Task[Concatenate[A, B, ...], R],
        a: A,
        b: B,
        /,
        *,
        until: Until = ...,
        timeout: float = ...,
    ) -> Run[R]: ...
    @overload
    async def perform(
        self,
        task: Task[Concatenate[A, B, C, ...], R],
        a: A,
        b: B,
        c: C,
        /,
        *,
        until: Until = ...,
        timeout: float = ...,
    ) -> Run[R]: ...
    async def perform(self, task: Task[..., Any], /, *args: Any, **kwargs: Any) -> Run[Any]:
        """Enqueue a task and run it to its end, without real waiting.

        The clock moves past its delay and past the wait of each retry. What becomes due on the way runs too, and so do
        other jobs that are due now.

        Args:
            task: The task, with options or without.
            *args: The arguments of the call.
            **kwargs: Further arguments by name. Beside them ``until``, the state in which the job must end
                (``"succeeded"`` or ``"dead"``; default: any), and ``timeout``, the longest real time in seconds
                (default: 30).

        Returns:
            What became of the job.

        Raises:
            AssertionError: The job has not ended in the state ``until``, or cannot go on.
            TimeoutError: Jobs still run after ``timeout``; the message names them.
            InvalidArguments: The arguments do not fit the task.
        """
        __tracebackhide__ = True
        queue = self._runners.runner_of(task).queue
        ours, kwargs = split(task, ("until", "timeout"), kwargs)
        async with self._runners.driven() as drivers:

            async def work() -> Record:
                job = await queue.enqueue(task, *args, **kwargs)
                return await self._runners.run_to_end(drivers, job.id)

            record = await self._runners.in_time(
                drivers, work(), ours.get("timeout", DEFAULT_TIMEOUT_S)
            )
        return self._ended(record, 0, ours.get("until"))

    @overload
    async def finish(
        self, job: Run[R] | Job[R], *, until: Until | None = ..., timeout: float = ...
    ) -> Run[R]: ...
    @overload
    async def finish(
        self, job: str, *, until: Until | None = ..., timeout: float = ...
    ) -> Run[Any]: ...
    async def finish(
        self,
        job: Run[Any] | Job[Any] | str,
        *,
        until: Until | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> Run[Any]:
        """Run a stored job to its end, such as one of a request.

        Args:
            job: The job, or its id.
            until: The state in which the job must end. Default: any.
            timeout: The longest real time in seconds. Default: 30.

        Returns:
            What became of the job, with all its attempts.

        Raises:
            LookupError: There is no such job.
            AssertionError: The job has not ended in the state ``until``, or cannot go on.
            TimeoutError: Jobs still run after ``timeout``; the message names them.
        """
        __tracebackhide__ = True
        id = job if isinstance(job, str) else job.id
        async with self._runners.driven() as drivers:
            record = await self._runners.in_time(
                drivers, self._runners.run_to_end(drivers, id), timeout
            )
        return self._ended(record, 0, until)

    @overload
    async def replay(
        self,
        dead: Run[R] | Job[R],
        *,
        args: Mapping[str, object] | None = ...,
        until: Until | None = ...,
        timeout: float = ...,
    ) -> Run[R]: ...
    @overload
    async def replay(
        self,
        dead: DeadLetter | str,
        *,
        args: Mapping[str, object] | None = ...,
        until: Until | None = ...,
        timeout: float = ...,
    ) -> Run[Any]: ...
    async def replay(
        self,
        dead: Run[Any] | Job[Any] | DeadLetter | str,
        *,
        args: Mapping[str, object] | None = None,
        until: Until | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> Run[Any]:
        """Replay a dead letter and run it to its end, like ``perform``.

        Args:
            dead: The dead letter, its job, its run or its id.
            args: Arguments by parameter name that replace the stored ones. The replay is a new job then. Default: none.
            until: The state in which the job must end. Default: any.
            timeout: The longest real time in seconds. Default: 30.

        Returns:
            What became of the job; its attempts are those since the replay.

        Raises:
            JobNotFound: There is no such dead letter.
            InvalidArguments: ``args`` do not fit the task.
            AssertionError: The job has not ended in the state ``until``, or cannot go on.
            TimeoutError: Jobs still run after ``timeout``; the message names them.
        """
        __tracebackhide__ = True
        id = dead if isinstance(dead, str) else dead.id
        before = self._runners.record(id)
        async with self._runners.driven() as drivers:

            async def work() -> Record:
                job = await before.owner.parts.dead_letters.replay(id, args=args)
                return await self._runners.run_to_end(drivers, job.id)

            record = await self._runners.in_time(drivers, work(), timeout)
        return self._ended(record, 0 if args is not None else len(before.attempts), until)

    @overload
    async def signal(
        self, job: Run[R] | Job[R], name: str, value: object = ..., *, timeout: float = ...
    ) -> Run[R]: ...
    @overload
    async def signal(
        self, job: str, name: str, value: object = ..., *, timeout: float = ...
    ) -> Run[Any]: ...
    async def signal(
        self,
        job: Run[Any] | Job[Any] | str,
        name: str,
        value: object = None,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> Run[Any]:
        """Send a signal to a job, and run what is due then.

        ::

            run = await t.signal(job, "approved", Approval(by="ann", ok=True))
            assert run.state == "succeeded"

        Args:
            job: The job, or its id.
            name: The name of the signal, as in ``job.wait_for``.
            value: A pydantic model, or what JSON can express. Default: None.
            timeout: The longest real time in seconds. Default: 30.

        Returns:
            The job as it is then; it may wait again.

        Raises:
            LookupError: There is no such job.
            JobFinished: The job has ended.
            InvalidOptions: The name or the value is invalid.
            AssertionError: The job has this signal already, or its wait has timed out.
            TimeoutError: Jobs still run after ``timeout``; the message names them.
        """
        __tracebackhide__ = True
        id = job if isinstance(job, str) else job.id
        record = self._runners.record(id)
        if not await self._runners.queue_of(record).signal(id, name, value):
            raise AssertionError(
                f"{record.row.task} {id} has a signal {name!r} already, or its wait has timed out"
            )
        await self.run_until_idle(timeout=timeout)
        return self._ended(self._runners.record(id), 0, None)

    def _ended(self, record: Record, after: int, until: Until | None) -> Run[Any]:
        __tracebackhide__ = True
        self._seen.add(record.row.id)
        run = record.run(after=after)
        if until is not None and run.state != until:
            trace = record.attempts[-1].traceback if record.attempts else None
            raise AssertionError(f"expected the job to be {until}: {run!r}\n{trace or ''}".rstrip())
        return run

    # -- the clock -----------------------------------------------------------------------

    async def travel(
        self,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        """Move the clock forward, and run what becomes due on the way.

        Jobs and ticks run in order, each at its time.

        Under freezegun or time-machine their time moves too.

        Args:
            weeks: Weeks to move the clock; the time is the sum of all five.
            days: Days of 24 hours.
            hours: Hours.
            minutes: Minutes.
            seconds: Seconds.
            timeout: The longest real time in seconds. Default: 30.

        Raises:
            ValueError: The time is negative.
            TimeoutError: Jobs still run after ``timeout``; the message names them.
        """
        step = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
        if step < timedelta():
            raise ValueError(f"travel() moves the clock forward, and this is {step}")
        await self._travel(self._runners.clock.now_us() + step // MICROSECOND, timeout)

    async def travel_to(
        self, moment: datetime | str, *, zone: str | None = None, timeout: float = DEFAULT_TIMEOUT_S
    ) -> None:
        """Move the clock forward to a moment; see ``travel``.

        Args:
            moment: An aware datetime, or an ISO date and time such as ``"2026-11-30 08:00"``.
            zone: The time zone of a moment that names none, such as ``"Europe/Berlin"``. Default: UTC.
            timeout: The longest real time in seconds. Default: 30.

        Raises:
            ValueError: The moment is in the past or is not readable.
            TimeoutError: Jobs still run after ``timeout``; the message names them.
        """
        instant = instant_of(moment, zone)
        if instant < self._runners.clock.now_us():
            raise ValueError(
                f"travel_to({moment!r}) is in the past: the clock shows {self.now.isoformat()} and moves forward only."
                " To begin at another time, freeze it before the tester opens"
            )
        await self._travel(instant, timeout)

    async def _travel(self, instant: int, timeout: float) -> None:
        async with self._runners.driven() as drivers:
            work = self._runners.travel_to(drivers, instant)
            await self._runners.in_time(drivers, work, timeout)
