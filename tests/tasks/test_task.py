"""Tasks: what a function becomes, and the context that its attempts get."""

import functools
import inspect
import pydoc
from collections.abc import Callable
from typing import Annotated, Any

import pytest
import tenacity
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel

from jobrunner.core.errors import InvalidArguments
from jobrunner.tasks.context import JobContext
from jobrunner.tasks.router import TaskRouter
from jobrunner.tasks.task import AsyncTask, CtxAsyncTask, CtxSyncTask, SyncTask
from tests.support.contexts import context


def double(n: int) -> int:
    return 2 * n


# what a function becomes


async def test_decorate_an_async_function_leaves_it_callable(router: TaskRouter) -> None:
    @router.task
    async def double(n: int) -> int:
        """Twice as much."""
        return 2 * n

    assert isinstance(double, AsyncTask)
    assert await double(4) == 8
    assert inspect.iscoroutinefunction(type(double).__call__)
    assert double.spec.is_async


def test_decorate_a_def_leaves_it_callable(router: TaskRouter) -> None:
    @router.task
    def double(n: int) -> int:
        return 2 * n

    assert isinstance(double, SyncTask)
    assert double(4) == 8
    assert not double.spec.is_async


async def test_decorate_with_a_context_takes_it_out_of_the_arguments(router: TaskRouter) -> None:
    @router.task
    async def which(job: JobContext, n: int) -> str:
        return f"{job.id} {n}"

    @router.task
    def which_too(job: JobContext, n: int) -> str:
        return f"{job.id} {n}"

    assert isinstance(which, CtxAsyncTask)
    assert isinstance(which_too, CtxSyncTask)
    assert which.call(3).args == '{"n":3}'
    assert await which(context(), 3) == "id-1 3"
    assert which_too(context(), n=3) == "id-1 3"
    assert which_too.spec.call(context(), {"n": 3}) == "id-1 3"


def test_decorate_keeps_what_a_function_has(router: TaskRouter) -> None:
    def send(email: str, copies: int = 1) -> None:
        """Send it."""

    send.colour = "red"  # type: ignore[attr-defined]
    task: Any = router.task(send)
    assert task.__name__ == "send"
    assert task.__doc__ == "Send it."
    assert task.__module__ == __name__
    assert task.__wrapped__ is send
    assert task.colour == "red"
    assert inspect.signature(task) == inspect.signature(send)
    assert repr(task) == "<Task send>"


def test_decorate_a_function_with_an_attribute_like_ours_keeps_ours(router: TaskRouter) -> None:
    def send() -> None: ...

    send.spec = "theirs"  # type: ignore[attr-defined]
    assert router.task(send).spec.name == "send"


@pytest.mark.parametrize("delayed", [False, True])
def test_help_shows_the_function_and_not_our_class(router: TaskRouter, *, delayed: bool) -> None:
    @router.task
    async def double(job: JobContext, n: int = 1) -> int:
        """Twice as much."""
        return 2 * n

    @router.task(timeout=60)
    def bare(n: int) -> None: ...

    shown = double.options(delay=5) if delayed else double
    text = pydoc.plain(pydoc.render_doc(shown))
    assert text.splitlines()[2:4] == [
        "double(job: jobrunner.JobContext, n: int = 1) -> int",
        "    Twice as much.",
    ]
    text = pydoc.plain(pydoc.render_doc(bare))
    assert text.splitlines()[2:] == ["bare(n: int) -> None"]


def test_completion_shows_no_internal_names(router: TaskRouter) -> None:
    def shown(value: object) -> set[str]:
        return {name for name in dir(value) if not name.startswith("_")}

    assert shown(router) == {"cron", "declarations", "every", "include", "task", "tasks"}
    assert shown(router.task(double)) == {"call", "enqueue", "name", "options", "spec"}


def test_task_in_a_class_is_never_bound(router: TaskRouter) -> None:
    class Service:
        work = router.task(double)

    assert Service.work is Service().work is router.tasks["double"]
    assert Service().work(4) == 8


def test_task_as_a_route_or_dependency_is_called_as_its_function(router: TaskRouter) -> None:
    @router.task
    async def triple(n: int = 1) -> int:
        return 3 * n

    app = FastAPI()
    app.get("/triple")(triple)
    app.get("/double")(router.task(double))

    @app.get("/both")
    async def both(tripled: Annotated[int, Depends(triple)]) -> int:
        return tripled

    with TestClient(app) as client:
        answers = [client.get(f"/{path}?n=2").json() for path in ("triple", "double", "both")]
    assert answers == [6, 4, 6]


def test_decorate_with_and_without_parentheses_is_the_same(router: TaskRouter) -> None:
    @router.task()
    def one() -> None: ...

    @router.task
    def two() -> None: ...

    assert type(one) is type(two)
    assert set(router.tasks) == {"one", "two"}


def test_decorate_a_nested_function_with_text_annotations_resolves_local_names(
    router: TaskRouter,
) -> None:
    class Local(BaseModel):
        n: int

    @router.task
    def note(one: "Local", many: "list[Local]", inner: list["Local"]) -> None: ...

    local = Local(n=1)
    assert (
        note.call(local, [local], [local]).args
        == '{"one":{"n":1},"many":[{"n":1}],"inner":[{"n":1}]}'
    )


def test_decorate_a_bound_method_leaves_out_self(router: TaskRouter) -> None:
    class Mailer:
        def send(self, email: str) -> str:
            return f"sent {email}"

    task = router.task(Mailer().send)
    assert task.call("a").args == '{"email":"a"}'
    assert task("a") == "sent a"


async def test_decorate_a_wrapped_function_reads_the_inner_signature(router: TaskRouter) -> None:
    def twice(fn: Callable[[int], Any]) -> Callable[[int], Any]:
        @functools.wraps(fn)
        async def wrapper(n: int) -> Any:
            return 2 * await fn(n)

        return wrapper

    @router.task
    @twice
    async def one(n: int) -> int:
        return n

    assert one.call(3).args == '{"n":3}'
    assert await one(3) == 6


async def test_decorate_a_function_that_tenacity_retries_inside_keeps_it(
    router: TaskRouter,
) -> None:
    tries: list[int] = []

    @router.task
    @tenacity.retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none())
    async def flaky(n: int) -> int:
        tries.append(n)
        if len(tries) < 3:
            raise ConnectionError
        return n

    assert await flaky(7) == 7
    assert tries == [7, 7, 7]
    assert flaky.call(1).args == '{"n":1}'


def test_call_positional_only_parameters_are_handed_over_in_order(router: TaskRouter) -> None:
    @router.task
    def join(a: str, b: str = "b", /, c: str = "c", *, d: str = "d") -> str:
        return a + b + c + d

    spec = join.spec
    assert spec.call(context(), spec.args.decode(join.call("1").args)) == "1bcd"
    assert spec.call(context(), spec.args.decode(join.call("1", "2", "3", d="4").args)) == "1234"


def test_call_positional_only_after_a_context_are_handed_over_in_order(router: TaskRouter) -> None:
    @router.task
    def join(job: JobContext, a: str, /, b: str) -> str:
        return job.id + a + b

    assert join.spec.call(context(), join.spec.args.decode(join.call("1", "2").args)) == "id-112"


def test_call_with_wrong_arguments_is_refused_before_anything_else(router: TaskRouter) -> None:
    @router.task
    def send(email: str) -> None: ...

    with pytest.raises(InvalidArguments, match="missing a required argument: 'email'"):
        send.call()  # type: ignore[call-arg]


# the context


def test_context_tells_of_its_job() -> None:
    job = context(attempt=2, max_attempts=None)
    assert (job.id, job.task, job.queue, job.attempt, job.max_attempts) == (
        "id-1",
        "t",
        "q",
        2,
        None,
    )
    assert job.scheduled_for is None
    assert not job.cancelled
    assert repr(job) == "<JobContext t id-1 attempt 2>"


def test_context_logs_with_the_job_beside_the_callers_own_extra(
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = context()
    job.logger.warning("slow %s", "mail", extra={"colour": "red"})
    record: Any = caplog.records[0]
    assert record.name == "jobrunner.task"
    assert record.getMessage() == "slow mail"
    assert (record.job_id, record.task, record.attempt, record.colour) == ("id-1", "t", 1, "red")
    assert job.logger is job.logger


def test_context_has_no_room_for_other_attributes() -> None:
    with pytest.raises(AttributeError):
        context().colour = "red"  # type: ignore[attr-defined]
