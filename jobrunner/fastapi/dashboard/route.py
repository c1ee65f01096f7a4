"""The route class of the dashboard: headers, the check of the sender, and pages for errors."""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, ClassVar, Final

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from jobrunner.core.errors import JobRunnerError
from jobrunner.fastapi.dashboard import urls
from jobrunner.fastapi.dashboard.errors import explain
from jobrunner.fastapi.dashboard.security import HEADERS, refuse_cross_site
from jobrunner.fastapi.dashboard.site import Site
from jobrunner.fastapi.dashboard.visit import (
    SignInView,
    comes_from_elsewhere,
    error_page,
    own_address,
    sign_in_page,
)

_IN_SCOPE = "starlette.exception_handlers"
_HANDLED: Final = (HTTPException, RequestValidationError, JobRunnerError, Exception)
ANYTHING: Final = "/{rest:path}"
"""The path of the route that answers all addresses without a page."""


def page_route(site: Site) -> type[APIRoute]:
    """Return the route class of one dashboard.

    The name of each route is its path below the dashboard's root: an included route has another path.
    """

    return type("PageRoute", (_PageRoute,), {"site": site})


class _PageRoute(APIRoute):
    """A route with the error pages and the headers of a dashboard."""

    site: ClassVar[Site]

    async def answer_error(self, request: Request, error: Exception) -> Response:
        """Return the page of an error."""
        path = f"/{request.path_params['rest']}" if self.name == ANYTHING else self.name
        return _answer(self.site, request, urls.base_of(path), error)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request with the error pages and the headers of the dashboard."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        scope[_IN_SCOPE] = (dict.fromkeys(_HANDLED, self.answer_error), {})
        try:
            await super().handle(scope, receive, send_with_headers)
        except HTTPException as error:
            # Starlette refuses a wrong method before it calls the handlers; nothing has been sent yet.
            if error.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
                raise
            answer = await self.answer_error(Request(scope), error)
            await answer(scope, receive, send_with_headers)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler behind the check of the sender."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            refuse_cross_site(request)
            return await handle(request)

        return guarded


def _answer(site: Site, request: Request, base: str, error: Exception) -> Response:
    headers = error.headers if isinstance(error, HTTPException) else None
    if isinstance(error, HTTPException) and error.status_code < HTTPStatus.BAD_REQUEST:
        # Not an error: for example a redirect to a login page of the application.
        return Response(status_code=error.status_code, headers=headers)
    view = explain(error)
    if view.status == HTTPStatus.UNAUTHORIZED and site.guards.tokens:
        back = own_address(request, base) if request.method == "GET" else ""
        again = request.method == "GET" and comes_from_elsewhere(request)
        answer = sign_in_page(site, request, base, SignInView(back, again=again), view.status)
    else:
        answer = error_page(site, request, base, view)
    answer.headers.update(headers or {})
    return answer
