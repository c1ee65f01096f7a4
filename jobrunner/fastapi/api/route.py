"""The route class of the jobs router: problem documents, headers and guards.

The guards run before the body is read.  An ``APIRouter`` has no exception handlers, so each route adds its own to those
of the app.  Starlette calls them outside the exit stacks of the dependencies, so that a dependency with ``yield`` still
sees the error.
"""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from jobrunner.fastapi.api.problems import (
    CROSS_ORIGIN,
    HANDLERS,
    MAX_BODY_BYTES,
    NOT_JSON,
    TOO_LARGE,
    Refusal,
    answer_http_exception,
)

HEADERS: Final = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Headers of every response.

Responses hold payloads and tracebacks, so no cache may store them, and no page may frame them or guess their type.
"""

_IN_SCOPE = "starlette.exception_handlers"


class ProblemRoute(APIRoute):
    """A route that answers errors with problem documents and refuses other sites."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request with the exception handlers and headers of this router."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        # Drop the app's handlers by status: one for 404 pages, for example, must not replace the problem document.
        by_class, _ = scope.get(_IN_SCOPE, ({}, {}))
        scope[_IN_SCOPE] = ({**by_class, **HANDLERS}, {})
        try:
            await super().handle(scope, receive, send_with_headers)
        except HTTPException as error:
            # Starlette refuses a wrong method before it calls the handlers; nothing has been sent yet.
            if error.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
                raise
            answer = await answer_http_exception(Request(scope), error)
            await answer(scope, receive, send_with_headers)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler behind the guards that do not need the body."""
        handle = super().get_route_handler()
        takes_body = self.body_field is not None

        async def guarded(request: Request) -> Response:
            _refuse_forgery(request)
            if takes_body:
                _refuse_other_than_json(request)
                request = _limited(request)
            return await handle(request)

        return guarded


# -- guards -------------------------------------------------------------------------------------------


def _refuse_forgery(request: Request) -> None:
    """Refuse a change that a page of another site made a browser send (CSRF).

    The browser sends the cookies of its user along.

    Raises:
        Refusal: The request comes from another site and needed no CORS preflight.
    """
    if request.method in {"GET", "HEAD", "OPTIONS"} or _needs_preflight(request):
        return
    site = request.headers.get("sec-fetch-site")
    if site is None:
        # Browsers older than 2023 send only Origin; a client that sends neither header is not a browser.
        origin = request.headers.get("origin")
        forged = origin is not None and origin.partition("://")[2] != request.headers.get("host")
    else:
        forged = site not in {"same-origin", "none"}
    if forged:
        raise Refusal(
            CROSS_ORIGIN,
            "a page of another site may not change jobs; a client of your own sends the token as"
            " Authorization: Bearer, or Content-Type: application/json, and is let in by CORSMiddleware",
        )


def _needs_preflight(request: Request) -> bool:
    """Return whether browsers need a CORS preflight to send this request to another site."""
    scheme = request.headers.get("authorization", "").partition(" ")[0]
    return request.method == "DELETE" or scheme.lower() == "bearer" or _is_json(request)


def _is_json(request: Request) -> bool:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


def _refuse_other_than_json(request: Request) -> None:
    has_body = (
        "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"
    )
    if has_body and not _is_json(request):
        raise Refusal(NOT_JSON, NOT_JSON.example)


def _limited(request: Request) -> Request:
    """Return the request with a limit on the size of its body.

    FastAPI's ``max_body_size`` answers in plain text if the request has a Content-Length.
    """
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise Refusal(TOO_LARGE, TOO_LARGE.example)
        return message

    return Request(request.scope, receive)
