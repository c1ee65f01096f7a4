"""Lists, groups, replays and deletes the dead letters of an open runner."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple, Unpack

from jobrunner.core.attempt import history_of
from jobrunner.core.clock import from_us, now_us
from jobrunner.core.counts import ReplayCounts
from jobrunner.core.dead_letter import DeadLetter, dead_letter_of
from jobrunner.core.errors import InvalidOptions, JobNotFound, UnknownTask
from jobrunner.core.exports import exported
from jobrunner.core.groups import DeadLetterGroup, DeadLetterGroups
from jobrunner.core.ids import new_id
from jobrunner.core.job import Job
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
from jobrunner.queue.replay import check_fits, fits, spacing_of
from jobrunner.store.groups import GroupRow
from jobrunner.store.job_protocol import Replayed
from jobrunner.store.protocol import Store
from jobrunner.tasks.spec import TaskSpec

REPLAYED_PER_SLICE: Final = 500
"""The most dead letters that one transaction replays or deletes."""
CHECKED_BY_PLAN: Final = 1_000
"""The most dead letters whose arguments a dry run checks: an open page plans every few seconds."""
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
            **where: Only dead letters with this ``task``, ``queue``, ``reason``, ``tag``, ``group`` or ``batch``, that
                died at ``since`` or later, and before ``until`` (aware datetimes).

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
        where_dead = dead_letter_filter("count", where)
        return (await self._store.dead_letters.count(where_dead, cap=COUNT_CAP)).number

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

    async def replay(
        self,
        id: str,
        *,
        args: Mapping[str, object] | None = None,
        forget: Collection[str] = (),
    ) -> Job[Any]:
        """Put a dead letter back, due at once and with fresh attempts.

        Its finished steps keep their results. ``forget=["charge"]`` lets the job do that step again, or wait again for
        the signal of that name. With ``args`` a new job is stored, which has no steps yet.

        Args:
            id: The id of the dead letter.
            args: Arguments by parameter name, which replace the stored ones of the same names. Default: no changes.
            forget: Names of steps, signals, sleeps, ``run`` and ``iterate`` to forget. Default: none.

        Returns:
            Without ``args`` the same job, with ``created`` False. With ``args`` a new job, whose ``replay_of`` is the
            id of the dead letter.

        Raises:
            JobNotFound: No dead letter has this id; it may have just been replayed.
            KeyTaken: An unfinished job of the task has the same key.
            AlreadyReplayed: The dead letter was already replayed with other arguments.
            UnknownTask: The runner does not have the task.
            InvalidArguments: The arguments, merged with ``args``, do not fit the task; the dead letter stays.
            InvalidOptions: The job has no step of a name in ``forget``, or ``args`` is given too.
        """
        if isinstance(forget, str):
            raise InvalidOptions(f"forget={forget!r} is one text: write forget=[{forget!r}]")
        if forget and args is not None:
            raise InvalidOptions(
                "replay() takes args= or forget=, not both: with other arguments a new job is stored, which has no"
                " steps yet"
            )
        row = await self._row(id)
        spec = None if self._tasks is None else self._tasks.get(row.task)
        if spec is None and (self._tasks is not None or args is not None):
            raise UnknownTask(
                f"dead letter {id} is of task {row.task}, which this runner does not have; register it, or keep its"
                " old name with @jobs.task(aliases=[...])"
            )
        if args is None and spec is not None:
            check_fits(spec, row)
        now = now_us()
        if args is None or spec is None:
            # The same row runs again; no new job is stored.
            letters = self._store.dead_letters
            stored = (await letters.replay(id, now=now, forget=list(forget)))._replace(
                created=False
            )
        else:
            handed = {
                name: taken
                for name, taken in json.loads(row.handed or "{}").items()
                if name not in args
            }
            merged = spec.args.merge(row.args, args, without=handed)
            edited = Enqueue(
                id=new_id(now),
                task=spec.name,
                queue=row.queue,
                args=merged,
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
                trace=row.trace,
                lane=spec.lane_of(merged, handed),
                ordered=True if spec.ordered else None,
                handed=None if row.handed is None else json.dumps(handed, ensure_ascii=False),
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
        unfinished job has its key, if the runner does not have its task, or if its arguments no longer fit the task;
        ``replay(id, args=...)`` repairs those. Jobs that die during the call stay too.

        With ``per_minute`` the call does not take longer: it spreads the due times, and the first job is due at once.
        They are stored with the jobs, so the pace does not depend on this process.

        Args:
            per_minute: The number of jobs that become due per minute. Default: all are due at once.
            dry_run: True to count only, without changing anything. It checks the arguments of the first 1,000.
            on_slice: Called after each transaction with the number of dead letters that it handled.
            **where: Filters, as for ``list``; none for all dead letters.

        Raises:
            InvalidOptions: ``per_minute`` is not a whole number of at least 1, or a filter has an invalid value.
        """
        meant = _until_now(dead_letter_filter("replay_all", where))
        spacing = spacing_of(per_minute)
        if dry_run:
            return await self._plan_replay_all(meant)
        tasks, letters = self._names, self._store.dead_letters
        replayed = conflicts = invalid = checked = due = 0
        before = None
        while True:
            found = await self._check(meant, before, REPLAYED_PER_SLICE)
            done = Replayed(0, 0, before)
            while True:
                now = now_us()
                due = max(due, now)
                done = await letters.replay_all(
                    meant,
                    before=done.cursor,
                    now=now,
                    limit=REPLAYED_PER_SLICE,
                    tasks=tasks,
                    run_at=due,
                    spacing=spacing,
                    without=found.invalid,
                    down_to=found.next,
                )
                due += done.replayed * spacing
                replayed += done.replayed
                conflicts += done.conflicts
                self._wake()
                if on_slice is not None:
                    on_slice(done.replayed + done.conflicts)
                if done.cursor is None:
                    break
            invalid += len(found.invalid)
            checked += found.checked
            if found.next is None:
                return ReplayCounts(replayed, conflicts, invalid, checked)
            before = found.next

    async def _plan_replay_all(self, meant: Filter) -> ReplayCounts:
        found = await self._check(meant, None, CHECKED_BY_PLAN)
        plan = await self._store.dead_letters.plan_replay_all(
            meant, tasks=self._names, without=found.invalid
        )
        return replace(plan, invalid=len(found.invalid), checked=found.checked)

    async def _check(self, meant: Filter, before: int | None, limit: int) -> "_Checked":
        """Compare the arguments of dead letters with the signatures of their tasks."""
        if self._tasks is None:
            return _Checked(frozenset(), 0, None)
        page = await self._store.dead_letters.arguments(
            meant, before=before, limit=limit, tasks=self._names
        )
        invalid = frozenset(
            letter
            for letter, task, args, handed in page.rows
            if not fits(self._tasks[task], args, handed)
        )
        return _Checked(invalid, len(page.rows), page.next)

    @property
    def _names(self) -> Collection[str] | None:
        return None if self._tasks is None else self._tasks.keys()

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


class _Checked(NamedTuple):
    """Some dead letters, checked before they are replayed."""

    invalid: frozenset[int]
    """Numbers of those whose arguments do not fit."""
    checked: int
    next: int | None
    """The cursor of those that follow; None at the end."""


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
        recent_deaths=row.recent,
        deaths_before=row.before,
        since=None if row.since is None else from_us(row.since),
    )
