"""Answers errors of the jobs router with problem documents (RFC 9457).

The documents keep FastAPI's ``detail`` key.  The codes are part of the interface: a later version does not change the
meaning of a code.
"""

import json
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.models import Response as OpenAPIResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from jobrunner.core import errors
from jobrunner.core.logs import log_of

logger = log_of("jobrunner.fastapi")

MEDIA_TYPE: Final = "application/problem+json"

MAX_BODY_BYTES: Final = 4 << 20
"""Arguments of 1 MiB can need three times as much in a body that escapes every character."""

MAX_ERRORS: Final = 20
"""A response lists at most this many errors of a request, the first ones."""


class Kind(NamedTuple):
    """One kind of problem, with a code that clients can test for."""

    status: int
    code: str
    title: str
    example: str
    retry_after_s: int | None = None

    @property
    def type(self) -> str:
        """The permanent URI of the kind."""
        return f"urn:jobrunner:{self.code}"


UNAUTHORIZED = Kind(401, "unauthorized", "Unauthorized", "Not authenticated")
FORBIDDEN = Kind(403, "forbidden", "Forbidden", "Not allowed")
CROSS_ORIGIN = Kind(
    403, "cross-origin", "Refused from another site", "a page of another site may not change jobs"
)
HOST_NOT_LOCAL = Kind(
    403,
    "host-not-local",
    "Refused under this name",
    "jobs.router(insecure=True) has no guard, so it answers on this machine alone and not as 'shop.example'",
)
NOT_FOUND = Kind(404, "not-found", "No such job", "no job has this id")
SCHEDULE_NOT_FOUND = Kind(
    404, "schedule-not-found", "No such schedule", "no schedule has the id 'reprot'"
)
BATCH_NOT_FOUND = Kind(404, "batch-not-found", "No such batch", "no batch has this id")
UNKNOWN_QUEUE = Kind(404, "unknown-queue", "No such queue", "there is no queue 'mial'")
CONFLICT = Kind(409, "conflict", "Not possible now", "the job is running")
KEY_TAKEN = Kind(409, "key-taken", "Key taken", "an unfinished job of the task holds the key")
ALREADY_REPLAYED = Kind(
    409, "already-replayed", "Already replayed", "the dead letter has been replayed before"
)
NOT_WAITING = Kind(
    409, "not-waiting", "Not waiting", "the job is running, so it cannot be rescheduled"
)
FINISHED = Kind(409, "finished", "Finished", "the job is succeeded and takes no signal")
DECLARED_IN_CODE = Kind(
    409,
    "declared-in-code",
    "Declared in code",
    "the schedule 'report' stands in the code, above report: change it there, or pause it",
)
NO_HANDLER = Kind(
    409,
    "no-handler",
    "No handler",
    "no task 'send_newsletter' is registered; deploy it, then replay",
)
UNREADABLE = Kind(400, "bad-request", "Bad Request", "There was an error parsing the body")
TOO_LARGE = Kind(413, "too-large", "Body too large", f"a body has {MAX_BODY_BYTES} bytes at most")
NOT_JSON = Kind(
    415, "not-json", "Not JSON", "send the body as JSON, with Content-Type: application/json"
)
INVALID_REQUEST = Kind(
    422,
    "invalid-request",
    "Invalid request",
    "query.limit: Input should be less than or equal to 200",
)
INVALID_ARGUMENTS = Kind(
    422, "invalid-arguments", "Arguments do not fit the task", "email: Field required"
)
INVALID_OPTIONS = Kind(422, "invalid-options", "Impossible option", "until is too far away")
INVALID_SCHEDULE = Kind(
    422,
    "invalid-schedule",
    "Impossible schedule",
    "the cron expression '0 0 31 2 *' cannot be read or never comes true: Bad day-of-month",
)
INVALID_CURSOR = Kind(422, "invalid-cursor", "No such page", "no page gave out this cursor")
UNKNOWN_TASK = Kind(422, "unknown-task", "No such task", "no task 'send_newsletter' is registered")
INTERNAL = Kind(
    500, "internal", "Internal error", "the application uses jobrunner wrongly; see its log"
)
JOB_FAILED = Kind(500, "job-failed", "Job failed", "the job has failed")
TOO_MANY_STREAMS = Kind(
    503,
    "too-many-streams",
    "Too many streams",
    "too many clients follow jobs at present; ask for the status now and then",
    retry_after_s=5,
)
NOT_RUNNING = Kind(503, "not-running", "No open runner", "no runner is open for this app")
STORE_BUSY = Kind(
    503,
    "store-busy",
    "Store busy",
    "another process held the write lock for too long",
    retry_after_s=1,
)
QUEUE_FULL = Kind(
    429,
    "queue-full",
    "Queue full",
    "the call adds 1 job(s) to queue 'mail', where 10,000 wait and 10,000 may",
    retry_after_s=1,
)
STORE_UNAVAILABLE = Kind(
    503, "store-unavailable", "Store unavailable", "the file cannot be written just now"
)
OUTCOME_UNKNOWN = Kind(
    503, "outcome-unknown", "Outcome unknown", "the change may have been stored; look it up"
)
STORE_UNUSABLE = Kind(503, "store-unusable", "Store unusable", "a person must check the file")
STORE_FULL = Kind(507, "store-full", "Disk full", "there is no room left on the disk")

BODY = (UNREADABLE, TOO_LARGE, NOT_JSON)
"""Problems of every route that takes a body."""

ABOUT_BLANK: Final = frozenset({UNREADABLE, UNAUTHORIZED, FORBIDDEN})
"""Kinds that FastAPI or a guard of the app raises as a plain ``HTTPException``."""

KINDS: Final[Mapping[type[errors.JobRunnerError], Kind]] = {
    errors.JobRunnerError: INTERNAL,
    errors.NotRunning: NOT_RUNNING,
    errors.UnknownTask: UNKNOWN_TASK,
    errors.UnknownQueue: UNKNOWN_QUEUE,
    errors.InvalidArguments: INVALID_ARGUMENTS,
    errors.InvalidOptions: INVALID_OPTIONS,
    errors.InvalidCursor: INVALID_CURSOR,
    errors.JobNotFound: NOT_FOUND,
    errors.InvalidSchedule: INVALID_SCHEDULE,
    errors.ScheduleNotFound: SCHEDULE_NOT_FOUND,
    errors.BatchNotFound: BATCH_NOT_FOUND,
    errors.DeclaredInCode: DECLARED_IN_CODE,
    errors.Conflict: CONFLICT,
    errors.KeyTaken: KEY_TAKEN,
    errors.AlreadyReplayed: ALREADY_REPLAYED,
    errors.JobNotWaiting: NOT_WAITING,
    errors.JobFinished: FINISHED,
    errors.StoreError: STORE_UNAVAILABLE,
    errors.QueueFull: QUEUE_FULL,
    errors.StoreBusy: STORE_BUSY,
    errors.StoreFull: STORE_FULL,
    errors.StoreOutcomeUnknown: OUTCOME_UNKNOWN,
    errors.StoreFailed: STORE_UNUSABLE,
}
"""The kind of each error class; a class that is not listed uses that of its nearest base class."""


class Refusal(HTTPException):
    """A problem that the router itself raises.

    It is an ``HTTPException``, because FastAPI turns every other error that is raised while it reads a body into a 400.
    """

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(kind.status, detail)
        self.kind = kind


# -- the document -------------------------------------------------------------------------------------


class InvalidField(BaseModel):
    """One error in a request."""

    loc: list[str | int] = Field(
        description="The place of the error: `query`, `path` or `body`, then the path to the value.",
        examples=[["query", "limit"]],
    )
    msg: str = Field(examples=["Input should be less than or equal to 200"])
    type: str = Field(
        description="The stable name of the rule that failed.", examples=["less_than_equal"]
    )


class JobProblem(BaseModel):
    """A problem document (RFC 9457)."""

    # `documented` refers to the schema by the class name, so that name must not clash with a model of the app.
    model_config = ConfigDict(title="Problem")

    type: str = Field(
        description="`urn:jobrunner:` and the code, or `about:blank` if the HTTP status says everything.",
        examples=["urn:jobrunner:key-taken"],
    )
    title: str = Field(description="A short text about the kind of problem; always the same.")
    status: int = Field(description="The HTTP status.", examples=[409])
    detail: str = Field(description="A text for people about this occurrence.")
    code: str = Field(
        description="The stable short name of the kind of problem.", examples=["key-taken"]
    )
    errors: list[InvalidField] | None = Field(
        default=None,
        description="Only with `invalid-request`: the errors in the request.",
    )


def document(
    kind: Kind, detail: object, *, headers: Mapping[str, str] | None = None, **extra: object
) -> Response:
    """Return the response with a problem document."""
    content = {
        "type": kind.type,
        "title": kind.title,
        "status": kind.status,
        "detail": jsonable_encoder(detail),
        "code": kind.code,
        **extra,
    }
    answer = Response(
        # Escape to ASCII: a lone surrogate from the request cannot be encoded as UTF-8.
        json.dumps(content),
        kind.status,
        headers,
        MEDIA_TYPE,
    )
    if kind.retry_after_s is not None:
        answer.headers["retry-after"] = str(kind.retry_after_s)
    return answer


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Answer an ``HTTPException``, which usually comes from a guard of the app."""
    assert isinstance(error, HTTPException)  # noqa: S101 - looked up by this class
    headers = error.headers
    if error.status_code < HTTPStatus.BAD_REQUEST:
        # Not a problem: for example a redirect to a login page.
        return Response(status_code=error.status_code, headers=headers)
    if isinstance(error, Refusal):
        return document(error.kind, error.detail, headers=headers)
    try:
        phrase = HTTPStatus(error.status_code).phrase
    except ValueError:
        phrase = "Error"
    code = phrase.lower().replace(" ", "-")
    return document(
        Kind(error.status_code, code, phrase, ""), error.detail, headers=headers, type="about:blank"
    )


async def answer_invalid_request(request: Request, error: Exception) -> Response:
    """Answer a request that fails FastAPI's validation.

    The response does not repeat the input, which may be large or secret.
    """
    assert isinstance(error, RequestValidationError)  # noqa: S101 - looked up by this class
    everything = error.errors()
    found = [
        {
            "loc": list(each["loc"]),
            "msg": each["msg"].removeprefix("Value error, "),
            "type": each["type"],
        }
        for each in everything[:MAX_ERRORS]
    ]
    sentences = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found]
    if len(everything) > MAX_ERRORS:
        sentences.append(f"and {len(everything) - MAX_ERRORS} more")
    return document(INVALID_REQUEST, "; ".join(sentences), errors=found)


async def answer_own_error(request: Request, error: Exception) -> Response:
    """Answer an error that jobrunner raised.

    An error that only a bug in the application can cause is logged with its traceback.
    """
    kind = next(KINDS[cls] for cls in type(error).__mro__ if cls in KINDS)
    if kind is INTERNAL:
        logger.error(
            "%s %s failed", request.method, request.url.path, exc_info=error, like=type(error)
        )
        return document(kind, kind.example)
    return document(kind, str(error) or kind.title)


Handler = Callable[[Request, Exception], Coroutine[Any, Any, Response]]

HANDLERS: Final[Mapping[type[Exception], Handler]] = {
    HTTPException: answer_http_exception,
    RequestValidationError: answer_invalid_request,
    errors.JobRunnerError: answer_own_error,
}

# -- OpenAPI ------------------------------------------------------------------------------------------

_SCHEMA: Final = {"$ref": f"#/components/schemas/{JobProblem.__name__}"}


class Problems:
    """Declares the problems that a parameter can cause.

    Put it into the annotation of the parameter: ``Annotated[UUID, Path(), Problems(NOT_FOUND)]``.
    """

    def __init__(self, *kinds: Kind) -> None:
        self.kinds = (INVALID_REQUEST, *kinds)


def documented(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses=`` of a route, with an example of each kind of problem."""
    responses: dict[int | str, dict[str, Any]] = {}
    for kind in sorted(dict.fromkeys(kinds), key=lambda kind: kind.status):
        response = responses.setdefault(
            kind.status,
            {"description": "", "content": {MEDIA_TYPE: {"schema": _SCHEMA, "examples": {}}}},
        )
        titles = [title for title in (response["description"], kind.title) if title]
        response["description"] = "; ".join(titles)
        response["content"][MEDIA_TYPE]["examples"][kind.code] = {"value": _example(kind)}
        if kind.retry_after_s is not None:
            response["headers"] = {
                "Retry-After": {
                    "description": f"Seconds to wait before the next try, with `{kind.code}`.",
                    "schema": {"type": "integer"},
                }
            }
    return responses


def _example(kind: Kind) -> dict[str, object]:
    example: dict[str, object] = {
        "type": "about:blank" if kind in ABOUT_BLANK else kind.type,
        "title": kind.title,
        "status": kind.status,
        "detail": kind.example,
        "code": kind.code,
    }
    if kind is INVALID_REQUEST:
        example["errors"] = [
            {
                "loc": ["query", "limit"],
                "msg": "Input should be less than or equal to 200",
                "type": "less_than_equal",
            }
        ]
    return example


def with_schema(
    responses: dict[int | str, dict[str, Any]],
) -> tuple[dict[int | str, dict[str, Any]], dict[str, Any]]:
    """Return a route's ``responses=`` and ``openapi_extra=`` with the schema of problems.

    FastAPI adds a schema only if a response names it as ``model``, and then lists it under the media type of the
    successful response.  So one response names the model, and ``openapi_extra`` replaces that response: FastAPI merges
    a dict into its own value, but an object replaces it.
    """
    status, response = next(iter(responses.items()))
    return (
        {**responses, status: {**response, "model": JobProblem}},
        {"responses": {str(status): OpenAPIResponse.model_validate(response)}},
    )
