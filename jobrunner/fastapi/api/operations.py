"""Adds routes to the jobs router and documents the problems that they can answer.

A problem is declared once: for all routes, with the guard, or beside the parameter that causes it (``Problems``).  A
route names only the problems that its own verb adds.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import APIRouter, params

from jobrunner.fastapi.api import problems
from jobrunner.fastapi.api.hosts import ONLY_LOCAL
from jobrunner.fastapi.api.problems import Kind, Problems, documented, with_schema

F = TypeVar("F", bound=Callable[..., Any])

READ = (problems.NOT_RUNNING, problems.STORE_UNAVAILABLE, problems.STORE_UNUSABLE)
"""Problems of every route, since each one reads the runner's store."""

WRITE = (
    *READ,
    problems.STORE_BUSY,
    problems.OUTCOME_UNKNOWN,
    problems.STORE_FULL,
    problems.CROSS_ORIGIN,
    problems.INVALID_REQUEST,
)
"""Problems of every route that changes something; each takes a reason for the audit log."""


@dataclass(frozen=True)
class Operations:
    """Adds the routes behind one guard to the jobs router."""

    router: APIRouter
    guard: params.Depends
    common: tuple[Kind, ...]
    """Problems of every route, in addition to those of its guard, its parameters and its verb."""

    def route(
        self,
        method: str,
        path: str,
        *own: Kind,
        summary: str,
        answers: str,
        status: int = HTTPStatus.OK,
        responses: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> Callable[[F], F]:
        """Return a decorator that adds a function as a route.

        Args:
            own: the problems that the verb of this route adds.
            answers: the description of the successful response, in a few words.
            responses: more responses, by a status that problems use too.
        """

        def add(function: F) -> F:
            refused = (
                (problems.HOST_NOT_LOCAL,)
                if self.guard is ONLY_LOCAL
                else (problems.UNAUTHORIZED, problems.FORBIDDEN)
            )
            found = documented(*refused, *_caused_by_parameters(function), *own, *self.common)
            for code, further in (responses or {}).items():
                description = f"{found[code]['description']}; {further['description']}"
                found[code] |= {**further, "description": description}
            found, extra = with_schema(found)
            return self.router.api_route(
                path,
                methods=[method],
                summary=summary,
                response_description=answers,
                status_code=status,
                dependencies=[self.guard],
                responses=found,
                openapi_extra=extra,
            )(function)

        return add


def _caused_by_parameters(function: Callable[..., Any]) -> Iterator[Kind]:
    for annotation in inspect.get_annotations(function).values():
        for metadata in getattr(annotation, "__metadata__", ()):
            if isinstance(metadata, Problems):
                yield from metadata.kinds
