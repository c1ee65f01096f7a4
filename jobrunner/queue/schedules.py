"""Lists, stores, pauses and removes the schedules of an open runner."""

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
from jobrunner.core.model import Enqueue
from jobrunner.core.response_models import doc
from jobrunner.core.schedule import (
    Misfire,
    Overlap,
    ScheduleChange,
    ScheduleRow,
    ScheduleSource,
    TickOutcome,
    TickRow,
)
from jobrunner.core.units import Seconds, checked_schedule_id, instant_us
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
    """A schedule that makes jobs: a snapshot of the moment when it was read."""

    id: str
    task: str = field(metadata=doc("The task's stored name."))
    source: ScheduleSource = field(
        metadata=doc("`code`: declared by a decorator. `stored`: made at run time.")
    )
    description: str = field(metadata=doc("The times of its ticks, in English."))
    cron: str | None
    timezone: str | None
    every: timedelta | None = field(metadata=doc("Seconds between two ticks."))
    run_at: datetime | None = field(metadata=doc("The only tick of a schedule that ticks once."))
    args: Mapping[str, Any] = field(metadata=doc("The arguments of its jobs, by parameter name."))
    misfire: Misfire = field(metadata=doc("The rule for missed ticks."))
    grace: timedelta | None = field(
        metadata=doc("Seconds after which a tick is too late to make a job; null for no limit.")
    )
    cap: int = field(metadata=doc("With misfire `all`: the most missed ticks that make a job."))
    overlap: Overlap = field(
        metadata=doc("`skip`: a tick makes no job while one of the schedule's jobs is unfinished.")
    )
    jitter: timedelta = field(
        metadata=doc("Seconds: the longest random delay of a job after its tick.")
    )
    start: datetime | None
    end: datetime | None
    paused: bool
    disabled: bool = field(metadata=doc("True if the code declared it and no longer does."))
    next_at: datetime | None = field(
        metadata=doc("The next tick; null if it is paused or disabled, or has no ticks left.")
    )
    last_at: datetime | None = field(metadata=doc("The last tick that made a job."))
    last_job: str | None = field(metadata=doc("That job's id."))
    fired: int = field(metadata=doc("Ticks that made a job."))
    skipped: int = field(metadata=doc("Ticks that made no job."))
    revision: int = field(metadata=doc("The revision of the application that declared it."))


@exported
@dataclass(frozen=True, slots=True)
class ScheduleTick:
    """One tick of a schedule, or a run of ticks that made no job."""

    at: datetime = field(metadata=doc(example="2026-11-22T08:00:00Z"))
    until: datetime = field(
        metadata=doc("The last tick of the run; for one tick the same as `at`.")
    )
    count: int = field(metadata=doc("The number of ticks; an estimate above 20,000.", 1))
    outcome: TickOutcome = field(
        metadata=doc(
            "`fired` made a job. The others made none: a later tick was used instead (`missed`), its grace was over"
            " (`late`), a job of the schedule was unfinished (`overlap`), or an unfinished job had its key (`key`)."
        )
    )
    job: str | None = field(metadata=doc("The id of the job that it made; null if it made none."))


@exported
class Schedules:
    """Lists, stores, pauses and removes schedules.

    ::

        await jobs.schedules.upsert("report:acme", send_report, cron="0 8 * * 1", args=["acme"])
        await jobs.schedules.pause("report:acme")
        await jobs.schedules.run_now("report:acme")

    A schedule makes a job at each of its ticks. Those that ``@jobs.cron`` and ``@jobs.every`` declare can be read,
    paused and run here, but only the code changes them.
    """

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

    # -- reading ------------------------------------------------------------------

    async def get(self, id: str) -> Schedule:
        """Return a schedule.

        Raises:
            ScheduleNotFound: No schedule has this id.
        """
        return schedule_of(await self._row(id))

    async def list(
        self,
        *,
        task: Task[..., Any] | str | None = None,
        limit: int = DEFAULT_ROWS,
        cursor: str | None = None,
    ) -> Page[Schedule]:
        """Return a page of schedules, in the order of their ids.

        Args:
            task: Only schedules of this task, or of this stored name. Default: all.
            limit: The most schedules on the page, 1 to 1,000. Default: 50.
            cursor: The ``next_cursor`` of the previous page; None for the first page.

        Raises:
            InvalidCursor: The cursor is not a string.
            InvalidOptions: The limit is out of range.
        """
        name = task.name if isinstance(task, Task) else task
        if cursor is not None and not isinstance(cursor, str):
            raise no_cursor(cursor)
        # One row more than the page shows if there is a next page.
        rows = await self._store.schedules.list(
            task=name, after=cursor, limit=checked_limit(limit) + 1
        )
        items = [schedule_of(row) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def ticks(
        self, id: str, *, before: datetime | None = None, limit: int = DEFAULT_ROWS
    ) -> Sequence[ScheduleTick]:
        """Return the latest ticks of a schedule, newest first.

        Both the ticks that made a job and the skipped ones are returned. ``before=ticks[-1].at`` goes on with the
        older ones.

        Args:
            id: The id of the schedule.
            before: Only entries with an ``at`` before this aware datetime. Default: all.
            limit: The most entries, 1 to 1,000. Default: 50.

        Raises:
            ScheduleNotFound: No schedule has this id.
            InvalidOptions: The datetime is naive, or the limit is out of range.
        """
        end = None if before is None else instant_us(before, "before")
        most = checked_limit(limit)
        await self._row(id)
        return [
            _tick_of(row) for row in await self._store.schedules.ticks(id, before=end, limit=most)
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
        """Store a schedule, or change the one that has this id.

        All workers follow the change at once. If the recurrence, its start and its end are the same as before, the next
        tick does not change.

        ::

            await jobs.schedules.upsert("report:acme", send_report, cron="0 8 * * 1", args=["acme"])

        Exactly one of ``cron``, ``every`` and ``run_at`` is given.

        Args:
            id: The id of the schedule: letters, digits and ``_ . : @ + -``.
            task: The task of its jobs, or the task's stored name. ``task.options(...)`` sets the options of each job.
            cron: A cron expression of five fields, or a short form such as ``@daily``.
            every: The interval, in seconds or as a timedelta. The first tick is one interval from now.
            run_at: An aware datetime, for a schedule that ticks once.
            timezone: The time zone of the cron expression. Default: the runner's.
            **words: ``args``, ``misfire``, ``grace``, ``cap``, ``overlap``, ``jitter``, ``start`` and ``end``; see
                ``ScheduleOptions``.

        Returns:
            The schedule as it is stored now.

        Raises:
            InvalidSchedule: An argument has an invalid value; nothing was stored.
            InvalidArguments: The ``args`` do not fit the task.
            DeclaredInCode: The code declares a schedule with this id.
            UnknownTask: The runner does not have the task.
            UnknownQueue: The runner does not have the queue that the options name.
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

        return schedule_of(await self._change(id, changed))

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
        """Stop a schedule from making jobs in all processes, until ``resume``.

        The jobs that it has already made are not affected. The pause is stored, so it survives a restart.

        Raises:
            ScheduleNotFound: No schedule has this id.
        """
        return await self._change_known(id, lambda seen: seen._replace(paused=True))

    async def resume(self, id: str) -> Schedule:
        """Let a paused schedule make jobs again; the ticks during the pause make none.

        Raises:
            ScheduleNotFound: No schedule has this id.
        """

        def resumed(seen: ScheduleRow) -> ScheduleRow:
            if not seen.paused:
                return seen
            return seen._replace(paused=False, next=resumed_tick(seen, now_us()))

        return await self._change_known(id, resumed)

    async def remove(self, id: str) -> None:
        """Delete a schedule and the record of its ticks; its jobs are kept.

        Raises:
            ScheduleNotFound: No schedule has this id.
            DeclaredInCode: The code declares the schedule, so it would return at the next start.
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
        """Store a job of a schedule that is due at once.

        The job has the options of the schedule's other jobs, without the jitter. The ticks do not change. This also
        works if the schedule is paused, and with ``overlap="skip"`` while another of its jobs is unfinished.

        Returns:
            The job. If an unfinished job has the schedule's ``key``, that job, with ``created`` False.

        Raises:
            ScheduleNotFound: No schedule has this id.
            UnknownTask: The runner does not have the schedule's task.
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
        return schedule_of(await self._change(id, lambda seen: changed(self._known(id, seen))))

    def _known(self, id: str, row: ScheduleRow | None) -> ScheduleRow:
        if row is None:
            raise ScheduleNotFound(f"no schedule has the id {id!r}")
        return row

    async def _change(self, id: str, changed: Callable[[ScheduleRow | None], T]) -> T:
        """Replace a schedule's row by ``changed(row)``.

        If another process writes the row between the read and the write, both are done again.

        Args:
            id: The id of the schedule.
            changed: Returns the new row, or None to delete it. It gets None if no schedule has the id.
        """
        while True:
            seen = await self._store.schedules.get(id)
            row = changed(seen)
            if row == seen:
                return row
            new = row if isinstance(row, ScheduleRow) else None
            if await self._store.schedules.change([ScheduleChange(seen, new)]):
                self._wake()
                return row


def schedule_of(row: ScheduleRow) -> Schedule:
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
        # A process that knows more time zones than this one stored it.
        return str(error)


def _tick_of(row: TickRow) -> ScheduleTick:
    return ScheduleTick(from_us(row.instant), from_us(row.until), row.number, row.outcome, row.job)


def _instant(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)


def _duration(us: int | None) -> timedelta | None:
    return None if us is None else timedelta(microseconds=us)
