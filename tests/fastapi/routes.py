"""Every route of the jobs router, as a request that reaches it."""

from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.fastapi.conftest import NOBODY

READS = [
    "/jobs",
    "/jobs/dead-letters",
    "/jobs/dead-letters/groups",
    f"/jobs/dead-letters/{NOBODY}",
    "/jobs/queues",
    "/jobs/health",
]
READS += ["/jobs/schedules", "/jobs/schedules/greet", "/jobs/schedules/greet/ticks"]
READS += ["/jobs/batches", f"/jobs/batches/{NOBODY}", f"/jobs/batches/{NOBODY}/graph"]
READS += ["/jobs/limits", "/jobs/audit", "/jobs/stats", f"/jobs/{NOBODY}"]
ACTS = [
    ("POST", f"/jobs/{NOBODY}/cancel"),
    ("POST", f"/jobs/{NOBODY}/reschedule"),
    ("POST", f"/jobs/{NOBODY}/signals/approved"),
    ("POST", "/jobs/cancel"),
    ("POST", "/jobs/reschedule"),
    ("POST", f"/jobs/dead-letters/{NOBODY}/replay"),
    ("POST", "/jobs/dead-letters/replay"),
    ("DELETE", f"/jobs/dead-letters/{NOBODY}"),
    ("POST", f"/jobs/batches/{NOBODY}/cancel"),
    ("POST", f"/jobs/batches/{NOBODY}/retry"),
    ("POST", "/jobs/queues/mail/pause"),
    ("POST", "/jobs/queues/mail/resume"),
    ("PUT", "/jobs/limits?scope=queue&name=mail"),
    ("DELETE", "/jobs/limits?scope=queue&name=mail"),
    ("PUT", "/jobs/schedules/greet"),
    ("DELETE", "/jobs/schedules/greet"),
    ("POST", "/jobs/schedules/greet/run"),
    ("POST", "/jobs/schedules/greet/pause"),
    ("POST", "/jobs/schedules/greet/resume"),
]
ALL = [("GET", path) for path in READS] + ACTS


def statuses(app: FastAPI, headers: dict[str, str]) -> tuple[set[int], set[int]]:
    """Return what the reading and the acting routes answer."""
    with TestClient(app, headers=headers) as client:
        return (
            {client.get(path).status_code for path in READS},
            {client.request(method, path).status_code for method, path in ACTS},
        )
