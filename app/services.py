"""What routes and tasks of one application work with."""

from dataclasses import dataclass
from typing import Self

from app.audit import AuditLog
from app.database import Database
from app.mail import Outbox, SmtpMailer, mailer
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """One application's mailer, tables and audit file; nothing is shared with another application."""

    mailer: SmtpMailer | Outbox
    database: Database
    audit_log: AuditLog

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Make the services; nothing is opened yet."""
        return cls(
            mailer=mailer(settings),
            database=Database(settings.database_path),
            audit_log=AuditLog(settings.audit_file),
        )
