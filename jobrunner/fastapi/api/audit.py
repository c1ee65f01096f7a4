"""The route that lists the audit log."""

from typing import Annotated, Any

from fastapi import Query

from jobrunner.fastapi.api import problems
from jobrunner.fastapi.api.audit_schemas import AuditPageBody, AuditQuery
from jobrunner.fastapi.api.operations import Operations
from jobrunner.fastapi.api.problems import Problems
from jobrunner.queue.queue import JobQueue

AuditFilter = Annotated[
    AuditQuery, Query(), Problems(problems.INVALID_OPTIONS, problems.INVALID_CURSOR)
]


def add_audit(reading: Operations, provided: Any) -> None:
    """Add the route of the audit log to the jobs router."""

    @reading.route(
        "GET", "/audit", summary="List the audit log", answers="Acts of operators, newest first."
    )
    async def list_audit(where: AuditFilter, queue: JobQueue = provided) -> AuditPageBody:
        """List the acts of operators, newest first.

        These are the changes over HTTP and on the command line in the last year.
        """
        page = await queue.audit.list(
            actor=where.actor, action=where.action, limit=where.limit, cursor=where.cursor
        )
        return AuditPageBody.model_validate(page)
