"""Lists, groups, replays and deletes the dead letters of an open runner."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Unpack

from jobrunner.core.clock import SECOND_US, from_us, now_us
from jobrunner.core.counts import ReplayCounts
from jobrunner.core.errors import InvalidOptions, JobNotFound, UnknownTask
from jobrunner.core.exports import exported
from jobrunner.core.groups import DeadLetterGroup, DeadLetterGroups
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
from jobrunner.store.groups import GroupRow
from jobrunner.store.protocol import Store
from jobrunner.tasks.spec import TaskSpec

REPLAYED_PER_SLICE: Final = 500
"""The most dead letters that one transaction replays or deletes."""
MINUTE_US: Final = 60 * SECOND_US
MOST_GROUPS: Final = 200
"""The most groups that ``groups`` returns."""
COUNT_CAP: Final = 1_000_000
"""The number at which ``count`` stops."""


@exported
class DeadLetters:
    """Lists, groups, replays and deletes dead letters: the jobs that will not run again by themselves.

    ::

        page = await jobs.dead_letters.list(task=send_welcome_email, reason="exhausted")
        await jobs.dead_letters.replay(page.items[0].id)
        await jobs.dead_letters.replay_all(queue="mail")
    """

    def __init__(
        self,
        store: Store,
        tasks: Mapping[str, TaskSpec] | None,
        *,
        stored: Callable[[Enqueued], Job[Any]],
        wake: Callable[[], None],
    ) -> None:
        """Use the store of an open runner.

        Args:
            store: The open store.
            tasks: The runner's tasks by stored name and by alias. None if they are not known, as for a command that
                loads no application; then dead letters of every task can be replayed.
            stored: Returns a stored job in its public form.
            wake: Makes the workers find due jobs now.
        """
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
        """Return a page of dead letters, most recent death first.

        The search stops after about 100 ms, or when the arguments and tracebacks on the page hold four million
        characters. Then the page has fewer entries, perhaps none, and its ``complete`` is False.

        Args:
            limit: The most dead letters on the page, 1 to 1,000. Default: 50.
            cursor: The ``next_cursor`` of the previous page; None for the first page.
            **where: Only dead letters with this ``task``, ``queue``, ``reason``, ``tag`` or ``group``, that died at
                ``since`` or later, and before ``until`` (aware datetimes).

        Raises:
            InvalidCursor: The cursor does not come from a page.
            InvalidOptions: A datetime is naive, the limit is out of range, or a filter has an invalid value.
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
        """Count dead letters, up to a million.

        Args:
            **where: Filters, as for ``list``.

        Returns:
            The number of dead letters; 1,000,000 means a million or more.
        """
        return await self._store.dead_letters.count(
            dead_letter_filter("count", where), cap=COUNT_CAP
        )

    async def groups(self) -> DeadLetterGroups:
        """Return the dead letters by group, most recent death first.

        ::

            groups = await jobs.dead_letters.groups()
            for group in groups.items:
                print(group.count, group.task, group.error_type, group.error)
            await jobs.dead_letters.replay_all(group=groups.items[0].fingerprint)

        Returns:
            At most 200 groups. Counting stops after about 100 ms; then ``complete`` is False and groups are missing or
            have counts that are too low.
        """
        found = await self._store.dead_letters.groups(now=now_us(), limit=MOST_GROUPS)
        return DeadLetterGroups(
            [group_of(row) for row in found.rows], found.ungrouped, found.complete
        )

    async def get(self, id: str) -> DeadLetter:
        """Return a dead letter with its history.

        Raises:
            JobNotFound: No dead letter has this id; it may have been replayed or deleted.
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
        """Put a dead letter back, due at once and with fresh attempts.

        Args:
            id: The id of the dead letter.
            args: Arguments by parameter name, which replace the stored ones of the same names. Default: no changes.

        Returns:
            Without ``args`` the same job, with ``created`` False. With ``args`` a new job, whose ``replay_of`` is the
            id of the dead letter.

        Raises:
            JobNotFound: No dead letter has this id; it may have just been replayed.
            KeyTaken: An unfinished job of the task has the same key.
            AlreadyReplayed: The dead letter was already replayed with other arguments.
            UnknownTask: The runner does not have the task.
            InvalidArguments: The merged arguments do not fit the task.
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
            # The same row runs again; no new job is stored.
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
        per_minute: int | None = None,
        dry_run: bool = False,
        on_slice: Callable[[int], None] | None = None,
        **where: Unpack[DeadLetterFilter],
    ) -> ReplayCounts:
        """Replay all dead letters that match the filters, most recent death first.

        ::

            plan = await jobs.dead_letters.replay_all(task=charge, dry_run=True)
            counts = await jobs.dead_letters.replay_all(task=charge, per_minute=60)

        Each transaction replays up to 500 of them, so that other writers do not wait long. A dead letter stays if an
        unfinished job has its key, or if the runner does not have its task. Jobs that die during the call stay too.

        With ``per_minute`` the call does not take longer: it spreads the due times, and the first job is due at once.
        They are stored with the jobs, so the pace does not depend on this process.

        Args:
            per_minute: The number of jobs that become due per minute. Default: all are due at once.
            dry_run: True to count only, without changing anything.
            on_slice: Called after each transaction with the number of dead letters that it handled.
            **where: Filters, as for ``list``; none for all dead letters.

        Raises:
            InvalidOptions: ``per_minute`` is not a whole number of at least 1, or a filter has an invalid value.
        """
        meant = _until_now(dead_letter_filter("replay_all", where))
        spacing = _spacing(per_minute)
        tasks = None if self._tasks is None else self._tasks.keys()
        letters = self._store.dead_letters
        if dry_run:
            return await letters.plan_replay_all(meant, tasks=tasks)
        replayed = conflicts = due = 0
        before = None
        while True:
            now = now_us()
            due = max(due, now)
            done = await letters.replay_all(
                meant,
                before=before,
                now=now,
                limit=REPLAYED_PER_SLICE,
                tasks=tasks,
                run_at=due,
                spacing=spacing,
            )
            due += done.replayed * spacing
            replayed += done.replayed
            conflicts += done.conflicts
            self._wake()
            if on_slice is not None:
                on_slice(done.replayed + done.conflicts)
            if done.cursor is None:
                return ReplayCounts(replayed, conflicts)
            before = done.cursor

    async def delete_all(
        self,
        *,
        on_slice: Callable[[int], None] | None = None,
        **where: Unpack[DeadLetterFilter],
    ) -> int:
        """Delete all dead letters that match the filters, with their history.

        Each transaction deletes up to 500 of them. Jobs that die during the call stay.

        Args:
            on_slice: Called after each transaction with the number of dead letters that it deleted.
            **where: Filters, as for ``list``; none for all dead letters.

        Returns:
            The number of dead letters that were deleted.
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
            JobNotFound: No dead letter has this id.
        """
        if not await self._store.dead_letters.delete(checked_id(id)):
            raise JobNotFound(
                f"no dead letter has the id {id}; it may have been replayed or deleted"
            )


def _spacing(per_minute: int | None) -> int:
    """Return the time between two replayed jobs, in microseconds; 0 for none.

    Raises:
        InvalidOptions: The number is not a whole number from 1 to 60,000,000.
    """
    if per_minute is None:
        return 0
    whole = isinstance(per_minute, int) and not isinstance(per_minute, bool)
    if not whole or not 1 <= per_minute <= MINUTE_US:
        raise InvalidOptions(
            f"per_minute={per_minute!r} is not a whole number from 1 to {MINUTE_US:,}; None sets no pace"
        )
    return MINUTE_US // per_minute


def _until_now(where: Filter) -> Filter:
    """Limit a filter to the jobs that are dead now.

    A replayed job may die again before the last slice, and would be replayed twice.
    """
    until = now_us() + 1
    return where._replace(until=until if where.until is None else min(where.until, until))


def group_of(row: GroupRow) -> DeadLetterGroup:
    """Return a group in its public form."""
    return DeadLetterGroup(
        fingerprint=row.fingerprint,
        task=row.task,
        error_type=row.error_type,
        error=row.error,
        count=row.letters,
        first_died_at=None if row.first_died_at is None else from_us(row.first_died_at),
        last_died_at=None if row.last_died_at is None else from_us(row.last_died_at),
        newest_id=row.newest,
        deaths_per_hour=row.hours,
        retrying=row.retrying,
    )


def dead_letter_of(row: JobRow, history: tuple[Any, ...] = ()) -> DeadLetter:
    """Return a dead letter in its public form."""
    assert row.reason is not None  # noqa: S101 - every row of the table has one
    assert row.finished_at is not None  # noqa: S101 - as the line above
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
        group=row.fingerprint,
    )
