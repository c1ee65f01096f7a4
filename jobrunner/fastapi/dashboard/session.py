"""The pages without a guard of their own: sign in, sign out, and the choice of the time zone."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from jobrunner.core.clock import utcnow
from jobrunner.fastapi.api.problems import Refusal
from jobrunner.fastapi.dashboard import login, urls
from jobrunner.fastapi.dashboard.errors import NO_PAGE
from jobrunner.fastapi.dashboard.forms import read_form
from jobrunner.fastapi.dashboard.route import ANYTHING
from jobrunner.fastapi.dashboard.site import Shell, Site
from jobrunner.fastapi.dashboard.visit import SignInView, go, sign_in_page
from jobrunner.fastapi.dashboard.zone import Clock, known_zone, remember, zones

ROOT = "./"


@dataclass(frozen=True, slots=True)
class ZoneView:
    """The choice of a time zone."""

    zones: Sequence[str]
    back: str
    error: str = ""


def add_session(router: APIRouter, site: Site) -> None:
    """Add the sign-in pages, if a guard is of ``bearer()``, and the time zone."""
    if site.guards.tokens:
        _add_sign_in(router, site)
    _add_zone(router, site)


def _add(
    router: APIRouter, method: str, path: str, endpoint: Callable[[Request], Awaitable[Response]]
) -> None:
    router.add_api_route(path, endpoint, methods=[method], name=path, response_model=None)


def _add_sign_in(router: APIRouter, site: Site) -> None:
    tokens = site.guards.tokens

    async def get_login(request: Request) -> Response:
        back = urls.own_address(request.query_params.get("next", ""))
        return sign_in_page(site, request, ROOT, SignInView(back))

    async def post_login(request: Request) -> Response:
        form = await read_form(request)
        back = urls.own_address(form.get("next"))
        token = login.token_of(form.get("token"), tokens)
        if token is None:
            view = SignInView(back, "This is not the token of the application.")
            return sign_in_page(site, request, ROOT, view, HTTPStatus.UNAUTHORIZED)
        response = go(ROOT + back)
        login.sign_in(response, request, token, tokens)
        return response

    async def post_logout(request: Request) -> Response:
        response = go(f"{ROOT}login")
        login.sign_out(response, request)
        return response

    _add(router, "GET", "/login", get_login)
    _add(router, "POST", "/login", post_login)
    _add(router, "POST", "/logout", post_logout)


def _add_zone(router: APIRouter, site: Site) -> None:
    def page(request: Request, view: ZoneView, status: int = HTTPStatus.OK) -> Response:
        shell = Shell(base=ROOT, title="Time zone", framed=False)
        text, _ = site.render("zone.html", shell, view, Clock.of(request, utcnow()))
        return HTMLResponse(text, status)

    async def get_zone(request: Request) -> Response:
        back = urls.own_address(request.query_params.get("back", ""))
        return page(request, ZoneView(zones(), back))

    async def post_zone(request: Request) -> Response:
        form = await read_form(request)
        back = urls.own_address(form.get("back"))
        name = form.get("zone")
        if known_zone(name) is None:
            view = ZoneView(zones(), back, "The application does not know this time zone.")
            return page(request, view, HTTPStatus.UNPROCESSABLE_ENTITY)
        response = go(ROOT + back)
        remember(response, name)
        return response

    _add(router, "GET", "/zone", get_zone)
    _add(router, "POST", "/zone", post_zone)


def add_last(router: APIRouter, site: Site) -> None:
    """Add the way to the root, and the page for all other addresses; they come last."""

    async def go_to_root(request: Request) -> Response:
        # Relative, since a proxy may have changed the path before the last segment.
        last = request.url.path.rpartition("/")[2]
        return Response(status_code=HTTPStatus.TEMPORARY_REDIRECT, headers={"location": f"{last}/"})

    async def no_page(request: Request) -> Response:
        raise Refusal(NO_PAGE, "There is no page with this address.")

    router.add_api_route("", go_to_root, name="", response_model=None)
    router.add_api_route(
        ANYTHING, no_page, name=ANYTHING, dependencies=[site.guards.read], response_model=None
    )
