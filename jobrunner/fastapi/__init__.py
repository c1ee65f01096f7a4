"""Connects jobrunner to FastAPI: dependencies for routes, a bearer guard, and probes."""

from jobrunner.fastapi.background import Background
from jobrunner.fastapi.bearer import bearer
from jobrunner.fastapi.dependencies import Queue, SyncQueue, get_queue
from jobrunner.fastapi.probes import probes
from jobrunner.fastapi.sessions import job_background, job_queue, sync_job_queue
from jobrunner.queue.background import DurableBackgroundTasks
from jobrunner.queue.queue import JobQueue

__all__ = [
    "Background",
    "DurableBackgroundTasks",
    "JobQueue",
    "Queue",
    "SyncQueue",
    "bearer",
    "get_queue",
    "job_background",
    "job_queue",
    "probes",
    "sync_job_queue",
]
