"""Audit entries, in the file or in the table."""

from app.audit import AuditEntry
from app.database import AuditRow
from app.dependencies import AuditLogDep, SessionDep
from jobrunner import Injected, JobContext, TaskRouter

tasks = TaskRouter()


@tasks.task
def write_audit_log(job: JobContext, entry: AuditEntry, audit_log: AuditLogDep = Injected) -> None:
    audit_log.append(entry, job_id=job.id)


@tasks.task
async def write_audit_row(
    job: JobContext, entry: AuditEntry, session: SessionDep = Injected
) -> None:
    session.add(AuditRow(job_id=job.id, **entry.model_dump()))
