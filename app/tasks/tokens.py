"""Tokens that confirm an address: sent by mail, deleted when they have expired."""

import hashlib
import secrets
from datetime import timedelta

from app.clock import utcnow
from app.database import Token, delete_old_tokens
from app.dependencies import DatabaseDep, MailerDep, SessionDep, SettingsDep
from app.mail import Mail
from jobrunner import Injected, JobContext, TaskRouter

tasks = TaskRouter(queue="mail")


@tasks.task
async def send_token(
    job: JobContext,
    email: str,
    database: DatabaseDep = Injected,
    mailer: MailerDep = Injected,
    settings: SettingsDep = Injected,
) -> None:
    # Another attempt makes another token: only the hash of the first one is stored.
    token = secrets.token_urlsafe(24)
    expires_at = utcnow() + timedelta(seconds=settings.token_lifetime)
    # Committed before the mail leaves, so that the token is good when it arrives.
    async with database.writing() as session:
        session.add(Token(hash=hash_of(token), email=email, expires_at=expires_at))
    await mailer.send(Mail(email, "Your token", f"{token}\n"), id=job.id)


@tasks.every(minutes=15, overlap="skip")
@tasks.task(queue="default")
async def clean_up_tokens(job: JobContext, session: SessionDep = Injected) -> int:
    deleted = await delete_old_tokens(session, now=utcnow())
    job.logger.info("%d old token(s) deleted", deleted)
    return deleted


def hash_of(token: str) -> str:
    """Return the hash under which a token is stored."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
