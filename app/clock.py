"""The wall clock; no other module of the application reads it."""

from datetime import UTC, datetime


def utcnow() -> datetime:
    """Return the present as an aware datetime in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the one place
