"""Answers a request with a job's result, or with the address of its status."""

from datetime import timedelta
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from jobrunner.core.errors import ConfigurationError
from jobrunner.core.job import Job, source_of
from jobrunner.core.model import JobRow
from jobrunner.fastapi.api.problems import JOB_FAILED, document
from jobrunner.fastapi.status.schemas import status_of
from jobrunner.queue.results import has_ended

RETRY_AFTER_S: Final = 1

_ENDS: Final = {
    "dead": "the job has failed",
    "cancelled": "the job was cancelled",
    "expired": "the job expired before it could run",
}


class Accepted(Response):
    """The answer 202 with a job's status, and its address in ``Location``.

    The address is made when the response is sent, since only the request knows under which root path it came.
    """

    def __init__(self, row: JobRow, path: str, app: object) -> None:
        super().__init__(
            status_of(row).model_dump_json(),
            202,
            {"retry-after": str(RETRY_AFTER_S), "cache-control": "no-store"},
            "application/json",
        )
        self._id = row.id
        self._path = path
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        self.headers["location"] = _root_of(scope, self._app) + self._path_for(scope)
        await super().__call__(scope, receive, send)

    def _path_for(self, scope: Scope) -> str:
        values = {**scope.get("path_params", {}), "id": self._id}
        try:
            return self._path.format_map(values)
        except KeyError as missing:
            raise ConfigurationError(
                f"jobs.respond() cannot fill {missing} in {self._path}: include a status router under a prefix without"
                " parameters"
            ) from None


def _root_of(scope: Scope, app: object) -> str:
    """Return the root path of the runner's application for this request."""
    own: str = scope.get("root_path", "")
    # Inside a mounted application, ``root_path`` includes the path of the mount.
    root: str = own if scope.get("app") is app else scope.get("app_root_path", own)
    return root.rstrip("/")


async def respond(job: Job[Any], within: float | timedelta, *, path: str, app: object) -> Response:
    """Wait for a job, and return the response of its result; see ``JobRunner.respond``.

    Args:
        job: The job.
        within: The longest wait, in seconds or as a timedelta.
        path: The path of its status route, with parameters in braces.
        app: The application of this path.
    """
    row = await source_of(job).row_within(job, within, "respond()")
    if not has_ended(row):
        return Accepted(row, path, app)
    headers = {"cache-control": "no-store"}
    if row.state == "succeeded" and row.result_omitted is None:
        # As it is stored; a result of None is not stored.
        return Response(row.result or "null", 200, headers, "application/json")
    detail = _ENDS.get(row.state, "the result of the job could not be stored")
    return document(JOB_FAILED, detail, headers=headers, id=row.id)
