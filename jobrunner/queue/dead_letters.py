"""The dead letters of an open runner: look, replay, delete."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from jobrunner.core.clock import from_us, now_us
from jobrunner.core.errors import JobNotFound, UnknownTask
from jobrunner.core.exports import exported
from jobrunner.core.ids import new_id
from jobrunner.core.job import DeadLetter, Job, history_of
from jobrunner.core.model import DeadReason, Enqueue, Enqueued, Filter, JobRow
from jobrunner.queue.filters import checked_id, checked_limit, filter_of, read_cursor, write_cursor
from jobrunner.store.protocol import Store
from jobrunner.tasks.spec import TaskSpec
from jobrunner.tasks.task import Task

REPLAYED_PER_SLICE: Final = 500
COUNT_CAP: Final = 1_000_000


@exported
@dataclass(frozen=True, slots=True)
class DeadLetterPage:
    """Dead letters, last died first, and the cursor of the page after; None at the end."""

    items: list[DeadLetter]
    next_cursor: str | None
    complete: bool = True
    """False if looking stopped before ``limit`` letters were found; ``next_cursor`` goes on from there."""


@exported
class DeadLetters:
    """Jobs that will not run again by themselves; ``queue.dead_letters``."""

    def __init__(
        self,
        store: Store,
        tasks: Mapping[str, TaskSpec] | None,
        *,
        stored: Callable[[Enqueued], Job[Any]],
        wake: Callable[[], None],
    ) -> None:
        """``tasks`` is None where nobody can tell which there are: then every task will do."""
        self._store = store
        self._tasks = tasks
        self._stored = stored
        self._wake = wake

    async def list(
        self,
        *,
        task: Task[..., Any] | str | None = None,
        queue: str | None = None,
        reason: DeadReason | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> list[DeadLetter]:
        """Return dead letters, last died first.

        Args:
            since: died at this instant or later.
            until: died before this instant.
            limit: at most that many, 1 to 1,000; ``page`` gives the rest.
        """
        where = filter_of(task=task, queue=queue, reason=reason, tag=tag, since=since, until=until)
        found: list[DeadLetter] = []
        page = await self._page(where, None, checked_limit(limit))
        while True:
            found += page.items
            if page.next_cursor is None or len(found) == limit:
                return found
            page = await self._page(where, page.next_cursor, limit - len(found))

    async def page(
        self,
        *,
        task: Task[..., Any] | str | None = None,
        queue: str | None = None,
        reason: DeadReason | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> DeadLetterPage:
        """Return a page of dead letters; as ``list``, with the ``next_cursor`` of the page before.

        It ends, not ``complete``, after about 100 ms, or when its arguments and tracebacks hold four million letters.

        Raises:
            InvalidCursor: no page gave it out.
        """
        where = filter_of(task=task, queue=queue, reason=reason, tag=tag, since=since, until=until)
        return await self._page(where, cursor, checked_limit(limit))

    async def _page(self, where: Filter, cursor: str | None, limit: int) -> DeadLetterPage:
        page = await self._store.dead_letters.list(where, before=read_cursor(cursor), limit=limit)
        items = [dead_letter_of(row) for row in page.rows]
        return DeadLetterPage(items, write_cursor(page.next), page.complete)

    async def count(
        self,
        *,
        task: Task[..., Any] | str | None = None,
        queue: str | None = None,
        reason: DeadReason | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> int:
        """Return how many there are, a million at most."""
        where = filter_of(task=task, queue=queue, reason=reason, tag=tag, since=since, until=until)
        return await self._store.dead_letters.count(where, cap=COUNT_CAP)

    async def get(self, id: str) -> DeadLetter:
        """Return a dead letter with its history.

        Raises:
            JobNotFound: none has this id, or none any more.
        """
        row = await self._row(id)
        return dead_letter_of(row, history_of(await self._store.jobs.attempts(row.seq)))

    async def _row(self, id: str) -> JobRow:
        row = await self._store.jobs.get(checked_id(id))
        if row is None or row.state != "dead":
            raise JobNotFound(
                f"no dead letter has the id {id}; it may have been replayed or deleted"
            )
        return row

    async def replay(self, id: str, *, args: Mapping[str, object] | None = None) -> Job[Any]:
        """Put a dead letter back, with fresh attempts and due at once.

        Args:
            id: the dead letter's.
            args: by parameter name, in place of the stored ones. Without it the job keeps its id; with it a new job
                is stored, whose ``replay_of`` is the dead letter's id.

        Raises:
            JobNotFound: none has this id, or it has just been replayed.
            KeyTaken: an unfinished job of the task holds its key.
            AlreadyReplayed: it was replayed with other arguments.
            UnknownTask: the runner has no such task.
            InvalidArguments: the merged arguments do not fit the task.
        """
        row = await self._row(id)
        spec = None if self._tasks is None else self._tasks.get(row.task)
        if spec is None and (self._tasks is not None or args is not None):
            raise UnknownTask(
                f"dead letter {id} is of task {row.task}, which this runner does not have; register it, or keep its"
                " old name with @jobs.task(aliases=[...])"
            )
        now = now_us()
        if args is None or spec is None:
            stored = await self._store.dead_letters.replay(id, now=now)
        else:
            edited = Enqueue(
                id=new_id(now),
                task=spec.name,
                queue=row.queue,
                args=spec.args.merge(row.args, args),
                created_at=now,
                run_at=now,
                priority=row.priority,
                key=row.key,
                max_attempts=row.max_attempts,
                timeout=row.timeout,
                tag=row.tag,
                replay_of=id,
                schedule=row.schedule,
                scheduled_for=row.scheduled_for,
                chain=row.chain,
                after=row.after,
            )
            stored = await self._store.dead_letters.replay_edited(id, edited)
        self._wake()
        return self._stored(stored)

    async def replay_all(
        self,
        *,
        task: Task[..., Any] | str | None = None,
        queue: str | None = None,
        reason: DeadReason | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        on_slice: Callable[[int], None] | None = None,
    ) -> int:
        """Replay every dead letter that fits, in slices, so that other writers get their turn.

        Those whose key is taken, and those of tasks that the runner does not have, stay where they are.

        Args:
            on_slice: hears after each slice how many dead letters it has seen to.

        Returns:
            How many were replayed.
        """
        where = _until_now(
            filter_of(task=task, queue=queue, reason=reason, tag=tag, since=since, until=until)
        )
        replayed, before = 0, None
        while True:
            done = await self._store.dead_letters.replay_all(
                where,
                before=before,
                now=now_us(),
                limit=REPLAYED_PER_SLICE,
                tasks=None if self._tasks is None else self._tasks.keys(),
            )
            replayed += done.replayed
            self._wake()
            if on_slice is not None:
                on_slice(done.replayed + done.conflicts)
            if done.cursor is None:
                return replayed
            before = done.cursor

    async def delete_all(
        self,
        *,
        task: Task[..., Any] | str | None = None,
        queue: str | None = None,
        reason: DeadReason | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        on_slice: Callable[[int], None] | None = None,
    ) -> int:
        """Delete every dead letter that fits, with its history; in slices, as ``replay_all``.

        Args:
            on_slice: hears after each slice how many dead letters it has seen to.

        Returns:
            How many were deleted.
        """
        where = _until_now(
            filter_of(task=task, queue=queue, reason=reason, tag=tag, since=since, until=until)
        )
        deleted, before = 0, None
        while True:
            done = await self._store.dead_letters.delete_all(
                where, before=before, limit=REPLAYED_PER_SLICE
            )
            deleted += done.deleted
            if on_slice is not None:
                on_slice(done.deleted)
            if done.cursor is None:
                return deleted
            before = done.cursor

    async def delete(self, id: str) -> None:
        """Delete a dead letter and its history.

        Raises:
            JobNotFound: none has this id.
        """
        if not await self._store.dead_letters.delete(checked_id(id)):
            raise JobNotFound(
                f"no dead letter has the id {id}; it may have been replayed or deleted"
            )


def _until_now(where: Filter) -> Filter:
    """Leave out what dies from now on: what was replayed may die again meanwhile, and once is enough."""
    until = now_us() + 1
    return where._replace(until=until if where.until is None else min(where.until, until))


def dead_letter_of(row: JobRow, history: tuple[Any, ...] = ()) -> DeadLetter:
    """Return a dead letter in its public form."""
    assert row.reason is not None  # noqa: S101 - every row of the table has one
    assert row.finished_at is not None  # noqa: S101 - the same
    return DeadLetter(
        id=row.id,
        task=row.task,
        queue=row.queue,
        reason=row.reason,
        error_type=row.error_type,
        error=row.error,
        traceback=row.traceback,
        args=json.loads(row.args),
        attempt=row.attempt,
        created_at=from_us(row.created_at),
        died_at=from_us(row.finished_at),
        key=row.key,
        tag=row.tag,
        replays=row.replays,
        replay_of=row.replay_of,
        replayed_as=row.replayed_as,
        chain=row.chain,
        after=row.after,
        history=history,
    )
