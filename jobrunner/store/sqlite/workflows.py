"""Implements ``WorkflowStore`` on SQLite."""

from collections.abc import Collection, Mapping, Sequence

from jobrunner.core.model import JobRow
from jobrunner.core.workflows import (
    BatchGraph,
    BatchRow,
    BatchState,
    ParkedWait,
    ResultRow,
    StepRow,
)
from jobrunner.store.sqlite.access import Access
from jobrunner.store.sqlite.sql import batch_rows, batches, steps, workflow_checks
from jobrunner.store.workflow_protocol import BatchPage, Contradiction, ResultPage
from jobrunner.store.workflow_rules import batch_row


class SqliteWorkflows:
    """The ``WorkflowStore`` of a SQLite store."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def get(self, id: str) -> BatchRow | None:
        return await self._access.read(batch_rows.get, id)

    async def of_job(self, id: str) -> BatchRow | None:
        return await self._access.read(batch_rows.of_job, id)

    async def list(
        self, *, state: BatchState | None, name: str | None, before: int | None, limit: int
    ) -> BatchPage:
        found = await self._access.readers.page(
            batch_rows.page, state, name, before=before, limit=limit
        )
        rows = [batch_row(row[1:]) for row in found.rows]
        return BatchPage(rows, found.next, found.complete)

    async def cancel(self, id: str, *, now: int) -> BatchRow | None:
        return await self._access.write(batches.cancel, id, now)

    async def graph(self, id: str, *, limit: int) -> BatchGraph | None:
        return await self._access.read_list(batch_rows.graph, id, limit)

    async def check(self, *, limit: int) -> Sequence[Contradiction]:
        return await self._access.read_list(workflow_checks.check, limit)

    async def results(self, ids: Collection[str]) -> Mapping[str, ResultRow]:
        return await self._access.read_list(batch_rows.results, ids)

    async def member_results(
        self, id: str, *, tasks: Collection[str] | None, after: int, limit: int
    ) -> ResultPage:
        return await self._access.read_list(batch_rows.member_results, id, tasks, after, limit)

    async def steps(self, job: int) -> Sequence[StepRow]:
        return await self._access.read(steps.read, job)

    async def signal(self, id: str, name: str, value: str, *, now: int) -> bool:
        return await self._access.write(steps.signal, id, name, value, now)

    async def waits(self, jobs: Sequence[JobRow]) -> Mapping[int, ParkedWait]:
        return await self._access.read(steps.waits_of, jobs)
