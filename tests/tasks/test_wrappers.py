"""Wrapped functions and methods as tasks: errors, and the lines that they suggest."""

import functools
import inspect
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends

from jobrunner import Injected, InvalidArguments, InvalidTask, JobContext, JobRunner, TaskRouter
from jobrunner.core.errors import DuplicateTask

HERE = Path(__file__).name


class Db:
    """Nothing that can be stored."""


def get_db() -> Db:
    return Db()


Async = Callable[..., Awaitable[Any]]


def without_wraps(fn: Async) -> Async:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return wrapper


def def_without_wraps(function: Callable[..., Any]) -> Callable[..., Any]:
    def inner(job: JobContext, **kwargs: Any) -> Any:
        return function(job, **kwargs)

    return inner


def with_wraps(fn: Async) -> Async:
    @functools.wraps(fn)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    ("decorator", "line"),
    [
        (without_wraps, "`@functools.wraps(fn)` above `async def wrapper`"),
        (def_without_wraps, "`@functools.wraps(function)` above `def inner`"),
    ],
)
def test_wrapper_without_wraps_is_refused_with_the_line_that_it_lacks(
    decorator: Callable[[Any], Any], line: str
) -> None:
    async def send(email: str) -> None: ...

    with pytest.raises(InvalidTask, match=r"hides those of the function that is wrapped") as caught:
        TaskRouter().task(decorator(send))
    assert str(caught.value).endswith(f"write {line}")
    assert HERE in str(caught.value)


async def test_wrapper_with_the_line_is_a_task_of_the_function_s_name_and_parameters() -> None:
    async def send(email: str) -> str:
        return f"to {email}"

    task: Any = TaskRouter().task(with_wraps(send))
    assert task.name == "send"
    assert task.call(email="a@b").args == '{"email":"a@b"}'
    assert await task.spec.call(None, {"email": "a@b"}) == "to a@b"
    with pytest.raises(InvalidArguments, match=r"send\(email\): missing a required argument"):
        task.call()


def test_function_that_takes_any_arguments_and_wraps_nothing_is_told_to_name_them() -> None:
    limit = 5

    async def send(*emails: str) -> int:
        return limit

    with pytest.raises(InvalidTask, match=r"parameter 'emails' takes any arguments: name each one"):
        TaskRouter().task(send)


def test_wrapper_with_a_cell_that_is_not_bound_yet_is_refused_in_words() -> None:
    def early() -> None:
        def wrapper(*args: Any) -> Any:
            return later(*args)

        TaskRouter().task(wrapper)
        later = print

    with pytest.raises(InvalidTask, match="takes any arguments: name each one"):
        early()


def test_two_functions_in_one_wrapper_without_wraps_are_told_of_it() -> None:
    """With named parameters a wrapper passes, and the second one has its name."""

    def logged(fn: Async) -> Callable[[str], Any]:
        async def wrapper(email: str) -> Any:
            return await fn(email)

        return wrapper

    async def one(email: str) -> None: ...
    async def two(email: str) -> None: ...

    router = TaskRouter()
    router.task(logged(one))
    with pytest.raises(DuplicateTask, match=r"lacks `@functools\.wraps\(fn\)` above `async def wr"):
        router.task(logged(two))


# -- wrappers that hand over something by themselves -------------------------------------------------


def shows_more_than_it_takes(fn: Any) -> Any:
    @functools.wraps(fn)
    async def wrapper(email: str) -> Any:
        return await fn(Db(), email)

    return wrapper


def takes_no_names(fn: Any) -> Any:
    @functools.wraps(fn)
    async def wrapper(*args: Any) -> Any:
        return await fn(*args)

    return wrapper


def takes_one_too_many(fn: Any) -> Any:
    @functools.wraps(fn)
    async def wrapper(trace: str, *args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return wrapper


def forgets_the_context(fn: Any) -> Any:
    @functools.wraps(fn)
    async def wrapper(**kwargs: Any) -> Any:
        return await fn(None, **kwargs)

    return wrapper


def lies(fn: Any) -> Any:
    fn.__signature__ = inspect.Signature(
        [inspect.Parameter("other", inspect.Parameter.KEYWORD_ONLY, annotation=str)]
    )
    return fn


async def _with_db(db: str, email: str) -> str:
    return email


async def _with_context(job: JobContext, email: str) -> None: ...


async def _optional(email: str = "nobody") -> None: ...


async def _plain(email: str) -> None: ...


@pytest.mark.parametrize(
    ("decorator", "fn", "why"),
    [
        (shows_more_than_it_takes, _with_db, "(db, email) and does not take them: got an unexp"),
        (takes_no_names, _plain, "unexpected keyword argument 'email'"),
        (takes_no_names, _optional, "unexpected keyword argument 'email'"),
        (takes_one_too_many, _plain, "missing a required argument: 'trace'"),
        (forgets_the_context, _with_context, "(job, email) and does not take them: too many pos"),
        (lies, _plain, "(other) and does not take them: missing a required argument: 'email'"),
    ],
)
def test_wrapper_that_does_not_take_what_it_shows_is_refused_at_the_declaration(
    decorator: Callable[[Any], Any], fn: Any, why: str
) -> None:
    """Each attempt was a TypeError, and the job a dead letter."""
    with pytest.raises(InvalidTask) as caught:
        TaskRouter().task(decorator(_copied(fn)))
    assert why in str(caught.value)
    assert "wrapper(*args, **kwargs)` there; what it hands over by itself" in str(caught.value)
    assert "`db: Annotated[Db, Depends(get_db)] = Injected`" in str(caught.value)


def test_wrapper_that_wants_what_may_be_left_out_is_refused() -> None:
    def send(email: str, copies: int = 1) -> None: ...

    @functools.wraps(send)
    def wrapper(email: str, copies: int) -> None:
        send(email, copies)

    with pytest.raises(InvalidTask, match=r"missing a required argument: 'copies'"):
        TaskRouter().task(wrapper)


async def test_wrapper_that_wants_what_is_injected_is_a_task(tmp_db: Path) -> None:
    async def send(email: str, word: Annotated[str, Depends(lambda: "hi")] = Injected) -> str:
        return f"{word} {email}"

    @functools.wraps(send)
    async def wrapper(email: str, word: str) -> str:
        return await send(email, word.upper())

    jobs = JobRunner(tmp_db)
    task: Any = jobs.task(wrapper)
    async with jobs.running():
        assert await (await jobs.enqueue(task, "a@b")).result(10) == "HI a@b"


def _copied(fn: Any) -> Any:
    same = type(fn)(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    same.__annotations__ = dict(fn.__annotations__)
    return same


def logged(fn: Any) -> Any:
    @functools.wraps(fn)
    async def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await fn(self, *args, **kwargs)

    return wrapper


class Service:
    @logged
    async def send(self, job: JobContext, email: str, /, *, copies: int = 1) -> str:
        return f"{copies} to {email}"


async def test_wrapper_that_takes_what_it_shows_is_a_task_also_of_a_method() -> None:
    task: Any = TaskRouter().task(Service().send)
    assert task.name == "send"
    assert task.call("a@b", copies=2).args == '{"email":"a@b","copies":2}'
    job: Any = None
    assert await task.spec.call(job, {"email": "a@b", "copies": 2}) == "2 to a@b"


def hands_over(fn: Any) -> Any:
    @functools.wraps(fn)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await fn("secret", *args, **kwargs)

    return wrapper


def test_missing_argument_of_a_wrapped_function_names_the_ways_out() -> None:
    async def send(token: str, email: str) -> None: ...

    task: Any = TaskRouter(prefix="mail.").task(hands_over(send))
    with pytest.raises(InvalidArguments, match=r"missing a required argument: 'token'") as caught:
        task.call(email="a@b")
    assert f"{HERE}:" in str(caught.value)
    assert "`token: Annotated[..., Depends(f)] = Injected`" in str(caught.value)
    assert "`wrapper.__signature__ = shown.replace(" in str(caught.value)
    unwrapped: Any = TaskRouter().task(send)
    with pytest.raises(InvalidArguments) as plain:
        unwrapped.call(email="a@b")
    assert "Injected" not in str(plain.value)


async def test_both_ways_out_work_as_they_are_told(tmp_db: Path) -> None:
    async def send(token: str, email: str) -> str:
        return f"{token} to {email}"

    async def injected(
        email: str, token: Annotated[str, Depends(lambda: "secret")] = Injected
    ) -> str:
        return f"{token} to {email}"

    with pytest.raises(InvalidArguments) as caught:
        TaskRouter().task(hands_over(send)).call(email="a@b")
    lines = re.findall(r"`((?:shown|wrapper)[^`]*)`", str(caught.value))
    assert len(lines) == 2
    wrapper = hands_over(send)
    exec("\n".join(lines), {"inspect": inspect, "fn": send, "wrapper": wrapper})  # noqa: S102
    jobs = JobRunner(tmp_db)
    hidden, handed = jobs.task(wrapper), jobs.task(injected)
    async with jobs.running():
        for task in (hidden, handed):
            job = await jobs.enqueue(task, email="a@b")
            assert await job.result(10) == "secret to a@b"


def test_parameter_that_cannot_be_stored_is_told_to_be_injected_and_that_works() -> None:
    async def send(db: Db, email: str) -> None: ...
    async def handed(email: str, db: Annotated[Db, Depends(get_db)] = Injected) -> None: ...

    with pytest.raises(InvalidTask, match=r"`db: Annotated\[Db, Depends\(f\)\] = Injected`"):
        TaskRouter().task(send)
    assert TaskRouter().task(handed).call("a@b").args == '{"email":"a@b"}'


# -- methods -----------------------------------------------------------------------------------------


def test_methods_as_they_are_told_are_tasks() -> None:
    router = TaskRouter()
    with pytest.raises(InvalidTask, match=r"write `jobs\.task\(Mailer\.of_class\)` there"):

        class Mailer:
            @router.task
            @classmethod
            def of_class(cls, n: int) -> int:
                return n

    class Service:
        @staticmethod
        @router.task
        def of_none(n: int) -> int:
            return n

        @classmethod
        def of_class(cls, n: int) -> int:
            return n

        def send(self, n: int) -> int:
            return n

    service = Service()
    for task in (Service.of_none, router.task(Service.of_class), router.task(service.send)):
        assert task.call(3).args == '{"n":3}'
        assert task(3) == 3
