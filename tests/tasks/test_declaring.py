"""Declaring tasks: names, what is refused, defaults, and routers that include others."""

import functools
import gc
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import pytest
import tenacity
from fastapi import Body, Depends, Request, Security
from pydantic import Field

from jobrunner.core.errors import DuplicateTask, InvalidTask
from jobrunner.core.units import MAX_DURATION_US
from jobrunner.tasks.context import JobContext
from jobrunner.tasks.retry import DEFAULT_MAX_ATTEMPTS
from jobrunner.tasks.router import TaskRouter

if TYPE_CHECKING:
    from no_such_module import Missing  # type: ignore[import-not-found]

S = 1_000_000


def get_session() -> str:
    return "session"


# names


def test_name_is_the_prefix_and_the_bare_name() -> None:
    router = TaskRouter(prefix="mail.")

    @router.task
    def send() -> None: ...

    assert send.name == "mail.send"
    assert router.tasks == {"mail.send": send}


def test_name_given_replaces_the_functions_and_keeps_the_prefix() -> None:
    router = TaskRouter(prefix="mail.")

    @router.task(name="welcome")
    def send() -> None: ...

    assert send.name == "mail.welcome"
    assert send.__name__ == "send"


def test_name_of_a_lambda_has_to_be_given(router: TaskRouter) -> None:
    with pytest.raises(InvalidTask, match="has no name to be stored under"):
        router.task(lambda: None)
    assert router.task(name="nothing")(lambda: None).name == "nothing"


@pytest.mark.parametrize(
    "name", ["", "a b", "a/b", "1a", ".a", "ä", "a\n", "a\0", "a" * 201, 5, None.__class__]
)
def test_F17_name_with_other_characters_is_refused(router: TaskRouter, name: Any) -> None:
    with pytest.raises(InvalidTask, match="is not a name"):
        router.task(name=name)(get_session)


@pytest.mark.parametrize("name", ["a", "_a", "A1", "a.b:c-d_e", "a" * 200])
def test_name_with_the_allowed_characters_is_taken(router: TaskRouter, name: str) -> None:
    assert router.task(name=name)(get_session).name == name


def test_aliases_are_whole_stored_names() -> None:
    router = TaskRouter(prefix="mail.")

    @router.task(aliases=["send_mail", "old.send"])
    def send() -> None: ...

    assert dict(router.tasks) == {"mail.send": send, "send_mail": send, "old.send": send}


def test_aliases_as_one_text_are_refused(router: TaskRouter) -> None:
    with pytest.raises(InvalidTask, match=r"write aliases=\['old'\]"):
        router.task(aliases="old")(get_session)


def test_where_names_file_and_line(router: TaskRouter) -> None:
    where = router.task(get_session).spec.where
    file, _, line = where.rpartition(":")
    assert file == __file__
    assert inspect.getsourcelines(get_session)[1] == int(line)


# refused while declared


def misplaced(n: int, job: JobContext) -> None: ...


def keyword_only(*, job: JobContext) -> None: ...


def optional_context(job: JobContext | None) -> None: ...


def second_context(job: JobContext, other: JobContext) -> None: ...


def unannotated(n) -> None: ...  # type: ignore[no-untyped-def]


def method(self, n: int) -> None: ...  # type: ignore[no-untyped-def]


def any_positional(*args: int) -> None: ...


def any_named(**kwargs: int) -> None: ...


def with_request(request: Request) -> None: ...


def with_callback(done: Callable[[], None]) -> None: ...


def with_iterator(items: Iterable[int]) -> None: ...


def with_security(session: str = Security(get_session)) -> None: ...


def with_annotated_depends(session: Annotated[str, Depends(get_session)]) -> None: ...


def with_field_default(n: int = Field(3)) -> None: ...


def with_body(n: int = Body(3)) -> None: ...


def with_missing(n: "Missing") -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


async def awaited(delay: float) -> None: ...


@functools.wraps(awaited)
def forgets_to_await(delay: float) -> Any:
    return awaited(delay)


class CallableObject:
    def __call__(self, n: int) -> None: ...


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (misplaced, "write `job: JobContext` as the first parameter"),
        (keyword_only, "write `job: JobContext` as the first parameter"),
        (optional_context, "write `job: JobContext` as the first parameter"),
        (second_context, "'other' must come first"),
        (unannotated, "write `n: str`"),
        (method, "bound method of an object that the module has `jobs.task(service.send)`"),
        (any_positional, "name each one"),
        (any_named, "name each one"),
        (with_request, "parameter 'request': pydantic has no schema for Request"),
        (with_callback, "a function cannot be stored"),
        (with_iterator, "annotate it as list[...]"),
        (with_security, "is a Security"),
        (with_annotated_depends, "write `session: ... = Injected`"),
        (with_field_default, "write `n: Annotated[..., Field(...)]`"),
        (with_body, "write `n: Annotated[..., Field(...)]`"),
        (with_missing, "outside `if TYPE_CHECKING:`"),
        (generator, "is a generator"),
        (async_generator, "is a generator"),
        (forgets_to_await, "write `async def wrapper(*args, **kwargs)` there"),
        (CallableObject, "is a class: a task is a function"),
        (CallableObject(), "is a CallableObject object: a task is a function"),
        (functools.partial(misplaced, 1), "is a partial object: a task is a function"),
        (staticmethod(get_session), "put @staticmethod above the task decorator"),
        (3, "is a int object"),
        ("mail", "write @task(name='mail')"),
    ],
)
def test_decorate_what_cannot_be_a_task_is_refused_with_what_to_write(
    router: TaskRouter, fn: Any, said: str
) -> None:
    with pytest.raises(InvalidTask) as caught:
        router.task(fn)
    assert said in str(caught.value)
    assert not router.tasks


def test_decorate_a_task_again_is_refused(router: TaskRouter) -> None:
    task = router.task(get_session)
    with pytest.raises(InvalidTask, match="is a task already"):
        TaskRouter().task(task)


def test_refusal_of_a_function_is_a_type_error_too(router: TaskRouter) -> None:
    with pytest.raises(TypeError):
        router.task(misplaced)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", float("nan")),
        ("timeout", float("inf")),
        ("timeout", "30"),
        ("timeout", True),
        ("timeout", 1e-9),
        ("expires", 0),
        ("expires", timedelta(days=-1)),
        ("expires", 1e300),
        ("retention", -1),
        ("retention", timedelta(days=40_000)),
        ("priority", 1.5),
        ("priority", True),
        ("priority", 10**6),
        ("max_attempts", 0),
        ("max_attempts", -1),
        ("max_attempts", 2.5),
        ("max_attempts", True),
        ("queue", "a b"),
        ("queue", 3),
        ("queue", ""),
        ("wait", 5),
        ("wait", 0),
        ("stop", 3),
        ("retry", ConnectionError),
    ],
)
def test_E7_decorate_with_a_value_that_cannot_be_is_refused(
    router: TaskRouter, option: str, value: Any
) -> None:
    options: Any = {option: value}
    with pytest.raises(InvalidTask, match=option):
        router.task(**options)(get_session)
    with pytest.raises(InvalidTask, match=option):
        TaskRouter(**options)
    assert not router.tasks


# defaults


def test_defaults_without_any_word_are_those_of_the_manual(router: TaskRouter) -> None:
    task = router.task(get_session).spec
    options = task.options
    assert task.aliases == ()
    assert (options.queue, options.priority, options.timeout) == ("default", 0, 300 * S)
    assert (options.expires, options.retention) == (None, None)
    assert options.policy.max_attempts == DEFAULT_MAX_ATTEMPTS


def test_defaults_of_the_router_hold_where_the_task_says_nothing() -> None:
    wait, stop, retry = tenacity.wait_fixed(1), tenacity.stop_never, tenacity.retry_never
    router = TaskRouter(
        queue="mail", priority=3, max_attempts=8, wait=wait, stop=stop, retry=retry,
        timeout=timedelta(minutes=1), expires=60, retention=0,
    )  # fmt: skip
    options = router.task(get_session).spec.options
    assert (options.queue, options.priority, options.timeout) == ("mail", 3, 60 * S)
    assert (options.expires, options.retention) == (60 * S, 0)
    assert options.policy.wait is wait
    assert options.policy.stop is stop
    assert options.policy.retry is retry
    assert options.policy.max_attempts == 8


def test_defaults_of_the_task_win_over_the_routers() -> None:
    router = TaskRouter(
        queue="mail", priority=3, max_attempts=8, timeout=60, expires=60, retention=60
    )
    task = router.task(
        queue="slow", priority=0, max_attempts=1, timeout=None, expires=None, retention=None
    )(get_session)
    options = task.spec.options
    assert (options.queue, options.priority, options.policy.max_attempts) == ("slow", 0, 1)
    assert (options.timeout, options.expires, options.retention) == (None, None, None)


def test_defaults_with_stop_alone_lift_the_number_of_attempts(router: TaskRouter) -> None:
    options = router.task(stop=tenacity.stop_after_delay(60))(get_session).spec.options
    assert options.policy.max_attempts is None


def test_defaults_at_the_edges_are_taken(router: TaskRouter) -> None:
    declared = router.task(timeout=timedelta(microseconds=1), expires=36_525 * 86_400)
    options = declared(get_session).spec.options
    assert (options.timeout, options.expires) == (1, MAX_DURATION_US)


# including


def test_include_adds_the_tasks_of_others(router: TaskRouter) -> None:
    mail, bills = TaskRouter(prefix="mail."), TaskRouter(prefix="bills.")
    send, pay = mail.task(get_session), bills.task(get_session)
    router.include(mail, bills)
    assert router.tasks == {"mail.get_session": send, "bills.get_session": pay}


def test_include_over_two_steps_adds_what_is_declared_later_too(router: TaskRouter) -> None:
    inner, middle = TaskRouter(prefix="inner."), TaskRouter()
    router.include(middle)
    middle.include(inner)
    task = inner.task(get_session)
    assert router.tasks == middle.tasks == {"inner.get_session": task}


def test_include_the_same_router_twice_or_by_two_ways_is_fine(router: TaskRouter) -> None:
    mail, middle = TaskRouter(), TaskRouter()
    mail.task(get_session)
    middle.include(mail)
    router.include(mail, mail, middle)
    assert list(router.tasks) == ["get_session"]


def test_include_two_tasks_of_one_name_tells_both_places(router: TaskRouter) -> None:
    def other() -> None: ...

    one, two = TaskRouter(), TaskRouter()
    first, second = one.task(get_session), two.task(name="get_session")(other)
    router.include(one)
    with pytest.raises(DuplicateTask) as caught:
        router.include(two)
    assert first.spec.where in str(caught.value)
    assert second.spec.where in str(caught.value)
    assert "name=..." in str(caught.value)


def test_declare_later_a_name_that_an_including_router_has_is_refused_everywhere(
    router: TaskRouter,
) -> None:
    def other() -> None: ...

    mail = TaskRouter()
    router.task(get_session)
    router.include(mail)
    with pytest.raises(DuplicateTask):
        mail.task(name="get_session")(other)
    assert not mail.tasks


def test_declare_one_function_twice_on_a_router_is_refused(router: TaskRouter) -> None:
    router.task(get_session)
    with pytest.raises(DuplicateTask, match="is declared twice"):
        router.task(get_session)


def test_declare_twice_a_function_that_enqueues_another_task_blames_no_wrapper(
    router: TaskRouter,
) -> None:
    first = router.task(get_session)

    async def second() -> None:
        await first.enqueue()

    router.task(second)
    with pytest.raises(DuplicateTask, match=r"ran twice on one router$"):
        router.task(second)


def test_declare_an_alias_that_is_taken_is_refused(router: TaskRouter) -> None:
    def other() -> None: ...

    router.task(get_session)
    with pytest.raises(DuplicateTask):
        router.task(aliases=["get_session"])(other)
    assert list(router.tasks) == ["get_session"]


def test_include_in_a_ring_is_refused(router: TaskRouter) -> None:
    inner = TaskRouter()
    router.include(inner)
    with pytest.raises(InvalidTask, match="ring"):
        inner.include(router)
    with pytest.raises(InvalidTask, match="ring"):
        router.include(router)


def test_include_what_is_no_router_is_refused(router: TaskRouter) -> None:
    with pytest.raises(TypeError, match="takes task routers"):
        router.include(functools)  # type: ignore[arg-type]


def test_include_does_not_keep_the_including_router_alive() -> None:
    mail = TaskRouter()
    short_lived = TaskRouter()
    short_lived.include(mail)
    del short_lived
    gc.collect()
    assert not list(mail._includers)


def test_tasks_cannot_be_changed_from_outside(router: TaskRouter) -> None:
    tasks: Any = router.tasks
    with pytest.raises(TypeError):
        tasks["a"] = 1
