"""Implements ``AuditStore`` on PostgreSQL."""

from jobrunner.core.audit import Action
from jobrunner.store.postgres.access import Access
from jobrunner.store.postgres.sql import audit
from jobrunner.store.postgres.sql.history import storable
from jobrunner.store.protocol import AuditPage


class PostgresAudit:
    """The ``AuditStore`` of a PostgreSQL store."""

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
        texts = (storable(actor), action, storable(target), storable(filter), storable(reason))
        return await self._access.write(audit.record, storable(form), at, *texts)

    async def forget_form(self, form: str) -> None:
        await self._access.write(audit.forget_form, storable(form) or "")

    async def finish(self, entry: int, count: int) -> None:
        await self._access.write(audit.finish, entry, count)

    async def list(
        self, *, actor: str | None, action: Action | None, before: int | None, limit: int
    ) -> AuditPage:
        return await self._access.read(audit.entries, storable(actor), action, before, limit)

    async def prune(self, *, before: int, limit: int) -> int:
        return await self._access.write(audit.prune, before, limit)
