"""Links from the page of a job to the application's logs and traces."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Final, NamedTuple, Self
from urllib.parse import quote

from jobrunner.core.clock import from_us
from jobrunner.core.errors import ConfigurationError
from jobrunner.core.model import AttemptRow, JobRow

PLACEHOLDERS: Final = (
    "id", "task", "queue", "attempt", "key", "tag", "created_at", "started_at", "finished_at",
)  # fmt: skip
"""The words that a template may hold in braces."""
_EXAMPLE: Final = 'links={"Logs": "https://logs.example/?q={id}"}'
_ADDRESS: Final = re.compile(
    r"(?:https?://(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d+)?(?:[/?#]|$)|/(?!/))[^\s\\\x00-\x1f\ud800-\udfff]*"
)
"""A whole address of http or https, or a path of this site; no value stands in the name of the host."""


class JobLink(NamedTuple):
    """One link of a job."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class LinkTemplates:
    """The templates of ``jobs.dashboard(links=...)``, checked."""

    parts: Mapping[str, Sequence[tuple[str, str | None]]]
    """For each name the pieces of its address: a text, and the placeholder behind it."""

    @classmethod
    def checked(cls, links: Mapping[str, str]) -> Self:
        """Check the templates.

        Raises:
            ConfigurationError: The links are no mapping, or a template is no address of http, https or this site or has
                an unknown placeholder.
        """
        if not isinstance(links, Mapping):
            raise ConfigurationError(
                f"jobs.dashboard(links=...) takes addresses by name, not {links!r}: write {_EXAMPLE}"
            )
        return cls({name: _parts_of(name, template) for name, template in links.items()})

    def of(self, row: JobRow, attempts: Sequence[AttemptRow]) -> list[JobLink]:
        """Return the links whose values the job has."""
        values = _values_of(row, attempts)
        return [
            JobLink(name, "".join(text + values.get(word or "", "") for text, word in parts))
            for name, parts in self.parts.items()
            if all(word is None or word in values for _, word in parts)
        ]


def _parts_of(name: str, template: str) -> list[tuple[str, str | None]]:
    named = isinstance(name, str) and name.strip() and name.isprintable()
    if not named or not isinstance(template, str):
        raise ConfigurationError(
            f"jobs.dashboard(links=...): {name!r}: {template!r} is no name with an address: write {_EXAMPLE}"
        )
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise ConfigurationError(
            f"the link {name!r}: {error} in {template!r}: write {_EXAMPLE}, and a brace as {{{{"
        ) from None
    parts = []
    for text, word, form, conversion in pieces:
        if word is not None and (word not in PLACEHOLDERS or form or conversion):
            written = word + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise ConfigurationError(
                f"the link {name!r} has no placeholder {{{written}}}: it may hold"
                f" {', '.join(f'{{{one}}}' for one in PLACEHOLDERS)}, as in {_EXAMPLE}"
            )
        parts.append((text, word))
    if _ADDRESS.fullmatch("".join(text + ("{}" if word else "") for text, word in parts)) is None:
        raise ConfigurationError(
            f"the link {name!r} is no address of http, https or this site: {template!r}; write {_EXAMPLE}, or"
            ' "/logs?q={id}"'
        )
    return parts


def _values_of(row: JobRow, attempts: Sequence[AttemptRow]) -> dict[str, str]:
    """Return the values of the placeholders that the job has, escaped for an address."""
    started_at = attempts[-1].started_at if attempts else row.started_at
    times = {
        "created_at": row.created_at,
        "started_at": started_at,
        "finished_at": row.finished_at,
    }
    values: dict[str, object] = {
        "id": row.id,
        "task": row.task,
        "queue": row.queue,
        "attempt": row.attempt,
        "key": row.key,
        "tag": row.tag,
        **{name: None if us is None else from_us(us).isoformat() for name, us in times.items()},
    }
    return {name: quote(str(value), safe="") for name, value in values.items() if value is not None}
