"""One request for a page: who asks, for which queue, and how the page is answered."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final

from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, Response

from jobrunner.core.audit import UNKNOWN_ACTOR, Action
from jobrunner.core.clock import now_s, utcnow
from jobrunner.core.model import Filter
from jobrunner.core.redaction import Redaction
from jobrunner.fastapi.dashboard import urls, words
from jobrunner.fastapi.dashboard.errors import ErrorView
from jobrunner.fastapi.dashboard.login import COOKIE
from jobrunner.fastapi.dashboard.notices import notice_of
from jobrunner.fastapi.dashboard.sent_forms import SentForm
from jobrunner.fastapi.dashboard.site import Shell, Site
from jobrunner.fastapi.dashboard.zone import Clock
from jobrunner.queue.audit import Act, audited
from jobrunner.queue.parts import QueueParts
from jobrunner.queue.queue import JobQueue, enqueuer_of

MOST_NAMED: Final = 80
"""Maximum characters of the viewer's name."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request for a page that its guard has let through."""

    request: Request
    site: Site
    queue: JobQueue
    base: str
    clock: Clock
    actor: str | None
    may_act: bool
    may_see: bool
    form: SentForm | None = None
    """The form that was sent; None for a page, or if it comes from no page."""
    began_s: float = field(default_factory=now_s)

    @property
    def parts(self) -> QueueParts:
        """The parts of the open runner, for what has no public method."""
        return enqueuer_of(self.queue).parts

    @property
    def redaction(self) -> Redaction:
        """Hides sensitive arguments and results."""
        return self.site.redaction

    @property
    def now(self) -> datetime:
        """The time of the page."""
        return self.clock.now

    @asynccontextmanager
    async def act(
        self,
        action: Action,
        *,
        target: str | None = None,
        filter: Mapping[str, object] | None = None,
        reason: str = "",
    ) -> AsyncIterator[Act]:
        """Record the act inside the block; see ``audited``.

        The first act of a form that does not fail is the one that happens once.
        """
        form = self.form
        async with audited(
            self.queue.audit,
            UNKNOWN_ACTOR if self.actor is None else self.actor,
            action,
            target=target,
            filter=filter,
            reason=reason.strip() or None,
            form=None if form is None or form.has_acted else form.name,
        ) as act:
            yield act
        if form is not None:
            form.has_acted = True

    def asked(self, name: str) -> str:
        """Return a parameter of the query; empty if it is missing."""
        return self.request.query_params.get(name, "").strip()

    def path(self, name: str) -> str:
        """Return a parameter of the path."""
        return str(self.request.path_params[name])

    async def page(
        self,
        template: str,
        view: object,
        *,
        title: str,
        section: str,
        status: int = HTTPStatus.OK,
        live: bool = True,
        bad: bool = False,
    ) -> Response:
        """Render a page, or answer 304 if its live parts have not changed."""
        store = getattr(self.parts.store, "path", None)
        dead = await self.parts.store.dead_letters.count(Filter(), cap=words.COUNT_CAP)
        shell = Shell(
            base=self.base,
            title=title,
            section=section,
            back=own_address(self.request, self.base),
            store=store.name if store is not None else "",
            dead=dead.number,
            actor=self.actor,
            may_act=self.may_act,
            may_see=self.may_see,
            signs_in=bool(self.site.guards.tokens),
            signed_in=COOKIE in self.request.cookies,
            live=live,
            took=self.took,
            notice=notice_of(self.request.query_params),
            bad=bad,
        )
        text, etag = self.site.render(template, shell, view, self.clock)
        headers = self.live_headers(etag) if live else {}
        if live and status == HTTPStatus.OK and self.request.headers.get("if-none-match") == etag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return HTMLResponse(text, status, headers)

    @property
    def took(self) -> str:
        """The time since the request began, in words."""
        return words.duration(timedelta(seconds=now_s() - self.began_s))

    def live_headers(self, etag: str) -> dict[str, str]:
        """Return the headers that the page's script reads: hash, time, and how long it took."""
        as_of = f"{self.now.astimezone(self.clock.zone):%H:%M:%S}"
        return {"etag": etag, "x-as-of": as_of, "x-took": self.took}

    def go(self, address: str, said: str = "", n: int | None = None) -> Response:
        """Answer a form: the browser goes on to a page below the root."""
        return go(self.base + urls.with_query(address, {"said": said, "n": n}))


def go(address: str) -> Response:
    """Return an answer that sends the browser to a page."""
    return Response(status_code=HTTPStatus.SEE_OTHER, headers={"location": address})


def own_address(request: HTTPConnection, base: str) -> str:
    """Return the address of a request relative to the dashboard's root."""
    depth = base.count("../") + 1
    path = "/".join(request.url.path.split("/")[-depth:])
    kept = [
        (name, value)
        for name, value in request.query_params.multi_items()
        if name not in {"said", "n"}
    ]
    return urls.with_query(path, dict(kept))


def error_page(site: Site, request: Request, base: str, view: ErrorView) -> Response:
    """Return the page of an error; it reads nothing from the store."""
    guards = site.guards
    shell = Shell(
        base=base,
        title=view.title,
        back=own_address(request, base) if request.method == "GET" else "",
        signs_in=bool(guards.tokens),
        signed_in=COOKIE in request.cookies,
        framed=view.status not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN},
    )
    text, _ = site.render("error.html", shell, view, Clock.of(request, utcnow()))
    return HTMLResponse(text, view.status)


@dataclass(frozen=True, slots=True)
class SignInView:
    """The sign-in page."""

    next: str
    """The address to go on to, relative to the root."""
    error: str = ""
    again: bool = False
    """True to load the page again at once: see ``comes_from_elsewhere``."""


def comes_from_elsewhere(request: HTTPConnection) -> bool:
    """Return whether a link on another site led here.

    The browser then withholds a cookie with ``SameSite=Strict``, and sends it if the page loads itself again.
    """
    return (
        request.headers.get("sec-fetch-site") in {"cross-site", "same-site"}
        and request.headers.get("sec-fetch-mode") == "navigate"
    )


def sign_in_page(
    site: Site, request: Request, base: str, view: SignInView, status: int = HTTPStatus.OK
) -> Response:
    """Return the sign-in page; it reads nothing from the store."""
    shell = Shell(base=base, title="Sign in", framed=False)
    text, _ = site.render("login.html", shell, view, Clock.of(request, utcnow()))
    return HTMLResponse(text, status)
