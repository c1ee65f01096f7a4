"""What routes and tasks of one application work with, and how they are handed it.

A task has no request to find its application by.  So what both take is asked for by functions that stand for it, and
``create_app`` puts the application's own in their place.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Self

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit import AuditLog
from app.database import Database
from app.mail import Outbox, SmtpMailer, mailer
from app.settings import Settings
from jobrunner import JobQueue
from jobrunner.fastapi import DurableBackgroundTasks, job_background, job_queue


@dataclass(frozen=True, slots=True)
class Services:
    """One application's settings, mailer, tables and audit file; nothing is shared with another application."""

    settings: Settings
    mailer: SmtpMailer | Outbox
    database: Database
    audit_log: AuditLog

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Make the services; nothing is opened yet."""
        return cls(
            settings=settings,
            mailer=mailer(settings),
            database=Database(settings.database_path),
            audit_log=AuditLog(settings.audit_file),
        )


async def get_services() -> Services:
    """Stand for the application's own services."""
    raise NotImplementedError("create_app() puts its own function in place of this one")


ServicesDep = Annotated[Services, Depends(get_services)]


async def get_session(services: ServicesDep) -> AsyncIterator[AsyncSession]:
    """Yield a session in a write transaction, which begins with its first statement.

    It is committed before the response leaves, so that a commit that fails is a 500; an error rolls it back.
    """
    async with services.database.writing() as session:
        yield session


in_session = Depends(get_session, scope="function")
"""For all who hold the session: in another scope it would be another session."""

SessionDep = Annotated[AsyncSession, in_session]

Queue = Annotated[JobQueue, Depends(job_queue(in_session))]
"""Stores jobs in the transaction of the request's session: with its rows, or not at all."""

Background = Annotated[DurableBackgroundTasks, Depends(job_background(in_session))]
"""Stores jobs that run one after another, with what the session holds when the route has returned."""
