"""Collects tasks and schedules with decorators that keep a function's signature."""

import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, cast, overload
from weakref import WeakSet

from jobrunner.core.errors import DuplicateTask, InvalidOptions, InvalidSchedule, InvalidTask
from jobrunner.core.exports import exported
from jobrunner.core.units import Seconds, checked_name
from jobrunner.tasks.annotations import wraps_line
from jobrunner.tasks.context import JobContext
from jobrunner.tasks.defaults import overlaid, settled
from jobrunner.tasks.options import (
    ATTEMPT_OPTIONS,
    TASK_DEFAULTS,
    TASK_OPTIONS,
    AttemptOptions,
    TaskDefaults,
    TaskOptions,
    check_options,
)
from jobrunner.tasks.recurrence import Cron, Every, Recurrence
from jobrunner.tasks.schedule_options import Declaration, ScheduleOptions, check_words, declare
from jobrunner.tasks.spec import make_spec
from jobrunner.tasks.task import AsyncTask, CtxAsyncTask, CtxSyncTask, SyncTask, Task, task_of

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=Task[..., Any])


@exported
class TaskRouter:
    """Collects tasks in a module, as an ``APIRouter`` collects routes.

    A ``JobRunner`` is a router too, and includes others.

    ::

        # shop/mail/tasks.py
        tasks = TaskRouter(prefix="mail.", queue="mail", max_attempts=8)

        @tasks.task
        async def send_welcome_email(email: str) -> None: ...

        # shop/main.py
        from shop.mail.tasks import tasks as mail_tasks

        jobs.include(mail_tasks)

    Args:
        prefix: Text before the stored name of each task, such as ``mail.``. Default: none.
        **defaults: Default options for its tasks; see ``jobrunner.tasks.options.TaskDefaults``.

    Raises:
        InvalidTask: The prefix or a default has an invalid value.
        TypeError: A keyword is not an option.
    """

    def __init__(self, *, prefix: str = "", **defaults: Unpack[TaskDefaults]) -> None:
        check_options(type(self).__name__, defaults.keys(), TASK_DEFAULTS, "prefix")
        self._prefix = prefix
        self._defaults = defaults
        try:
            checked_name(prefix or "x", "prefix")
            settled(defaults)
        except InvalidOptions as error:
            raise InvalidTask(f"{type(self).__name__}: {error}") from None
        self._tasks: dict[str, Task[..., Any]] = {}
        self._own: list[tuple[Task[..., Any], TaskOptions]] = []
        self._included: list[tuple[TaskRouter, TaskDefaults]] = []
        self._schedules: dict[str, Declaration] = {}
        # Weak: a router in a module outlives the runners of tests and factories that include it.
        self._includers: WeakSet[TaskRouter] = WeakSet()

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """All tasks by stored name and by alias, those of included routers too."""
        return MappingProxyType(self._tasks)

    @property
    def declarations(self) -> Mapping[str, Declaration]:
        """All schedules declared above tasks by id, those of included routers too."""
        return MappingProxyType(self._schedules)

    @overload
    def task(  # type: ignore[overload-overlap]
        self, fn: Callable[Concatenate[JobContext, P], Coroutine[Any, Any, R]], /
    ) -> CtxAsyncTask[P, R]: ...
    @overload
    def task(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def task(self, fn: Callable[Concatenate[JobContext, P], R], /) -> CtxSyncTask[P, R]: ...
    @overload
    def task(self, fn: Callable[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def task(self, /, **options: Unpack[TaskOptions]) -> "TaskDecorator": ...
    def task(
        self, fn: Callable[..., Any] | None = None, /, **options: Unpack[TaskOptions]
    ) -> "Task[..., Any] | TaskDecorator":
        """Make a function a task, with or without options.

        ::

            @router.task
            async def send_welcome_email(email: str) -> None: ...

            @router.task(queue="reports", timeout=600)
            def render_report(job: JobContext, report_id: int) -> str: ...

        An ``async def`` runs on the event loop, a ``def`` in a thread. The function can still be called directly. Each
        parameter needs an annotation, since arguments are checked and stored with it.

        Args:
            fn: The function, if the decorator is written without parentheses.
            **options: See ``jobrunner.tasks.options.TaskOptions``. Options that are left out take the router's values.

        Raises:
            InvalidTask: The function cannot be used as a task, or an option has an invalid value.
            DuplicateTask: Another task has the same stored name.
            TypeError: A keyword is not an option of a task; the message says what to write.
        """
        check_options("@task", options.keys(), TASK_OPTIONS)
        # The local names around the decorator: an annotation that is text may refer to one of them.
        namespace = sys._getframe(1).f_locals  # noqa: SLF001

        def decorate(function: Callable[..., Any]) -> Task[..., Any]:
            return self._made(function, namespace, options)

        return TaskDecorator(decorate) if fn is None else decorate(fn)

    def cron(
        self,
        expression: str,
        /,
        *,
        timezone: str | None = None,
        id: str | None = None,
        **words: Unpack[ScheduleOptions],
    ) -> "ScheduleDecorator":
        """Run the task below at the times of a cron expression.

        ::

            @jobs.cron("0 8 * * *", timezone="Europe/Berlin")
            @jobs.task(timeout=60)
            async def daily_report(job: JobContext) -> None: ...

        Each tick makes one job, however many processes run. A plain function below becomes a task with the router's
        defaults. To give the scheduled jobs other options, write ``jobs.cron(...)(task.options(...))``.

        Args:
            expression: Minute, hour, day of month, month, day of week; or ``@hourly``, ``@daily`` and the like. See
                ``Cron``.
            timezone: A time zone such as ``"Europe/Berlin"``. Default: the runner's.
            id: The id of the schedule. Default: the task's name. Needed if a task has two schedules.
            **words: The options ``args``, ``misfire``, ``grace``, ``cap``, ``overlap``, ``jitter``, ``start`` and
                ``end``; see ``jobrunner.tasks.schedule_options.ScheduleOptions``.

        Raises:
            InvalidSchedule: The expression, the time zone or an option is invalid, or the task needs arguments.
            InvalidTask: The function cannot be used as a task.
            TypeError: A keyword is not an option of a schedule.
        """
        # Checked here and not when the function below is decorated, so that the traceback ends at this line.
        check_words("@cron", words)
        recurrence = Cron(expression, "UTC" if timezone is None else timezone)
        return self._scheduling("@cron", recurrence, id, words, zoned=timezone is not None)

    def every(
        self,
        interval: Seconds | None = None,
        /,
        *,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        id: str | None = None,
        **words: Unpack[ScheduleOptions],
    ) -> "ScheduleDecorator":
        """Run the task below at a fixed interval.

        ::

            @jobs.every(minutes=5)
            async def sync_stock() -> None: ...

        The first tick comes one interval after a runner with this schedule was first opened. Restarts do not move the
        ticks.

        Args:
            interval: Seconds or a timedelta, instead of the next three.
            hours: Part of the interval.
            minutes: Part of the interval.
            seconds: Part of the interval.
            id: The id of the schedule. Default: the task's name. Needed if a task has two schedules.
            **words: The same options as for ``cron``.

        Raises:
            InvalidSchedule: The interval or an option is invalid, or the task needs arguments.
            InvalidTask: The function cannot be used as a task.
            TypeError: A keyword is not an option of a schedule.
        """
        check_words("@every", words)
        try:
            summed = timedelta(hours=hours, minutes=minutes, seconds=seconds)
        except (OverflowError, TypeError, ValueError):
            raise InvalidSchedule(
                f"every(hours={hours!r}, minutes={minutes!r}, seconds={seconds!r}) is no interval"
            ) from None
        if interval is not None and summed:
            raise InvalidSchedule("every() takes an interval, or hours, minutes and seconds")
        if interval is None and not summed:
            raise InvalidSchedule("every() needs an interval: write @jobs.every(minutes=5)")
        recurrence = Every(summed if interval is None else interval)
        return self._scheduling("@every", recurrence, id, words, zoned=False)

    def _scheduling(
        self,
        call: str,
        recurrence: Recurrence,
        id: str | None,
        words: ScheduleOptions,
        *,
        zoned: bool,
    ) -> "ScheduleDecorator":
        namespace = sys._getframe(2).f_locals  # noqa: SLF001 - as in task()

        def decorate(fn: Callable[..., Any]) -> Task[..., Any]:
            task = fn if isinstance(fn, Task) else self._made(fn, namespace, {})
            options = task._options  # noqa: SLF001 - of our own class
            self._schedule(
                declare(id, task.spec, options, recurrence, words, call=call, zoned=zoned)
            )
            return task

        return ScheduleDecorator(decorate)

    def _schedule(self, declaration: Declaration) -> None:
        reach = self._reach()
        for router in reach:
            taken = router._schedules.get(declaration.id)  # noqa: SLF001 - of our own class
            if taken is not None and taken is not declaration:
                raise InvalidSchedule(
                    f"two schedules have the id {declaration.id!r}: above {taken.spec.name} ({taken.spec.where}) and"
                    f" above {declaration.spec.name} ({declaration.spec.where}); give one of them id=..."
                )
        for router in reach:
            router._schedules[declaration.id] = declaration  # noqa: SLF001 - of our own class

    def include(self, *routers: "TaskRouter", **options: Unpack[AttemptOptions]) -> None:
        """Add the tasks and schedules of other routers.

        Tasks and schedules that are declared on those routers later are added too.

        ::

            jobs.include(mail.tasks, max_attempts=settings.mail_attempts, timeout=settings.mail_timeout)

        Args:
            *routers: The routers. Several runners may include the same ones.
            **options: Options of attempts under this runner, instead of the routers' own defaults; see
                ``jobrunner.tasks.options.AttemptOptions``. Options that a task sets itself are not changed.

        Raises:
            DuplicateTask: Two tasks have the same stored name; the message names both places.
            InvalidSchedule: Two schedules have the same id.
            InvalidTask: The routers would include each other in a ring, or an option has an invalid value.
            TypeError: An argument is not a task router, or a keyword is not an option of attempts.
        """
        check_options("include", options.keys(), ATTEMPT_OPTIONS)
        set_here = cast("TaskDefaults", options)
        try:
            settled(set_here)
        except InvalidOptions as error:
            raise InvalidTask(f"include(): {error}") from None
        for router in routers:
            if not isinstance(router, TaskRouter):
                raise TypeError(f"include() takes task routers, not {router!r}")
            if router in self._reach():
                raise InvalidTask("include(): these routers would include each other in a ring")
            for task in router._tasks.values():  # noqa: SLF001 - of our own class
                self._register(task)
            for declaration in router._schedules.values():  # noqa: SLF001 - of our own class
                self._schedule(declaration)
            router._includers.add(self)  # noqa: SLF001 - of our own class
            self._included.append((router, set_here))

    def _resolved_tasks(self) -> Mapping[str, Task[..., Any]]:
        """Return ``tasks`` with the options set by each ``include``.

        If a router is included twice, the first ``include`` counts; if includes are nested, the outer one.
        """
        found: dict[str, Task[..., Any]] = {}
        self._resolve({}, found)
        return found

    def _resolve(self, options: TaskDefaults, found: dict[str, Task[..., Any]]) -> None:
        for task, own in self._own:
            resolved = task
            if options:
                defaults = overlaid(overlaid(self._defaults, options), own)
                resolved = task_of(replace(task.spec, options=settled(defaults)))
            for name in (task.spec.name, *task.spec.aliases):
                found.setdefault(name, resolved)
        for router, inner in self._included:
            router._resolve(overlaid(inner, options), found)  # noqa: SLF001 - of our own class

    def _made(self, fn: Any, namespace: Mapping[str, Any], options: TaskOptions) -> Task[..., Any]:
        if isinstance(fn, Task):
            raise InvalidTask(
                f"{fn.name} is a task already: write jobs.include(router) to add its router's tasks to another one"
            )
        if isinstance(fn, str):
            raise InvalidTask(f"@task({fn!r}): write @task(name={fn!r})")
        try:
            checked = settled(overlaid(self._defaults, options))
            spec = make_spec(
                fn,
                prefix=self._prefix,
                name=options.get("name"),
                aliases=options.get("aliases", ()),
                namespace=namespace,
                limits={
                    "concurrency": options.get("concurrency"),
                    "rate_limit": options.get("rate_limit"),
                    "fair": options.get("fair"),
                },
                options=checked,
            )
        except InvalidOptions as error:
            raise InvalidTask(f"{getattr(fn, '__name__', fn)}: {error}") from None
        task = task_of(spec)
        self._register(task)
        self._own.append((task, options))
        return task

    def _register(self, task: Task[..., Any]) -> None:
        names = (task.spec.name, *task.spec.aliases)
        reach = self._reach()
        for router in reach:
            for name in names:
                _check_free(name, task, router._tasks.get(name))  # noqa: SLF001 - of our own class
        for router in reach:
            router._tasks.update(dict.fromkeys(names, task))  # noqa: SLF001 - of our own class

    def _reach(self) -> "set[TaskRouter]":
        """Return this router and all routers that include it, directly or not."""
        found: set[TaskRouter] = set()
        open_: list[TaskRouter] = [self]
        while open_:
            router = open_.pop()
            if router not in found:
                found.add(router)
                open_.extend(router._includers)  # noqa: SLF001 - of our own class
        return found


class TaskDecorator:
    """The decorator that ``router.task(...)`` returns; it makes a function a task."""

    def __init__(self, decorate: Callable[[Callable[..., Any]], Task[..., Any]]) -> None:
        self._decorate = decorate

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[Concatenate[JobContext, P], Coroutine[Any, Any, R]], /
    ) -> CtxAsyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[Concatenate[JobContext, P], R], /) -> CtxSyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncTask[P, R]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Task[..., Any]:
        """Make the function a task."""
        return self._decorate(fn)


class ScheduleDecorator:
    """The decorator that ``router.cron(...)`` and ``router.every(...)`` return."""

    def __init__(self, decorate: Callable[[Any], Task[..., Any]]) -> None:
        self._decorate = decorate

    @overload
    def __call__(self, task: T, /) -> T: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[Concatenate[JobContext, P], Coroutine[Any, Any, R]], /
    ) -> CtxAsyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[Concatenate[JobContext, P], R], /) -> CtxSyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncTask[P, R]: ...
    def __call__(self, task: Task[..., Any] | Callable[..., Any], /) -> Task[..., Any]:
        """Schedule a task and return it; a function is made a task first."""
        return self._decorate(task)


def _check_free(name: str, task: Task[..., Any], taken: Task[..., Any] | None) -> None:
    if taken is None or taken.spec is task.spec:
        return
    ours, theirs = task.spec, taken.spec
    if ours.where == theirs.where:
        raise DuplicateTask(
            f"the task {name!r} of {ours.where} is declared twice: its module was imported under two names "
            f"({ours.fn.__module__}, {theirs.fn.__module__}) or reloaded, or the decorator stands in a function "
            f"that ran twice on one router{_hint_of_wraps(ours.fn)}"
        )
    raise DuplicateTask(
        f"two tasks have the name {name!r}: {theirs.where} and {ours.where}; "
        "give one of them name=..., or its router a prefix=..."
    )


def _hint_of_wraps(fn: Callable[..., Any]) -> str:
    line = wraps_line(fn)
    return "" if line is None else f"; or it is a wrapper, which lacks {line}"
