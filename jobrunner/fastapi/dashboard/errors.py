"""Explains errors on a page: what is wrong, and what to do next."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from jobrunner.core.errors import JobRunnerError
from jobrunner.core.logs import log_of
from jobrunner.fastapi.api import problems
from jobrunner.fastapi.api.problems import KINDS, Kind, Refusal

logger = log_of("jobrunner.fastapi")

NO_PAGE: Final = Kind(404, "no-page", "No such page", "there is no page with this address")

_NEXT: Final[Mapping[str, str]] = {
    "not-found": "Look for it by its key, tag or task: the search is at the top. Finished jobs are deleted after their"
    " retention.",
    "schedule-not-found": "The list of schedules has those that there are.",
    "unknown-queue": "The page of queues has those that there are.",
    "no-page": "The pages are in the bar at the top.",
    "not-running": "The application has not opened its runner. Write FastAPI(lifespan=jobs.lifespan), start it again,"
    " and look at its log.",
    "store-busy": "Another process holds the write lock. Nothing was changed: try again in a few seconds.",
    "store-unavailable": "The database file cannot be used just now. Nothing was changed. `jobrunner doctor` says why.",
    "store-full": "Free some disk space, then try again. Nothing was changed.",
    "store-unusable": "A person must look at the file: run `jobrunner doctor`.",
    "outcome-unknown": "Look whether the change is there before you try again.",
    "cross-origin": "Open the page itself and press its button there.",
    "not-waiting": "Load the page of the job again to see its state.",
    "key-taken": "Wait until that job has ended, or cancel it; then replay this one.",
    "invalid-arguments": "Open the dead letter, and correct its arguments with “Edit and replay”.",
    "already-replayed": "Open the job that replays it.",
    "unknown-task": "Deploy the task, or keep its old name with @jobs.task(aliases=[...]); then try again.",
    "invalid-cursor": "Begin again at the first page of the list.",
    "declared-in-code": "Change it in the code and deploy, or pause it here.",
}
_BY_STATUS: Final[Mapping[int, str]] = {
    401: "Sign in as the application asks for it, then load this page again.",
    403: "Ask for access, or sign in with an account that has it.",
    405: "Go back to the page, and use its buttons.",
    500: "The log of the application has the details.",
}


@dataclass(frozen=True, slots=True)
class ErrorView:
    """An error as a page shows it."""

    status: int
    title: str
    text: str
    next: str
    retry: bool
    """True if the same request may succeed later."""


def explain(error: Exception) -> ErrorView:
    """Return what a page says about an error."""
    if isinstance(error, Refusal):
        return _of(error.kind, str(error.detail))
    if isinstance(error, HTTPException):
        phrase = _phrase(error.status_code)
        detail = str(error.detail) if error.detail else phrase
        return _of(Kind(error.status_code, "", phrase, ""), "" if detail == phrase else detail)
    if isinstance(error, RequestValidationError):
        return _of(problems.INVALID_REQUEST, "A value of the request cannot be used.")
    if isinstance(error, JobRunnerError):
        kind = next(KINDS[cls] for cls in type(error).__mro__ if cls in KINDS)
        if kind is not problems.INTERNAL:
            return _of(kind, str(error))
    logger.error("a page of the dashboard failed", exc_info=error, like=type(error))
    return _of(problems.INTERNAL, "This page failed.")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _of(kind: Kind, text: str) -> ErrorView:
    further = _NEXT.get(kind.code) or _BY_STATUS.get(
        kind.status, "Go back, and try it in another way."
    )
    return ErrorView(
        kind.status, kind.title, text, further, retry=kind.status >= HTTPStatus.SERVICE_UNAVAILABLE
    )
