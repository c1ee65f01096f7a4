"""Sends mail over SMTP or into a directory.

A mail is sent at least once: a timeout after the last byte can hide a delivery. The ``Message-ID`` is made from
the id of the job, the same in every attempt, so that mail systems recognize the second copy.
"""

import asyncio
import email
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, default
from email.utils import format_datetime
from pathlib import Path
from typing import Protocol

import aiosmtplib

from app.clock import utcnow
from app.files import write_whole
from app.schemas import OutboxMail
from app.settings import Settings
from jobrunner import Bury


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to one person."""

    to: str
    subject: str
    text: str


class MailDelayed(Exception):
    """The mail was probably not sent; a later attempt may succeed."""


class Mailer(Protocol):
    """Sends mail."""

    async def send(self, mail: Mail, *, id: str) -> None:
        """Send a mail; somebody else is responsible for it when this returns.

        Args:
            id: identifies the mail: the same in every attempt to send it.

        Raises:
            Bury: The mail would be refused again in every attempt.
            MailDelayed: A later attempt may succeed.
        """
        ...


def mailer(settings: Settings) -> "SmtpMailer | Outbox":
    """Return an SMTP client if the settings name a server, else the outbox."""
    if settings.smtp_host is None:
        return Outbox(settings.outbox_dir, settings.mail_from)
    return SmtpMailer(settings, settings.smtp_host)


def compose(mail: Mail, *, sender: str, id: str) -> EmailMessage:
    """Return the mail as a MIME message."""
    message = EmailMessage(policy=SMTP)
    message["From"] = Address(addr_spec=sender)
    message["To"] = Address(addr_spec=mail.to)
    message["Subject"] = mail.subject
    message["Date"] = format_datetime(utcnow())
    message["Message-ID"] = f"<{id}@{sender.rpartition('@')[2]}>"
    message.set_content(mail.text)
    return message


class SmtpMailer:
    """Sends each mail over a new connection."""

    def __init__(self, settings: Settings, host: str) -> None:
        password = settings.smtp_password
        self._sender = settings.mail_from
        self._host = host
        self._port = settings.smtp_port
        self._username = settings.smtp_username
        self._password = password.get_secret_value() if password else None
        self._timeout = settings.smtp_timeout
        self._tls = (
            ssl.create_default_context(cafile=settings.smtp_ca_file)
            if settings.smtp_starttls
            else None
        )

    async def send(self, mail: Mail, *, id: str) -> None:
        """Send a mail to the server; see ``Mailer``."""
        message = compose(mail, sender=self._sender, id=id)
        try:
            await aiosmtplib.send(
                message,
                sender=self._sender,
                recipients=[mail.to],
                hostname=self._host,
                port=self._port,
                username=self._username,
                password=self._password,
                start_tls=self._tls is not None,
                tls_context=self._tls,
                timeout=self._timeout,
            )
        except (aiosmtplib.SMTPException, OSError) as error:
            raise self._classified(error) from error

    def _classified(self, error: Exception) -> Bury | MailDelayed:
        """Return the error for the attempt: final, or worth another attempt.

        A server that is unreachable or slow, hangs up or answers 4xx may work later.
        """
        match error:
            case ssl.SSLCertVerificationError():
                return Bury(f"the mail server's certificate is not trusted: {error.verify_message}")
            case aiosmtplib.SMTPRecipientsRefused(recipients=[answer]):
                pass
            case aiosmtplib.SMTPResponseException() as answer:
                pass
            case OSError():
                return MailDelayed(
                    f"{self._host}:{self._port}: {str(error) or type(error).__name__}"
                )
            case _:
                # The server offers no STARTTLS, or no way to log in.
                return Bury(str(error))
        what = "login" if isinstance(answer, aiosmtplib.SMTPAuthenticationError) else "mail"
        said = f"{answer.code} {answer.message}"
        if answer.code in _FOR_GOOD:
            return Bury(f"the mail server refuses the {what}: {said}")
        return MailDelayed(f"the mail server says {said}")


_FOR_GOOD = range(500, 600)
"""Permanent errors, after which another attempt is of no use (RFC 5321, 4.2.1)."""


class Outbox:
    """Stores mail as ``.eml`` files, one per id, in place of a mail server."""

    def __init__(self, directory: Path, sender: str) -> None:
        self._directory = directory
        self._sender = sender

    async def send(self, mail: Mail, *, id: str) -> None:
        """Store a mail; a second attempt replaces the file of the first."""
        message = compose(mail, sender=self._sender, id=id)
        await asyncio.to_thread(write_whole, self._directory / f"{id}.eml", message.as_bytes())

    async def list(self) -> Sequence[OutboxMail]:
        """Return the stored mails, newest first."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> Sequence[OutboxMail]:
        mails = [_summary(path) for path in self._directory.glob("*.eml")]
        return sorted(mails, key=lambda mail: (mail.date, mail.file), reverse=True)


def _summary(path: Path) -> OutboxMail:
    message = email.message_from_bytes(path.read_bytes(), policy=default)
    return OutboxMail(
        file=path.name,
        message_id=message["Message-ID"],
        to=message["To"],
        subject=message["Subject"],
        date=message["Date"].datetime,
    )
