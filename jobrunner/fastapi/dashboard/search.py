"""Finds jobs by what people type: an id, a key, a tag, a task, or filters such as ``queue:mail``."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from jobrunner.core.errors import InvalidOptions
from jobrunner.core.model import Filter
from jobrunner.core.units import written_duration
from jobrunner.fastapi.dashboard import urls
from jobrunner.fastapi.dashboard.visit import Visit

WORDS: Final = ("task", "queue", "tag", "key", "since")
"""The filters of the list, as they are written in its address."""
_FILTER: Final = re.compile(r'\b(task|queue|tag|key|since|state):(?:"([^"]*)"|(\S+))')
MOST_ALIKE: Final = 8
MAX_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search."""

    address: str | None
    """The address to go on to; None if nothing was found."""
    unknown: str = ""
    alike: Sequence[str] = ()


async def known_tasks(visit: Visit) -> list[str]:
    """Return the tasks of this process and of the workers, in order."""
    names = set(visit.parts.tasks)
    for worker in await visit.parts.store.workers.list():
        names.update(worker.tasks)
    return sorted(names)


async def known_queues(visit: Visit) -> list[str]:
    """Return the queues of this process and of the workers, in order."""
    names = set(visit.parts.names)
    for worker in await visit.parts.store.workers.list():
        names.update(worker.queues)
    return sorted(names)


def meant(filters: Mapping[str, str], now: datetime) -> dict[str, Any]:
    """Return the filters that are set, as ``list`` takes them.

    Raises:
        InvalidOptions: ``since`` is neither a duration, such as ``1h``, nor an instant.
    """
    found: dict[str, Any] = {name: value for name, value in filters.items() if value}
    if "since" in found:
        found["since"] = _since(found["since"], now)
    return found


def _since(text: str, now: datetime) -> datetime:
    try:
        age = written_duration(text)
        found = datetime.fromisoformat(text) if age is None else now - age
    except (ValueError, OverflowError):
        found = None
    if found is None or found.tzinfo is None:
        raise InvalidOptions(
            f"since={text!r} is no duration and no time with an offset: write since:1h (s, m, h, d or w), or"
            " since:2026-11-22T08:00:00Z"
        )
    return found


async def search(visit: Visit) -> Found:
    """Find what the query ``q`` of a request means, beside its filters."""
    text = visit.asked("q")[:MAX_CHARS]
    filters = {name: visit.asked(name) for name in (*WORDS, "state")}
    for name, quoted, plain in _FILTER.findall(text):
        filters[name] = quoted or plain
    rest = _FILTER.sub("", text).strip()
    if not rest:
        return Found(urls.with_query("jobs", filters))
    if _is_id(rest):
        row = await visit.parts.store.jobs.get(rest.lower())
        return Found(None, rest) if row is None else Found(f"jobs/{row.id}")
    tasks = await known_tasks(visit)
    if rest in tasks:
        return Found(urls.with_query("jobs", filters | {"task": rest}))
    for name in ("key", "tag"):
        for state in await _states_with(visit, name, rest):
            return Found(urls.with_query("jobs", filters | {name: rest, "state": state}))
    alike = [task for task in tasks if rest.lower() in task.lower()]
    if len(alike) == 1:
        return Found(urls.with_query("jobs", filters | {"task": alike[0]}))
    return Found(None, rest, alike[:MOST_ALIKE])


async def _states_with(visit: Visit, name: str, text: str) -> list[str]:
    """Return the lists with a job that has this key or tag: all jobs, or dead letters."""
    if "\0" in text or not text.isprintable():
        return []
    where = Filter(key=text) if name == "key" else Filter(tag=text)
    store = visit.parts.store
    if (await store.jobs.list(where, before=None, limit=1)).rows:
        return [""]
    return ["dead"] if (await store.dead_letters.list(where, before=None, limit=1)).rows else []


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
