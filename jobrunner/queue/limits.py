"""Lists, sets and resets the limits of an open runner."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypedDict

from jobrunner.core.clock import from_us, now_us
from jobrunner.core.errors import InvalidOptions, InvalidTask, UnknownTask
from jobrunner.core.exports import exported
from jobrunner.core.limits import (
    MAX_WAITING,
    Limit,
    LimitName,
    LimitRow,
    LimitScope,
    task_of_lane,
)
from jobrunner.core.units import UNSET, Unset
from jobrunner.queue.filters import DEFAULT_ROWS, checked_limit
from jobrunner.queue.page import Page
from jobrunner.store.protocol import Store
from jobrunner.tasks.limits import Concurrency, Path, Rate, by_text, is_key_hash, lane_name
from jobrunner.tasks.spec import TaskSpec
from jobrunner.tasks.task import Task
from jobrunner.worker.settings import unknown_queue

_SCOPES: Final[Mapping[str, LimitScope]] = {"l": "lanes", "q": "queue", "t": "task", "k": "lane"}
"""The scopes by the first letter of a cursor."""


class Meant(TypedDict, total=False):
    """The arguments of ``set`` and ``reset`` that name a limit."""

    task: str
    queue: str
    lane: str
    each: bool


def meant(scope: LimitScope, name: str) -> Meant:
    """Return the arguments that name a limit of the list."""
    if scope == "queue":
        return {"queue": name}
    if scope == "lane":
        return {"lane": name}
    return {"task": name, "each": scope == "lanes"}


def made_rate(limit: int, per: float, *, burst: int) -> Rate:
    """Return a rate from a request.

    Raises:
        InvalidOptions: A number is invalid.
    """
    try:
        return Rate(limit, per, burst)
    except InvalidTask as error:
        raise InvalidOptions(str(error)) from None


@exported
@dataclass(frozen=True, slots=True)
class LimitInfo:
    """A limit in force, from the code or set at run time."""

    scope: LimitScope
    """``queue``, ``task``, ``lanes`` (each value of the task's ``by``) or ``lane`` (one value)."""
    name: str
    """The name of the queue or the task, or the lane, such as ``sync[42]``."""
    concurrency: int | None
    """The most jobs that run at a time; None for no limit."""
    rate_limit: Rate | None
    """The most jobs that start in a time; None for no limit."""
    max_waiting: int | None
    """The most jobs that are due and wait in the queue; None for no limit."""
    set_at: datetime | None
    """The time at which a number was set at run time, an aware datetime; None if all are from the code."""


@exported
class Limits:
    """Lists, sets and resets the limits of queues and tasks.

    ::

        await jobs.limits.set(task="sync", concurrency=4)
        await jobs.limits.set(task="sync", by=7, rate_limit=Rate(10, per=60))  # or lane="sync[7]"
        await jobs.limits.reset(task="sync")

    A change holds in all processes from their next claim on. Running jobs are not stopped.
    """

    def __init__(
        self,
        store: Store,
        tasks: Mapping[str, TaskSpec] | None,
        queues: frozenset[str],
        *,
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._queues = queues
        self._wake = wake

    async def set(
        self,
        *,
        task: Task[..., Any] | str | None = None,
        queue: str | None = None,
        lane: str | None = None,
        by: object = UNSET,
        each: bool = False,
        concurrency: int | None = None,
        rate_limit: Rate | None = None,
        max_waiting: int | None = None,
    ) -> LimitInfo:
        """Set numbers that count instead of those in the code, until ``reset``.

        Args:
            task: The task, or its stored name.
            queue: The queue, instead of a task.
            lane: One lane, by its name as in a list: ``sync[7]``, instead of ``task`` and ``by``.
            by: One value of the task's ``by``, or a tuple if it has several parameters: the limit of this lane alone.
            each: True for the limit of each value of the task's ``by``.
            concurrency: The most jobs that run at a time. Default: not changed.
            rate_limit: The most jobs that start in a time. Default: not changed.
            max_waiting: The most jobs that are due and wait, for a queue. Default: not changed.

        Raises:
            InvalidOptions: The arguments name no limit, or a number is invalid.
            UnknownTask: The runner does not have the task.
            UnknownQueue: The runner does not have the queue.
        """
        name = self._named(task, queue, lane, by, each=each)
        limit = _checked(name, concurrency, rate_limit, max_waiting)
        row = await self._store.limits.set(name, limit, now=now_us())
        self._wake()
        return _info(row)

    async def reset(
        self,
        *,
        task: Task[..., Any] | str | None = None,
        queue: str | None = None,
        lane: str | None = None,
        by: object = UNSET,
        each: bool = False,
    ) -> bool:
        """Let the numbers in the code count again; return False if none were set.

        Args:
            task: See ``set``.
            queue: See ``set``.
            lane: See ``set``.
            by: See ``set``.
            each: See ``set``.

        Raises:
            InvalidOptions: The arguments name no limit.
            UnknownTask: The runner does not have the task.
            UnknownQueue: The runner does not have the queue.
        """
        was_set = await self._store.limits.reset(self._named(task, queue, lane, by, each=each))
        self._wake()
        return was_set

    async def list(
        self, *, limit: int = DEFAULT_ROWS, cursor: str | None = None
    ) -> Page[LimitInfo]:
        """Return a page of the limits in force: of queues and tasks first, then of single lanes.

        Args:
            limit: The most limits on the page.
            cursor: ``next_cursor`` of the page before; None for the first one.

        Raises:
            InvalidOptions: The limit or the cursor is invalid.
        """
        size = checked_limit(limit)
        after = None if cursor is None else _read(cursor)
        rows = await self._store.limits.list(after=after, limit=size + 1)
        following = _written(rows[size - 1].name) if len(rows) > size else None
        return Page([_info(row) for row in rows[:size]], following)

    def _named(
        self,
        task: Task[..., Any] | str | None,
        queue: str | None,
        lane: str | None,
        by: object,
        *,
        each: bool,
    ) -> LimitName:
        if sum(one is not None for one in (task, queue, lane)) != 1:
            raise InvalidOptions(
                'name a task, a queue or a lane: await jobs.limits.set(task="sync", concurrency=4)'
            )
        if task is None and (each or by is not UNSET):
            raise InvalidOptions("by= and each= belong to a task: name it, task=..., by=...")
        if queue is not None:
            if queue not in self._queues:
                raise unknown_queue(queue, "queue=", self._queues)
            return LimitName("queue", queue)
        if lane is not None:
            name, values = _read_lane(lane)
            if values is None:
                self._by_of(name)
                return LimitName("lane", lane)
            return self._lane(name, values)
        name = task.name if isinstance(task, Task) else str(task)
        if each:
            self._by_of(name)
            return LimitName("lanes", name)
        if not isinstance(by, Unset):
            return self._lane(name, by if isinstance(by, tuple) else (by,))
        self._spec(name)
        return LimitName("task", name)

    def _lane(self, task: str, values: Sequence[object]) -> LimitName:
        paths = self._by_of(task)
        if len(values) != len(paths):
            raise InvalidOptions(
                f"{task} counts by {by_text(paths)}: write a tuple of {len(paths)} values"
            )
        return LimitName("lane", lane_name(task, values))

    def _by_of(self, task: str) -> tuple[Path, ...]:
        limits = self._spec(task).limits
        if limits is None or limits.by is None:
            raise InvalidOptions(
                f"{task} declares no by: write @task(concurrency=Concurrency(2, by=...)), or name the task alone"
            )
        return limits.by

    def _spec(self, task: str) -> TaskSpec:
        if self._tasks is None:
            raise UnknownTask(
                f"whether a task {task!r} exists is known to its application: give --app"
            )
        spec = self._tasks.get(task)
        if spec is None:
            raise UnknownTask(
                f"this runner has no task {task!r}; write its stored name, or register it"
            )
        return spec


def _read_lane(lane: str) -> tuple[str, Sequence[object] | None]:
    """Return the task of a lane and its values; None for a lane that is named by a hash."""
    task = task_of_lane(lane)
    key = lane[len(task) + 1 : -1]
    if lane == f"{task}[{key}]":
        if is_key_hash(key):
            return task, None
        try:
            values: Sequence[object] = json.loads(f"[{key}]")
        except ValueError:
            pass
        else:
            return task, values
    raise InvalidOptions(f'{lane!r} is no lane: write lane="sync[7]", with the values as JSON')


def _checked(
    name: LimitName, concurrency: int | None, rate_limit: Rate | None, max_waiting: int | None
) -> Limit:
    if concurrency is None and rate_limit is None and max_waiting is None:
        raise InvalidOptions("no number is given: write concurrency=4, or reset() to remove them")
    try:
        if concurrency is not None:
            Concurrency(concurrency)
    except InvalidTask as error:
        raise InvalidOptions(str(error)) from None
    if rate_limit is not None and (not isinstance(rate_limit, Rate) or rate_limit.by is not None):
        raise InvalidOptions(
            f"rate_limit={rate_limit!r} is no rate: write rate_limit=Rate(100, per=60), without by="
        )
    if max_waiting is not None:
        whole = isinstance(max_waiting, int) and not isinstance(max_waiting, bool)
        if name.scope != "queue" or not whole or not 1 <= max_waiting <= MAX_WAITING:
            raise InvalidOptions(
                f"max_waiting={max_waiting!r}: write a whole number from 1 to {MAX_WAITING:,}, with queue=..."
            )
    return Limit(concurrency, None if rate_limit is None else rate_limit.stored, max_waiting)


def _info(row: LimitRow) -> LimitInfo:
    limit = row.limit
    rate = limit.rate
    return LimitInfo(
        row.name.scope,
        row.name.name,
        limit.concurrency,
        None if rate is None else Rate(rate.starts, rate.per / 1_000_000, rate.burst),
        limit.max_waiting,
        None if row.set_at is None else from_us(row.set_at),
    )


def _written(name: LimitName) -> str:
    letters = {scope: letter for letter, scope in _SCOPES.items()}
    return letters[name.scope] + name.name


def _read(cursor: str) -> LimitName:
    if not isinstance(cursor, str) or cursor[:1] not in _SCOPES:
        raise InvalidOptions(f"cursor={cursor!r} is not from a page of limits")
    return LimitName(_SCOPES[cursor[0]], cursor[1:])
