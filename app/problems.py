"""Exception handlers for errors that would otherwise be a bare 500."""

import json

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError

from jobrunner import QueueFull, StoreError


def add_exception_handlers(app: FastAPI) -> None:
    """Answer invalid requests, a full queue and a failing store as clients expect."""
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(StoreError, _store_error)


async def _invalid_request(request: Request, error: Exception) -> Response:
    # FastAPI's own answer repeats the input, which JSON cannot always represent: NaN, half a surrogate pair.
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    faults = [{name: fault[name] for name in ("type", "loc", "msg")} for fault in error.errors()]
    return Response(json.dumps({"detail": faults}), 422, media_type="application/json")


async def _store_error(request: Request, error: Exception) -> Response:
    status = 429 if isinstance(error, QueueFull) else 503
    answer = Response(json.dumps({"detail": str(error)}), status, media_type="application/json")
    answer.headers["Retry-After"] = "1"
    return answer
