"""The dead letters of an open runner: list, replay, delete."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Unpack

from jobrunner.core.clock import from_us, now_us
from jobrunner.core.errors import JobNotFound, UnknownTask
from jobrunner.core.exports import exported
from jobrunner.core.ids import new_id
from jobrunner.core.job import DeadLetter, Job, history_of
from jobrunner.core.model import Enqueue, Enqueued, Filter, JobRow
from jobrunner.queue.filters import (
    DEFAULT_ROWS,
    DeadLetterFilter,
    checked_id,
    checked_limit,
    dead_letter_filter,
    read_cursor,
    write_cursor,
)
from jobrunner.queue.page import Page
from jobrunner.store.protocol import Store
from jobrunner.tasks.spec import TaskSpec

REPLAYED_PER_SLICE: Final = 500
COUNT_CAP: Final = 1_000_000


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
        limit: int = DEFAULT_ROWS,
        cursor: str | None = None,
        **where: Unpack[DeadLetterFilter],
    ) -> Page[DeadLetter]:
        """Return a page of dead letters, last died first.

        It ends, not ``complete``, after about 100 ms, or when its arguments and tracebacks hold four million letters.

        Args:
            limit: dead letters on the page, 1 to 1,000.
            cursor: the ``next_cursor`` of the page before.
            **where: ``task``, ``queue``, ``reason``, ``tag``, and the instants ``since`` and ``until`` of the death.

        Raises:
            InvalidCursor: no page gave it out.
            InvalidOptions: a naive datetime, or a limit out of range.
        """
        page = await self._store.dead_letters.list(
            dead_letter_filter("list", where),
            before=read_cursor(cursor),
            limit=checked_limit(limit),
        )
        return Page(
            [dead_letter_of(row) for row in page.rows], write_cursor(page.next), page.complete
        )

    async def count(self, **where: Unpack[DeadLetterFilter]) -> int:
        """Return how many there are, a million at most."""
        return await self._store.dead_letters.count(
            dead_letter_filter("count", where), cap=COUNT_CAP
        )

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
            args: by parameter name, in place of the stored ones. Without it the same job runs again, with ``created``
                False; with it a new one is stored, whose ``replay_of`` is the dead letter's id.

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
            # The same job again, and no new one.
            stored = (await self._store.dead_letters.replay(id, now=now))._replace(created=False)
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
        on_slice: Callable[[int], None] | None = None,
        **where: Unpack[DeadLetterFilter],
    ) -> int:
        """Replay every dead letter that fits, in slices, so that other writers get their turn.

        Those whose key is taken, and those of tasks that the runner does not have, stay where they are.

        Args:
            on_slice: called after each slice with the number of its dead letters.
            **where: as for ``list``.

        Returns:
            How many were replayed.
        """
        meant = _until_now(dead_letter_filter("replay_all", where))
        replayed, before = 0, None
        while True:
            done = await self._store.dead_letters.replay_all(
                meant,
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
        on_slice: Callable[[int], None] | None = None,
        **where: Unpack[DeadLetterFilter],
    ) -> int:
        """Delete every dead letter that fits, with its history; in slices, as ``replay_all``.

        Args:
            on_slice: called after each slice with the number of its dead letters.
            **where: as for ``list``.

        Returns:
            How many were deleted.
        """
        meant = _until_now(dead_letter_filter("delete_all", where))
        deleted, before = 0, None
        while True:
            done = await self._store.dead_letters.delete_all(
                meant, before=before, limit=REPLAYED_PER_SLICE
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
