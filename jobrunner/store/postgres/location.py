"""Resolves the URL of a PostgreSQL store; needs no driver."""

import re
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from jobrunner.core.errors import ConfigurationError

_SCHEMES: Final = (
    "postgresql",
    "postgres",
    "postgresql+asyncpg",
    "postgresql+psycopg",
    "postgresql+psycopg2",
)
"""Includes SQLAlchemy's driver names, so that an application can use one URL for both."""

SCHEMA: Final = "jobrunner"
"""The schema of the tables by default, and its name in every statement."""

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,39}")
"""Needs no quotes, and leaves room for the suffixes of channels."""
_WORD: Final = re.compile(rf"\b{SCHEMA}\b")


class Location(NamedTuple):
    """A database, and the schema of the store in it."""

    dsn: str
    """The URL for the driver, without our own options."""
    schema: str
    name: str
    """The URL for messages, without user, password and the driver's options."""


def is_postgres(store: object) -> bool:
    """Return whether a URL names a PostgreSQL database, by its scheme."""
    return isinstance(store, str) and store.partition(":")[0].lower() in _SCHEMES


@lru_cache(maxsize=16)
def location_of(url: str) -> Location:
    """Return what a URL names.

    Args:
        url: ``postgresql://user:password@host:5432/database``, with the options of libpq after a ``?``, and with
            ``schema=...`` if the tables do not lie in the schema ``jobrunner``.

    Raises:
        ConfigurationError: The URL cannot be used; the message does not contain its password.
    """
    try:
        parts = urlsplit(url)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise ConfigurationError(
            f"the URL of the store cannot be read ({error}): write postgresql://user:password@host:5432/database, with"
            " %40 for an @ in a password"
        ) from None
    if not url.partition(":")[2].startswith("//"):
        raise ConfigurationError(
            "the URL of the store lacks slashes: write postgresql://user:password@host:5432/database"
        )
    schema = dict(options).get("schema", SCHEMA)
    if _NAME.fullmatch(schema) is None or schema.startswith("pg_"):
        raise ConfigurationError(
            f"schema={schema!r} in the URL of the store: write a name of small letters, digits and _, up to 40, that"
            " does not begin with pg_"
        )
    passed_on = [(key, value) for key, value in options if key != "schema"]
    name = parts._replace(
        scheme="postgresql",
        netloc=parts.netloc.rpartition("@")[2],
        query="" if schema == SCHEMA else f"schema={schema}",
        fragment="",
    )
    # urlunsplit leaves the slashes out where neither host nor path needs them.
    dsn = f"postgresql://{parts.netloc}{parts.path}"
    return Location(
        dsn=f"{dsn}?{urlencode(passed_on)}" if passed_on else dsn,
        schema=schema,
        name=urlunsplit(name),
    )


@lru_cache(maxsize=4096)
def in_schema(statement: str, schema: str) -> str:
    """Return a statement for the store in a schema; ours name the schema ``jobrunner``."""
    return _WORD.sub(schema, statement)
