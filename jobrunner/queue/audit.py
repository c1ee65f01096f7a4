"""Records the acts of operators in the audit log, and lists them."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

from jobrunner.core.audit import ACTIONS, MAX_REASON, Action, AuditEntry, entry_of
from jobrunner.core.clock import now_us
from jobrunner.core.errors import InvalidOptions, JobRunnerError, StoreError
from jobrunner.core.exports import exported
from jobrunner.core.logs import log_of
from jobrunner.queue.filters import (
    DEFAULT_ROWS,
    check_choice,
    check_text,
    checked_limit,
    read_cursor,
    write_cursor,
)
from jobrunner.queue.page import Page
from jobrunner.store.protocol import AuditStore, Store
from jobrunner.tasks.task import Task

logger = log_of("jobrunner")


@exported
class AuditLog:
    """Lists the acts of operators: what was changed over HTTP and on the command line.

    ::

        page = await jobs.audit.list(action="dead_letters.replay_all")
        for entry in page.items:
            print(entry.at, entry.actor, entry.count, entry.reason)

    The application's own calls, such as ``await jobs.cancel(id)``, have no entry. Entries are kept for a year.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(
        self,
        *,
        limit: int = DEFAULT_ROWS,
        cursor: str | None = None,
        actor: str | None = None,
        action: Action | None = None,
    ) -> Page[AuditEntry]:
        """Return a page of the audit log, newest first.

        If few of many entries match, the search stops after about 100 ms. Then the page has fewer entries, perhaps
        none, and its ``complete`` is False.

        Args:
            limit: The most entries on the page, 1 to 1,000. Default: 50.
            cursor: The ``next_cursor`` of the previous page; None for the first page.
            actor: Only acts of this actor. Default: all.
            action: Only acts of this kind, such as ``"cancel"`` or ``"queues.pause"``. Default: all.

        Raises:
            InvalidCursor: The cursor does not come from a page.
            InvalidOptions: The action is unknown, the actor is not a string, or the limit is out of range.
        """
        check_text("actor", actor)
        check_choice("action", action, ACTIONS)
        page = await self._store.audit.list(
            actor=actor,
            action=action,
            before=read_cursor(cursor),
            limit=checked_limit(limit),
        )
        return Page([entry_of(row) for row in page.rows], write_cursor(page.next), page.complete)


class ActedAlready(Exception):
    """Raised if the same form has acted before, perhaps in another process."""


@dataclass(slots=True)
class Act:
    """An act inside ``audited``."""

    count: int = 1
    """The number of things that it was done to; the code inside the block sets it if it is not one."""


@asynccontextmanager
async def audited(
    log: AuditLog,
    actor: str,
    action: Action,
    *,
    target: str | None = None,
    filter: Mapping[str, object] | None = None,
    reason: str | None = None,
    form: str | None = None,
) -> AsyncIterator[Act]:
    """Record the act inside the block: before it without a count, after it with one.

    ::

        async with audited(queue.audit, "ada@example.org", "dead_letters.replay_all", filter=where) as act:
            act.count = await queue.dead_letters.replay_all(**where)

    An error that refuses the act makes the count 0. After any other error it stays unknown: an act in many slices may
    have done a part, and a write may end although its caller was cancelled.

    Args:
        log: The log of the open queue.
        actor: The name of the operator.
        action: The kind of the act.
        target: The id or the name of the one thing that it is done to.
        filter: For an act on many, the filters that are not None; empty for all.
        reason: The operator's reason, at most 500 characters.
        form: Names the form of a page that acts. One that has acted in the last hour, in whichever process, does not
            act again.

    Raises:
        ActedAlready: The form has acted, or does at this moment, and the block did not begin.
        InvalidOptions: The reason is too long; nothing was recorded, and the block did not begin.
        StoreError: The entry could not be stored, and the block did not begin.
    """
    check_text("reason", reason)
    if reason is not None and len(reason) > MAX_REASON:
        raise InvalidOptions(
            f"the reason has {len(reason):,} characters; the audit log keeps {MAX_REASON}"
        )
    store = log._store.audit  # noqa: SLF001 - of our own class
    entry = await store.record(
        at=now_us(),
        # A name from a token or from the system may hold a lone surrogate.
        actor=actor.encode("utf-8", "backslashreplace").decode(),
        action=action,
        target=target,
        filter=None if filter is None else _written(filter),
        reason=reason,
        form=form,
    )
    if entry is None:
        raise ActedAlready
    act = Act()
    try:
        yield act
    except Exception as error:
        if isinstance(error, JobRunnerError) and not isinstance(error, StoreError):
            await _finish(store, entry, 0)
        if form is not None:
            # The same form may be sent again after an error.
            with suppress(StoreError):
                await store.forget_form(form)
        raise
    await _finish(store, entry, act.count)


async def _finish(store: AuditStore, entry: int, count: int) -> None:
    try:
        await store.finish(entry, count)
    except StoreError:
        # Not raised: the act has ended, and its caller must not repeat it because of this.
        logger.exception("entry %d of the audit log has no count", entry)


def _written(filter: Mapping[str, object]) -> str:
    return json.dumps(
        {name: _plain(value) for name, value in filter.items() if value is not None},
        ensure_ascii=False,
    )


def _plain(value: object) -> object:
    if isinstance(value, Task):
        return value.name
    return value.isoformat() if isinstance(value, datetime) else value
