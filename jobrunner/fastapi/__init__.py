"""jobrunner in FastAPI's own words: dependencies for routes, a lock for the admin router, probes."""

from jobrunner.fastapi.bearer import bearer
from jobrunner.fastapi.dependencies import Queue, SyncQueue, get_queue
from jobrunner.fastapi.probes import probes
from jobrunner.queue import JobQueue

__all__ = ["JobQueue", "Queue", "SyncQueue", "bearer", "get_queue", "probes"]
