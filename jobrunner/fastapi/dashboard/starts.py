"""Names the worker that had started shortly before failures began."""

from collections.abc import Mapping
from datetime import datetime

from jobrunner.core.clock import from_us
from jobrunner.fastapi.dashboard import words
from jobrunner.fastapi.dashboard.verdict import Start
from jobrunner.fastapi.dashboard.visit import Visit


async def worker_names(visit: Visit) -> Mapping[int, str]:
    """Return host and process of each worker that has not left."""
    workers = await visit.parts.store.workers.list()
    return {one.worker: f"{one.host}:{one.pid}" for one in workers}


async def read_starts(visit: Visit) -> list[Start]:
    """Return the latest starts of workers; those that have left have no name."""
    workers = visit.parts.store.workers
    found = [
        Start(from_us(one.started_at), one.revision, f"{one.host}:{one.pid}")
        for one in await workers.list()
    ]
    known = {one.at for one in found}
    left = [Start(from_us(one.at), one.revision, "") for one in await workers.starts()]
    return found + [one for one in left if one.at not in known]


def sentence_of(start: Start | None, since: datetime | None) -> str:
    """Return the words about a start before a time; empty if there is none."""
    if start is None or since is None:
        return ""
    revision = f" revision {start.revision}" if start.revision else ""
    after = words.duration(since - start.at)
    if start.name:
        return f"{after} after worker `{start.name}` started{revision}"
    return f"{after} after a worker started{revision} that has left since"
