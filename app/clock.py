"""The wall clock: the one module of the application that asks the time of day."""

from datetime import UTC, datetime


def utcnow() -> datetime:
    """Return the present as an aware datetime in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the one place
