"""The schedules of an open runner: look, store, pause, run now, remove; and the declaring of those in the code."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar, Unpack

from jobrunner.core.clock import from_us, now_us
from jobrunner.core.errors import (
    DeclaredInCode,
    InvalidOptions,
    InvalidSchedule,
    ScheduleNotFound,
    UnknownQueue,
    UnknownTask,
)
from jobrunner.core.exports import exported
from jobrunner.core.job import Job
from jobrunner.core.model import (
    Enqueue,
    Misfire,
    Overlap,
    ScheduleChange,
    ScheduleRow,
    ScheduleSource,
    TickOutcome,
    TickRow,
)
from jobrunner.core.response_models import doc
from jobrunner.core.units import Seconds, checked_schedule_id
from jobrunner.queue.filters import DEFAULT_ROWS, checked_limit, no_cursor
from jobrunner.queue.page import Page
from jobrunner.store.protocol import Store
from jobrunner.tasks.call import NO_OPTIONS, ResolvedJobOptions
from jobrunner.tasks.recurrence import Cron, Every, Once, Recurrence
from jobrunner.tasks.schedule_options import ScheduleOptions, define
from jobrunner.tasks.spec import TaskSpec
from jobrunner.tasks.task import Task
from jobrunner.tasks.ticks import first_tick, job_of, recurrence_of, resumed_tick

T = TypeVar("T")


@exported
@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule, as it was when it was read."""

    id: str
    task: str = field(metadata=doc("The task's stored name."))
    source: ScheduleSource = field(
        metadata=doc("`code`: it stands above a task. `stored`: it was made at run time.")
    )
    description: str = field(metadata=doc("When it ticks, in English."))
    cron: str | None
    timezone: str | None
    every: timedelta | None = field(metadata=doc("Seconds between two ticks."))
    run_at: datetime | None = field(metadata=doc("Its only tick."))
    args: Mapping[str, Any] = field(
        metadata=doc("What its jobs are called with, by parameter name.")
    )
    misfire: Misfire = field(metadata=doc("What becomes of ticks that were missed."))
    grace: timedelta | None = field(
        metadata=doc("Seconds after which a tick is too late to make a job; null for never.")
    )
    cap: int = field(metadata=doc("With `all`: how many missed ticks make a job, at most."))
    overlap: Overlap = field(
        metadata=doc("`skip`: a tick makes no job while one of the schedule's is unfinished.")
    )
    jitter: timedelta = field(metadata=doc("Seconds within which a job starts after its tick."))
    start: datetime | None
    end: datetime | None
    paused: bool
    disabled: bool = field(metadata=doc("It stood in the code, and stands there no more."))
    next_at: datetime | None = field(
        metadata=doc(
            "The next tick; null while it is paused or disabled, and when none is to come."
        )
    )
    last_at: datetime | None = field(metadata=doc("The last tick that made a job."))
    last_job: str | None = field(metadata=doc("That job's id."))
    fired: int = field(metadata=doc("Ticks that have made a job."))
    skipped: int = field(metadata=doc("Ticks that have made none."))
    revision: int = field(metadata=doc("Of the application that declared it."))


@exported
@dataclass(frozen=True, slots=True)
class ScheduleTick:
    """One tick of a schedule, or a run of ticks that made no job."""

    at: datetime = field(metadata=doc(example="2026-11-22T08:00:00Z"))
    until: datetime = field(metadata=doc("The last of the run; the tick itself if it is one."))
    count: int = field(metadata=doc("How many; an estimate where there were more than 20,000.", 1))
    outcome: TickOutcome = field(
        metadata=doc(
            "`fired` made a job. None was made because a later tick stands for it (`missed`), its grace was over"
            " (`late`), a job of the schedule was unfinished (`overlap`) or an unfinished job held its key (`key`)."
        )
    )
    job: str | None = field(metadata=doc("The id of the job that it made."))


@exported
class Schedules:
    """Stored recurrences that make jobs; ``queue.schedules``."""

    def __init__(
        self,
        store: Store,
        tasks: Mapping[str, TaskSpec],
        queues: frozenset[str],
        *,
        timezone: str,
        enqueue: Callable[[Enqueue], Awaitable[Job[Any]]],
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._queues = queues
        self._timezone = timezone
        self._enqueue = enqueue
        self._wake = wake

    # -- looking ------------------------------------------------------------------

    async def get(self, id: str) -> Schedule:
        """Return a schedule.

        Raises:
            ScheduleNotFound: none has this id.
        """
        return _schedule_of(await self._row(id))

    async def list(
        self,
        *,
        task: Task[..., Any] | str | None = None,
        limit: int = DEFAULT_ROWS,
        cursor: str | None = None,
    ) -> Page[Schedule]:
        """Return a page of schedules, by id.

        Args:
            task: only its schedules.
            limit: schedules on the page, 1 to 1,000.
            cursor: the ``next_cursor`` of the page before.

        Raises:
            InvalidCursor: it is no text.
            InvalidOptions: a limit out of range.
        """
        name = task.name if isinstance(task, Task) else task
        if cursor is not None and not isinstance(cursor, str):
            raise no_cursor(cursor)
        # One more than asked for tells whether there is a page after.
        rows = await self._store.schedules.list(
            task=name, after=cursor, limit=checked_limit(limit) + 1
        )
        items = [_schedule_of(row) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def ticks(self, id: str, *, limit: int = DEFAULT_ROWS) -> Sequence[ScheduleTick]:
        """Return the ticks of a schedule, newest first: those that made a job, and those that were skipped.

        Raises:
            ScheduleNotFound: none has this id.
        """
        await self._row(id)
        return [
            _tick_of(row)
            for row in await self._store.schedules.ticks(id, limit=checked_limit(limit))
        ]

    async def _row(self, id: str) -> ScheduleRow:
        row = await self._store.schedules.get(id)
        if row is None:
            raise ScheduleNotFound(f"no schedule has the id {id!r}")
        return row

    # -- changing -----------------------------------------------------------------

    async def upsert(
        self,
        id: str,
        task: Task[..., Any] | str,
        *,
        cron: str | None = None,
        every: Seconds | None = None,
        run_at: datetime | None = None,
        timezone: str | None = None,
        **words: Unpack[ScheduleOptions],
    ) -> Schedule:
        """Store a schedule, or change the one that has the id; all workers follow at once.

        If nothing about its ticks is changed, the next one stays as it is.

        Args:
            id: letters, digits and ``_ . : @ + -``.
            task: what its jobs call, or its stored name; ``task.options(...)`` holds for each of them.
            cron: five fields, or ``@daily`` and its kin.
            every: seconds or a timedelta; ticks first one interval from now.
            run_at: an aware datetime, to tick once.
            timezone: of the cron expression; the runner's if not given.
            **words: ``args``, ``misfire``, ``grace``, ``cap``, ``overlap``, ``jitter``, ``start`` and
                ``end``.

        Raises:
            InvalidSchedule: a word has a value that cannot be; nothing was stored.
            InvalidArguments: ``args`` do not fit the task.
            DeclaredInCode: the id belongs to a schedule in the code.
            UnknownTask, UnknownQueue: the runner has no such task or queue.
        """
        try:
            checked_schedule_id(id)
        except InvalidOptions as error:
            raise InvalidSchedule(str(error)) from None
        recurrence = self._recurrence(cron, every, run_at, timezone)
        spec, options = self._checked(task)
        definition = define(spec, options, recurrence, words, "upsert")

        def changed(seen: ScheduleRow | None) -> ScheduleRow:
            now = now_us()
            timing = definition.timing
            if seen is None:
                tick = first_tick(timing, now)
                return ScheduleRow(id, "stored", definition, 0, 0, False, False, now, tick)
            if seen.source == "code":
                raise DeclaredInCode(
                    f"the schedule {id!r} stands in the code, above {seen.definition.task}: change it there,"
                    " or pause it"
                )
            same = seen.definition.timing == timing
            tick = seen.next if same else first_tick(timing, now, last=seen.last)
            return seen._replace(definition=definition, next=tick)

        return _schedule_of(await self._change(id, changed))

    def _recurrence(
        self,
        cron: str | None,
        every: Seconds | None,
        run_at: datetime | None,
        timezone: str | None,
    ) -> Recurrence:
        given = [word for word in (cron, every, run_at) if word is not None]
        if len(given) != 1:
            raise InvalidSchedule("a schedule takes one of cron=, every= and run_at=")
        if cron is not None:
            return Cron(cron, self._timezone if timezone is None else timezone)
        if timezone is not None:
            raise InvalidSchedule("timezone= goes with cron=; intervals and dates know none")
        return Every(every) if every is not None else Once(given[0])  # type: ignore[arg-type]  # the one that is left

    def _checked(self, task: Task[..., Any] | str) -> tuple[TaskSpec, ResolvedJobOptions]:
        if isinstance(task, str):
            found = self._tasks.get(task)
            if found is None:
                raise UnknownTask(f"no task {task!r} is registered with this runner")
            return found, NO_OPTIONS
        if not isinstance(task, Task):
            raise UnknownTask(f"{task!r} is not a task; decorate the function with @jobs.task")
        spec, options = task.spec, task._options  # noqa: SLF001 - of our own class
        if not spec.is_same(self._tasks.get(spec.name)):
            raise UnknownTask(
                f"{spec.name} ({spec.where}) is not registered with this runner; write jobs.include(router) before it"
                " is opened, or decorate the function with @jobs.task"
            )
        if options.queue is not None and options.queue not in self._queues:
            raise UnknownQueue(f"options(queue={options.queue!r}): the runner has no such queue")
        return spec, options

    async def pause(self, id: str) -> Schedule:
        """Let a schedule make no jobs until ``resume``, in any process; what it has made goes on.

        Raises:
            ScheduleNotFound: none has this id.
        """
        return await self._change_known(id, lambda seen: seen._replace(paused=True))

    async def resume(self, id: str) -> Schedule:
        """Undo ``pause``; ticks that fell into the pause make no job.

        Raises:
            ScheduleNotFound: none has this id.
        """

        def resumed(seen: ScheduleRow) -> ScheduleRow:
            if not seen.paused:
                return seen
            return seen._replace(paused=False, next=resumed_tick(seen, now_us()))

        return await self._change_known(id, resumed)

    async def remove(self, id: str) -> None:
        """Delete a schedule and the record of its ticks; its jobs stay.

        Raises:
            ScheduleNotFound: none has this id.
            DeclaredInCode: it stands in the code, and would be back at the next start.
        """

        def removed(seen: ScheduleRow | None) -> None:
            row = self._known(id, seen)
            if row.source == "code" and not row.disabled:
                raise DeclaredInCode(
                    f"the schedule {id!r} stands in the code, above {row.definition.task}: take it away there,"
                    " or pause it"
                )

        await self._change(id, removed)

    async def run_now(self, id: str) -> Job[Any]:
        """Store a job of a schedule now, due at once, with the options of every other; its ticks stay as they are.

        It works on a paused schedule too, and whatever ``overlap`` says.

        Returns:
            The job; with ``created`` False if an unfinished one held the schedule's key.

        Raises:
            ScheduleNotFound: none has this id.
            UnknownTask: the runner does not have its task.
        """
        row = await self._row(id)
        spec = self._tasks.get(row.definition.task)
        if spec is None:
            raise UnknownTask(
                f"schedule {id!r} is of task {row.definition.task}, which this runner does not have; register it, or"
                " keep its old name with @jobs.task(aliases=[...])"
            )
        now = now_us()
        at_once = row._replace(definition=row.definition._replace(jitter=0))
        return await self._enqueue(job_of(at_once, spec, now, now))

    async def _change_known(
        self, id: str, changed: Callable[[ScheduleRow], ScheduleRow]
    ) -> Schedule:
        return _schedule_of(await self._change(id, lambda seen: changed(self._known(id, seen))))

    def _known(self, id: str, row: ScheduleRow | None) -> ScheduleRow:
        if row is None:
            raise ScheduleNotFound(f"no schedule has the id {id!r}")
        return row

    async def _change(self, id: str, changed: Callable[[ScheduleRow | None], T]) -> T:
        """Write what ``changed`` makes of a row; again from the start if another process was quicker."""
        while True:
            seen = await self._store.schedules.get(id)
            row = changed(seen)
            if row == seen:
                return row
            new = row if isinstance(row, ScheduleRow) else None
            if await self._store.schedules.change([ScheduleChange(seen, new)]):
                self._wake()
                return row


def _schedule_of(row: ScheduleRow) -> Schedule:
    definition = row.definition
    timing = definition.timing
    active = not (row.paused or row.disabled)
    return Schedule(
        id=row.id,
        task=definition.task,
        source=row.source,
        description=_description(row),
        cron=timing.cron,
        timezone=timing.timezone,
        every=_duration(timing.every),
        run_at=_instant(timing.run_at),
        args=json.loads(definition.args),
        misfire=definition.misfire,
        grace=_duration(definition.grace),
        cap=definition.cap,
        overlap=definition.overlap,
        jitter=timedelta(microseconds=definition.jitter),
        start=_instant(timing.start),
        end=_instant(timing.end),
        paused=row.paused,
        disabled=row.disabled,
        next_at=_instant(row.next) if active else None,
        last_at=_instant(row.last_fired),
        last_job=row.last_job,
        fired=row.fired,
        skipped=row.skipped,
        revision=row.revision,
    )


def _description(row: ScheduleRow) -> str:
    try:
        return recurrence_of(row.definition.timing).describe()
    except InvalidSchedule as error:
        # Stored by a process that knows more zones than this one.
        return str(error)


def _tick_of(row: TickRow) -> ScheduleTick:
    return ScheduleTick(from_us(row.instant), from_us(row.until), row.number, row.outcome, row.job)


def _instant(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)


def _duration(us: int | None) -> timedelta | None:
    return None if us is None else timedelta(microseconds=us)
