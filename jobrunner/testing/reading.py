"""Offers the methods of a tester that read and assert, for both testers."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from jobrunner.core.attempt import history_of
from jobrunner.core.clock import from_us
from jobrunner.core.dead_letter import DeadLetter, dead_letter_of
from jobrunner.core.job import Job
from jobrunner.core.model import State
from jobrunner.queue.schedules import Schedule
from jobrunner.tasks.task import Task
from jobrunner.testing.assertions import Expected, check_times, difference, split, text_of
from jobrunner.testing.inline import inline
from jobrunner.testing.records import Record, Run
from jobrunner.testing.runners import TestedRunners

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


class TesterSchedules(Sequence[Schedule]):
    """The schedules of the tester's stores, the one with the next tick first."""

    def __init__(self, found: Sequence[Schedule]) -> None:
        self._found = found

    def next(self, task: Task[..., Any] | None = None) -> Schedule | None:
        """Return the schedule that ticks next, at its ``next_at``; None if none will.

        Args:
            task: Only schedules of this task. Default: all.
        """
        for one in self._found:
            if one.next_at is not None and (task is None or one.task == task.name):
                return one
        return None

    @overload
    def __getitem__(self, index: int) -> Schedule: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Schedule]: ...
    def __getitem__(self, index: int | slice) -> Schedule | Sequence[Schedule]:
        return self._found[index]

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return repr(self._found)


class TesterReads:
    """Reads and asserts; the base of ``JobTester`` and ``SyncJobTester``."""

    def __init__(self, runners: TestedRunners, *, strict: bool) -> None:
        self._runners = runners
        self._strict = strict
        self._seen: set[str] = set()
        """The ids of the jobs that the test has read."""

    # -- where and when --------------------------------------------------------------

    @property
    def store(self) -> Path:
        """The SQLite file of the (first) runner, for the test's sessions."""
        return self._runners.path

    @property
    def now(self) -> datetime:
        """The time on the tester's clock, in UTC."""
        return from_us(self._runners.clock.now_us())

    # -- reading ----------------------------------------------------------------------

    @overload
    def list(self, task: None = None, *, state: State | None = ...) -> Sequence[Job[Any]]: ...
    @overload
    def list(self, task: Task[..., R], *, state: State | None = ...) -> Sequence[Job[R]]: ...
    def list(
        self, task: Task[..., Any] | None = None, *, state: State | None = None
    ) -> Sequence[Job[Any]]:
        """Return the stored jobs and dead letters, oldest first, with arguments and history.

        Args:
            task: Only jobs of this task. Default: all.
            state: Only jobs in this state. Default: all.
        """
        return [
            record.job()
            for record in self._read(task)
            if state is None or record.row.state == state
        ]

    @overload
    def runs(self, task: None = None) -> Sequence[Run[Any]]: ...
    @overload
    def runs(self, task: Task[..., R]) -> Sequence[Run[R]]: ...
    def runs(self, task: Task[..., Any] | None = None) -> Sequence[Run[Any]]:
        """Return the runs of the jobs that have begun, in that order.

        Args:
            task: Only jobs of this task. Default: all.
        """
        begun = sorted(
            (record for record in self._read(task) if record.attempts),
            key=lambda record: (record.attempts[0].started_at, record.attempts[0].lease),
        )
        return [record.run() for record in begun]

    @property
    def dead_letters(self) -> Sequence[DeadLetter]:
        """The dead letters, in the order in which their jobs were enqueued."""
        dead = [record for record in self._read(None, "dead") if record.row.state == "dead"]
        return [dead_letter_of(record.row, history_of(record.attempts)) for record in dead]

    @property
    def schedules(self) -> TesterSchedules:
        """The schedules, the one with the next tick first; ``schedules.next()`` returns that."""
        return TesterSchedules(self._runners.schedules())

    def _read(self, task: Task[..., Any] | None, state: State | None = None) -> Sequence[Record]:
        records = self._runners.records()
        found = [record for record in records if task is None or record.is_of(task)]
        self._seen.update(
            record.row.id for record in found if state is None or record.row.state == state
        )
        return found

    # -- asserting ---------------------------------------------------------------------

    @overload
    def assert_enqueued(
        self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Sequence[Job[R]]: ...
    @overload
    def assert_enqueued(
        self,
        task: Task[..., R],
        /,
        *,
        queue: str = ...,
        key: str = ...,
        tag: str = ...,
        state: State = ...,
        times: int = ...,
    ) -> Sequence[Job[R]]: ...
    @overload
    def assert_enqueued(
        self,
        task: Task[Concatenate[A, ...], R],
        a: A,
        /,
        *,
        queue: str = ...,
        key: str = ...,
        tag: str = ...,
        state: State = ...,
        times: int = ...,
    ) -> Sequence[Job[R]]: ...
    @overload
    def assert_enqueued(
        self,
        task: Task[Concatenate[A, B, ...], R],
        a: A,
        b: B,
        /,
        *,
        queue: str = ...,
        key: str = ...,
        tag: str = ...,
        state: State = ...,
        times: int = ...,
    ) -> Sequence[Job[R]]: ...
    @overload
    def assert_enqueued(
        self,
        task: Task[Concatenate[A, B, C, ...], R],
        a: A,
        b: B,
        c: C,
        /,
        *,
        queue: str = ...,
        key: str = ...,
        tag: str = ...,
        state: State = ...,
        times: int = ...,
    ) -> Sequence[Job[R]]: ...
    def assert_enqueued(
        self, task: Task[..., Any], /, *args: Any, **kwargs: Any
    ) -> Sequence[Job[Any]]:
        """Assert that a call of a task was stored, whatever its state now.

        ::

            t.assert_enqueued(send_welcome, "a@x.de", queue="mail", times=1)
            t.assert_enqueued(remind.options(delay=timedelta(hours=24)), "a@x.de")
            t.assert_enqueued(send_welcome, times=3)        # with any arguments

        Options that are set on the task must be those of the job.

        Args:
            task: The task, with the expected options or without.
            *args: The arguments of the call; none for any.
            **kwargs: Further arguments by name. Beside them ``queue``, ``key``, ``tag`` and ``state`` of the job, and
                ``times``, the exact number of such jobs. Default: at least one.

        Returns:
            The jobs, in the order in which they were enqueued.

        Raises:
            AssertionError: There is no such job, or another number; the message lists what was enqueued instead.
            InvalidArguments: The arguments do not fit the task.
        """
        __tracebackhide__ = True
        self._runners.require(task)
        ours, kwargs = split(task, ("times",), kwargs)
        times = ours.get("times")
        check_times(times)
        expected = Expected.of(task, args, kwargs)
        records = self._runners.records()
        found = [record for record in records if expected.matches(record)]
        if len(found) != times if times is not None else not found:
            raise AssertionError(difference(expected, records, times))
        return [record.job() for record in found]

    @overload
    def assert_nothing_enqueued(self, task: None = None, /) -> None: ...
    @overload
    def assert_nothing_enqueued(self, task: Task[..., Any], /) -> None: ...
    @overload
    def assert_nothing_enqueued(
        self, task: Task[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
    def assert_nothing_enqueued(self, task: Any = None, /, *args: Any, **kwargs: Any) -> None:
        """Assert that no job was stored: none at all, none of a task, or no such call of it.

        Args:
            task: The task; its options count as in ``assert_enqueued``. Default: any.
            *args: The arguments of the call; none for any.
            **kwargs: Further arguments by name.

        Raises:
            AssertionError: There is such a job; the message lists them.
            InvalidArguments: The arguments do not fit the task.
        """
        __tracebackhide__ = True
        records = self._runners.records()
        if task is not None:
            self._runners.require(task)
            expected = Expected.of(task, args, kwargs)
            records = [record for record in records if expected.matches(record)]
            called = str(expected)
        else:
            called = "any task"
        if records:
            lines = [f"expected no job of {called}, found {len(records)}:"]
            raise AssertionError("\n  ".join([*lines, *map(text_of, records)]))

    # -- routes --------------------------------------------------------------------------

    def inline(self) -> AbstractContextManager[None]:
        """Let requests run their jobs before they answer, inside a ``with`` block.

        ::

            with t.inline():
                await client.post("/register", ...)
            assert outbox == ["a@x.de"]

        The due jobs run after the request's commit and before its response, or as soon as the request waits for a
        job: in ``jobs.respond()`` and ``job.result()``. Delayed jobs wait. The error of a failed attempt is raised in
        the request, and so in the test.

        Raises:
            ConfigurationError: The tester has no application.
        """
        return inline(self._runners)

    # -- the end -----------------------------------------------------------------------------

    def _check_end(self) -> None:
        """Raise if ``strict`` finds jobs that the test should have read.

        Raises:
            AssertionError: Jobs run, are stuck or are dead, and the test has not read them.
        """
        __tracebackhide__ = True
        if not self._strict:
            return
        left = [
            text_of(record)
            for record in self._runners.records()
            if record.row.state in ("running", "dead") and record.row.id not in self._seen
        ]
        left += [f"{name} does not end" for name in self._runners.stuck]
        if left:
            raise AssertionError(
                "the test ends with jobs that it has not read (`t.dead_letters`, `t.runs()`), and the tester is"
                " strict:\n  " + "\n  ".join(left)
            )


def runners_of(tester: TesterReads) -> TestedRunners:
    """Return the runners of a tester."""
    return tester._runners  # noqa: SLF001 - its own module
