"""Adds pages and forms to the router, each behind its guard."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import APIRouter, Depends, params
from starlette.requests import Request
from starlette.responses import Response

from jobrunner.core.clock import utcnow
from jobrunner.fastapi.dashboard import urls
from jobrunner.fastapi.dashboard.forms import Form, read_form
from jobrunner.fastapi.dashboard.guards import Question
from jobrunner.fastapi.dashboard.polls import Polls
from jobrunner.fastapi.dashboard.sent_forms import SentForm, SentForms, name_of
from jobrunner.fastapi.dashboard.site import Site
from jobrunner.fastapi.dashboard.visit import MOST_NAMED, Visit
from jobrunner.fastapi.dashboard.zone import Clock
from jobrunner.queue.audit import ActedAlready
from jobrunner.queue.queue import JobQueue

Show = Callable[[Visit], Awaitable[Response]]
Do = Callable[[Visit, Form], Coroutine[Any, Any, Response]]


async def _done(do: Do, visit: Visit, form: Form) -> Response:
    """Act, unless another process has acted on the same form; then lead to the entry of that act."""
    try:
        return await do(visit, form)
    except ActedAlready:
        return visit.go("audit", "acted-already")


async def _nobody() -> None:
    """Return no name: the dashboard has no ``actor``."""


@dataclass(frozen=True, slots=True)
class Pages:
    """Adds pages to one dashboard."""

    router: APIRouter
    site: Site
    queue: params.Depends
    actor: params.Depends | None
    polls: Polls = field(default_factory=Polls)
    sent: SentForms = field(default_factory=SentForms)

    def show(
        self, path: str, *, seeing: bool = False, acting: bool = False
    ) -> Callable[[Show], Show]:
        """Return a decorator that adds a page.

        Args:
            path: the path below the root.
            seeing: the page shows arguments or a result: the guard of ``arguments`` applies too.
            acting: the page leads to a change alone: the guard of ``act`` applies too.
        """
        guards = self.site.guards
        needed = [guards.read, *[guards.act] * acting, *[guards.arguments] * seeing]

        def add(show: Show) -> Show:
            visit = self._visits(path)

            async def get_page(visit: Visit = Depends(visit)) -> Response:
                return await self.polls.answer(visit, show)

            self._add("GET", path, get_page, needed)
            return show

        return add

    def do(self, path: str, *, seeing: bool = False) -> Callable[[Do], Do]:
        """Return a decorator that adds a form behind the guard of ``act``."""
        guards = self.site.guards
        needed = [guards.act, *[guards.arguments] * seeing]

        def add(do: Do) -> Do:
            visit = self._visits(path)

            async def post_form(visit: Visit = Depends(visit)) -> Response:
                form = await read_form(visit.request)
                name = name_of(visit.request.url.path, form)
                sent = None if name is None else SentForm(name)
                acting = replace(visit, may_act=True, form=sent)
                return await self.sent.answer(name, lambda: _done(do, acting, form))

            self._add("POST", path, post_form, needed)
            return do

        return add

    def _add(
        self, method: str, path: str, endpoint: Callable[..., Any], needed: list[params.Depends]
    ) -> None:
        self.router.add_api_route(
            path,
            endpoint,
            methods=[method],
            name=path,
            dependencies=list({id(guard): guard for guard in needed}.values()),
            response_model=None,
        )

    def _visits(self, path: str) -> Callable[..., Awaitable[Visit]]:
        """Return the dependency that makes the visit; FastAPI resolves it after the guards."""
        guards = self.site.guards
        acts, sees = Question(guards.act), Question(guards.arguments)
        provided: Any = self.queue
        actor: Any = self.actor or Depends(_nobody)

        async def visit(
            request: Request,
            queue: JobQueue = provided,
            name: object = actor,
        ) -> Visit:
            may_act = guards.act is guards.read or await acts.is_allowed(request)
            may_see = may_act if guards.arguments is guards.act else await sees.is_allowed(request)
            return Visit(
                request=request,
                site=self.site,
                queue=queue,
                base=urls.base_of(path),
                clock=Clock.of(request, utcnow()),
                actor=None if name is None else str(name)[:MOST_NAMED],
                may_act=may_act,
                may_see=may_see,
            )

        return visit
