"""The dependencies that routes and tasks share.

``create_app`` overrides ``get_services``, so that several applications with different settings can run in one process.
Tasks have no request, and so no ``request.app`` to read the services from; overrides reach them too.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Self

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import AuditLog
from app.database import Database
from app.mail import Mailer, mailer
from app.settings import Settings
from jobrunner import JobQueue
from jobrunner.fastapi import job_queue


@dataclass(frozen=True, slots=True)
class Services:
    """The objects that one application has one of."""

    settings: Settings
    mailer: Mailer
    database: Database
    audit_log: AuditLog

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Make the services of an application; nothing is opened yet."""
        return cls(
            settings=settings,
            mailer=mailer(settings),
            database=Database(settings.store),
            audit_log=AuditLog(settings.audit_file),
        )


async def get_services() -> Services:
    """Return the application's services; ``create_app`` overrides this function."""
    raise NotImplementedError("app.dependency_overrides has no entry for get_services")


ServicesDep = Annotated[Services, Depends(get_services)]


async def get_settings(services: ServicesDep) -> Settings:
    """Return the application's settings."""
    return services.settings


async def get_mailer(services: ServicesDep) -> Mailer:
    """Return the SMTP client, or the outbox if there is no mail server."""
    return services.mailer


async def get_database(services: ServicesDep) -> Database:
    """Return the application's own tables, for sessions that do not belong to a request."""
    return services.database


async def get_audit_log(services: ServicesDep) -> AuditLog:
    """Return the audit file."""
    return services.audit_log


SettingsDep = Annotated[Settings, Depends(get_settings)]
MailerDep = Annotated[Mailer, Depends(get_mailer)]
DatabaseDep = Annotated[Database, Depends(get_database)]
AuditLogDep = Annotated[AuditLog, Depends(get_audit_log)]


async def get_session(database: DatabaseDep) -> AsyncIterator[AsyncSession]:
    """Yield a session in a write transaction.

    The transaction begins with the first statement. It is committed before the response is sent, so that a failed
    commit is a 500; an error rolls it back.
    """
    async with database.writing() as session:
        yield session


in_session = Depends(get_session, scope="function")
"""Shared by everything that uses the session: in FastAPI another scope is another session."""

SessionDep = Annotated[AsyncSession, in_session]

Queue = Annotated[JobQueue, Depends(job_queue(in_session))]
"""Stores jobs in the transaction of the request's session."""
