"""One side of the jobs router: the routes that only look, or those that change something, behind their lock."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import APIRouter, params

from jobrunner.fastapi.api import problems
from jobrunner.fastapi.api.hosts import ONLY_LOCAL
from jobrunner.fastapi.api.problems import Kind, documented

F = TypeVar("F", bound=Callable[..., Any])

READ = (problems.NOT_RUNNING, problems.STORE_UNAVAILABLE, problems.STORE_UNUSABLE)
WRITE = (*READ, problems.STORE_BUSY, problems.OUTCOME_UNKNOWN, problems.STORE_FULL)
FILTER = (problems.INVALID_REQUEST, problems.INVALID_OPTIONS)
BODY = (problems.UNREADABLE, problems.TOO_LARGE, problems.NOT_JSON)


@dataclass(frozen=True)
class Operations:
    """The routes behind one lock, and the problems that each of them may meet."""

    router: APIRouter
    lock: params.Depends
    kinds: tuple[Kind, ...]

    def problems(self, *kinds: Kind) -> dict[int | str, dict[str, Any]]:
        strangers = (problems.UNAUTHORIZED, problems.FORBIDDEN)
        refused = (problems.HOST_NOT_LOCAL,) if self.lock is ONLY_LOCAL else strangers
        return documented(*refused, *kinds, *self.kinds)

    def route(
        self,
        method: str,
        path: str,
        *kinds: Kind,
        summary: str,
        answers: str,
        status: int = HTTPStatus.OK,
        responses: dict[int | str, dict[str, Any]] | None = None,
        openapi_extra: dict[str, Any] | None = None,
    ) -> Callable[[F], F]:
        return self.router.api_route(
            path,
            methods=[method],
            summary=summary,
            response_description=answers,
            status_code=status,
            dependencies=[self.lock],
            responses=responses or self.problems(*kinds),
            openapi_extra=openapi_extra,
        )
