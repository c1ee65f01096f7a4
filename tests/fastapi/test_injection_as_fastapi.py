"""The same dependencies, resolved by FastAPI in a route and by us in a task: the same calls in the same order."""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import httpx2
import pytest
from fastapi import Depends, FastAPI
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jobrunner import Injected, TaskRouter
from jobrunner.worker.attempt import Attempt
from jobrunner.worker.dependencies import AttemptScope
from jobrunner.worker.executor import clean_up, execute
from jobrunner.worker.thread_pool import Threads
from tests.support.engine import claimed

Form = Literal["def", "async def", "yield", "async yield", "class", "object", "partial"]


@dataclass(frozen=True)
class Edge:
    """One dependency's parameter for another."""

    to: int
    use_cache: bool
    scope: Literal["function", "request"] | None
    in_annotation: bool


@dataclass(frozen=True)
class Node:
    """A dependency: its form, its own dependencies, and its reaction to an exception."""

    form: Form
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class Graph:
    """Dependencies, each of which asks only for those before it; the last one is the route's or the task's own."""

    nodes: tuple[Node, ...]
    raises: bool
    overrides: tuple[tuple[int, int], ...]


FORMS: tuple[Form, ...] = ("def", "async def", "yield", "async yield", "class", "object", "partial")


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    size = draw(st.integers(1, 5))
    nodes: list[Node] = []
    for place in range(size + 1):
        last = place == size
        form: Form = "async def" if last else draw(st.sampled_from(FORMS))
        # What is open in the scope of the request must not ask for what is closed before it.
        stays_open = form in ("yield", "async yield", "partial")
        scopes = [None, "request"] if stays_open else [None, "request", "function"]
        edges = draw(
            st.lists(
                st.builds(
                    Edge,
                    st.integers(0, max(0, place - 1)),
                    st.booleans(),
                    st.sampled_from(scopes),
                    st.booleans(),
                ),
                min_size=1 if last else 0,
                max_size=3 if place else 0,
            )
        )
        nodes.append(Node(form, tuple(edges)))
    pairs = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1))
    overrides = draw(st.lists(pairs.filter(lambda pair: pair[0] > pair[1]), max_size=2))
    return Graph(tuple(nodes), draw(st.booleans()), tuple(overrides))


class Record:
    """The calls with their values, and the clean-ups, in order; values are identified by number."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.made = 0

    def make(self, name: str, given: dict[str, int]) -> int:
        self.made += 1
        self.lines.append(f"{name} {given} -> {self.made}")
        return self.made

    def close(self, name: str, value: int, error: BaseException | None) -> None:
        self.lines.append(f"{name} {value} closed {error!r}")


def calls_of(graph: Graph, record: Record) -> list[Callable[..., Any]]:
    """Make the dependencies of a graph."""
    calls: list[Callable[..., Any]] = []
    for place, node in enumerate(graph.nodes[:-1]):
        call = _call_of(node.form, f"node{place}", record)
        _sign(call, node, calls)
        calls.append(call)
    return calls


def _call_of(form: Form, name: str, record: Record) -> Callable[..., Any]:
    def plain(**given: int) -> int:
        return record.make(name, given)

    async def coroutine(**given: int) -> int:
        return record.make(name, given)

    def generator(**given: int) -> Iterator[int]:
        value = record.make(name, given)
        told: BaseException | None = None
        try:
            yield value
        except BaseException as error:
            told = error
            raise
        finally:
            record.close(name, value, told)

    async def async_generator(**given: int) -> AsyncIterator[int]:
        value = record.make(name, given)
        told: BaseException | None = None
        try:
            yield value
        except BaseException as error:
            told = error
            raise
        finally:
            record.close(name, value, told)

    class Made(int):
        def __new__(cls, **given: int) -> Self:
            return super().__new__(cls, record.make(name, given))

    class Caller:
        async def __call__(self, **given: int) -> int:
            return record.make(name, given)

    forms: dict[Form, Callable[..., Any]] = {
        "def": plain,
        "async def": coroutine,
        "yield": generator,
        "async yield": async_generator,
        "class": Made,
        "object": Caller(),
        "partial": functools.partial(generator),
    }
    return forms[form]


def _sign(call: Any, node: Node, calls: list[Callable[..., Any]]) -> None:
    """Give a callable the signature that asks for its node's edges."""
    parameters = []
    for number, edge in enumerate(node.edges):
        mark = Depends(calls[edge.to], use_cache=edge.use_cache, scope=edge.scope)
        parameters.append(
            inspect.Parameter(
                f"p{number}",
                inspect.Parameter.KEYWORD_ONLY,
                annotation=Annotated[Any, mark] if edge.in_annotation else Any,
                default=Injected if edge.in_annotation else mark,
            )
        )
    call.__signature__ = inspect.Signature(parameters)


async def in_a_route(graph: Graph) -> list[str]:
    record = Record()
    calls = calls_of(graph, record)
    app = FastAPI()

    async def endpoint(**given: int) -> None:
        record.lines.append(f"called {given}")
        if graph.raises:
            raise ValueError("no")

    _sign(endpoint, graph.nodes[-1], calls)
    app.get("/")(endpoint)
    for original, other in graph.overrides:
        app.dependency_overrides[calls[original]] = calls[other]
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/")
    assert answer.status_code == (500 if graph.raises else 200)
    return record.lines


async def in_a_task(graph: Graph) -> list[str]:
    record = Record()
    calls = calls_of(graph, record)
    app = FastAPI()

    async def work(**given: int) -> None:
        record.lines.append(f"called {given}")
        if graph.raises:
            raise ValueError("no")

    _sign(work, graph.nodes[-1], calls)
    task = TaskRouter().task(work)
    for original, other in graph.overrides:
        app.dependency_overrides[calls[original]] = calls[other]
    threads = Threads(1)
    attempt = Attempt(claimed(task="work"), task.spec)
    try:
        attempt.decided = await execute(attempt, threads, AttemptScope(None, app))
        assert attempt.resolved is not None
        await clean_up(attempt, attempt.resolved, threads, lambda _, error: pytest.fail(str(error)))
    finally:
        threads.close()
    return record.lines


@pytest.mark.slow
@example(Graph((Node("yield", ()), Node("async def", (Edge(0, True, None, True),))), True, ()))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graph=graphs())
def test_task_resolves_and_cleans_up_as_a_route_does(graph: Graph) -> None:
    expected = asyncio.run(in_a_route(graph))
    assert asyncio.run(in_a_task(graph)) == expected


def test_the_graphs_tell_a_difference_when_there_is_one(tmp_path: Path) -> None:
    """The comparison notices calls, values, their order and the exceptions that clean-ups receive."""
    edges = (Edge(0, True, None, True), Edge(1, False, "function", False))
    graph = Graph((Node("yield", ()), Node("async yield", edges[:1]), Node("def", edges)), True, ())
    assert asyncio.run(in_a_task(graph)) == [
        "node0 {} -> 1",
        "node1 {'p0': 1} -> 2",
        "called {'p0': 1, 'p1': 2}",
        "node1 2 closed ValueError('no')",
        "node0 1 closed ValueError('no')",
    ]
