"""Implements ``AuditStore`` on SQLite."""

from jobrunner.core.audit import Action, AuditRow
from jobrunner.store.protocol import AuditPage
from jobrunner.store.sqlite.access import Access
from jobrunner.store.sqlite.sql import audit


class SqliteAudit:
    """The ``AuditStore`` of a SQLite store."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def record(
        self,
        *,
        at: int,
        actor: str,
        action: Action,
        target: str | None,
        filter: str | None,
        reason: str | None,
        form: str | None = None,
    ) -> int | None:
        entry = (at, actor, action, target, filter, reason)
        if form is None:
            return await self._access.write(audit.record, *entry)
        return await self._access.write(audit.record_form, form, *entry)

    async def forget_form(self, form: str) -> None:
        await self._access.write(audit.forget_form, form)

    async def finish(self, entry: int, count: int) -> None:
        await self._access.write(audit.finish, entry, count)

    async def list(
        self, *, actor: str | None, action: Action | None, before: int | None, limit: int
    ) -> AuditPage:
        found = await self._access.readers.page(
            audit.entries, actor, action, before=before, limit=limit
        )
        return AuditPage([AuditRow(*row) for row in found.rows], found.next, found.complete)

    async def prune(self, *, before: int, limit: int) -> int:
        return await self._access.write(audit.prune, before, limit)
