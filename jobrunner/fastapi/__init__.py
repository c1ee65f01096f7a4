"""jobrunner in FastAPI's own words: dependencies for routes, a lock for the admin router."""

from jobrunner.fastapi.bearer import bearer
from jobrunner.fastapi.dependencies import Queue, SyncQueue, get_queue
from jobrunner.queue import JobQueue

__all__ = ["JobQueue", "Queue", "SyncQueue", "bearer", "get_queue"]
