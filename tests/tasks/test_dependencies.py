"""Dependencies of a task's parameters, read at registration: accepted and refused ones."""

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import (
    BackgroundTasks,
    Body,
    Depends,
    Header,
    Query,
    Request,
    Response,
    Security,
    WebSocket,
)
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from starlette.requests import HTTPConnection

from jobrunner import (
    Injected,
    InvalidArguments,
    InvalidTask,
    JobContext,
    JobQueue,
    JobRunner,
    TaskRouter,
)
from jobrunner.fastapi import Queue, SyncQueue, job_queue
from jobrunner.tasks.dependencies import Dependency, kind_of, label
from tests.tasks import postponed

if TYPE_CHECKING:
    from decimal import Decimal


class Session: ...


def get_session() -> Session:
    return Session()


def open_session() -> Iterator[Session]:
    yield Session()


SessionDep = Annotated[Session, Depends(get_session)]


class Repository:
    def __init__(self, session: SessionDep, table: str = "orders") -> None:
        self.session = session


class Factory:
    def __call__(self, session: SessionDep) -> Session:
        return session

    def make(self, session: Annotated[Session, Depends(get_session)]) -> Session:
        return session


def partly(session: SessionDep, size: int) -> Session:
    return session


def needs_of(task: Any) -> tuple[Dependency, ...]:
    needs: tuple[Dependency, ...] = task.spec.injected
    return needs


# -- what is taken ------------------------------------------------------------------------------------------


def annotated_form(number: int, session: SessionDep = Injected) -> None: ...
def default_form(number: int, session: Session = Depends(get_session)) -> None: ...
def untyped_form(number: int, session=Depends(get_session)) -> None: ...  # type: ignore[no-untyped-def]
def keyword_form(number: int, *, session: SessionDep = Injected) -> None: ...
def with_context(job: JobContext, number: int, session: SessionDep = Injected) -> None: ...


@pytest.mark.parametrize(
    "fn", [annotated_form, default_form, untyped_form, keyword_form, with_context]
)
def test_injected_parameter_is_no_part_of_the_arguments(router: TaskRouter, fn: Any) -> None:
    task: Any = router.task(fn)
    (need,) = needs_of(task)
    assert (need.name, need.call, need.kind, need.needs) == ("session", get_session, "function", ())
    assert task.call(3).args == '{"number":3}'


def by_class(it: Annotated[Repository, Depends()] = Injected) -> None: ...
def by_class_default(it: Repository = Depends()) -> None: ...
def by_object(it: Annotated[Session, Depends(Factory())] = Injected) -> None: ...
def by_method(it: Annotated[Session, Depends(Factory().make)] = Injected) -> None: ...
def by_partial(
    it: Annotated[Session, Depends(functools.partial(partly, size=3))] = Injected,
) -> None: ...


@pytest.mark.parametrize("fn", [by_class, by_class_default, by_object, by_method, by_partial])
def test_whatever_can_be_called_is_read_by_its_signature(router: TaskRouter, fn: Any) -> None:
    (need,) = needs_of(router.task(fn))
    assert [(sub.name, sub.call) for sub in need.needs] == [("session", get_session)]


def test_annotations_as_text_are_resolved(router: TaskRouter) -> None:
    (need,) = needs_of(router.task(postponed.work))
    assert need.call is postponed.get_service
    assert [sub.call for sub in need.needs] == [postponed.get_text]


def test_annotation_that_names_something_local_is_resolved(router: TaskRouter) -> None:
    class Local: ...

    def get_local() -> Local:
        return Local()

    @router.task
    def work(it: "Annotated[Local, Depends(get_local)]" = Injected) -> None: ...

    assert needs_of(work)[0].call is get_local


def get_price() -> "Decimal": ...  # type: ignore[empty-body]


def test_unknown_return_annotation_of_a_dependency_is_left_alone(router: TaskRouter) -> None:
    @router.task
    def work(price: Annotated[Any, Depends(get_price)] = Injected) -> None: ...

    assert needs_of(work)[0].call is get_price


def test_key_holds_the_scope_that_counts(router: TaskRouter) -> None:
    def opened() -> Iterator[int]:
        yield 1

    def plain() -> int:
        return 1

    @router.task
    def work(
        a: Annotated[int, Depends(opened)] = Injected,
        b: Annotated[int, Depends(opened, scope="request")] = Injected,
        c: Annotated[int, Depends(opened, scope="function")] = Injected,
        d: Annotated[int, Depends(plain)] = Injected,
        e: Annotated[int, Depends(plain, use_cache=False)] = Injected,
    ) -> None: ...

    keys = [need.key for need in needs_of(work)]
    assert keys == [
        (opened, "request"),
        (opened, "request"),
        (opened, "function"),
        (plain, ""),
        (plain, ""),
    ]
    assert [need.use_cache for need in needs_of(work)] == [True, True, True, True, False]


def test_what_the_library_makes_is_taken_by_its_mark(router: TaskRouter) -> None:
    jobs = JobRunner()

    @router.task
    def work(
        queue: Queue = Injected,
        sync: SyncQueue = Injected,
        named: Annotated[Any, Depends(jobs.queue)] = Injected,
    ) -> None: ...

    first, second, third = needs_of(work)
    assert (first.supply, second.supply, third.supply) == ("queue", None, "queue")
    assert [need.supply for need in second.needs] == ["queue"]


async def coroutine() -> None: ...
def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class AsyncCallable:
    async def __call__(self) -> None: ...


class Generating:
    def __call__(self) -> Iterator[int]:
        yield 1


@functools.wraps(coroutine)
def wrapped() -> Any:
    return coroutine()


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (get_session, "function"),
        (Repository, "function"),
        (AsyncCallable, "function"),
        (coroutine, "coroutine"),
        (wrapped, "coroutine"),
        (functools.partial(coroutine), "coroutine"),
        (AsyncCallable(), "coroutine"),
        (AsyncCallable().__call__, "coroutine"),
        (generator, "generator"),
        (functools.partial(generator), "generator"),
        (Generating(), "generator"),
        (async_generator, "async generator"),
    ],
)
def test_kind_is_told_as_fastapi_does(call: Any, kind: str) -> None:
    from fastapi.dependencies import models  # noqa: PLC0415 - private: what we are held against

    assert kind_of(call) == kind
    assert models._is_async_gen_callable(call) == (kind == "async generator")
    assert models._is_gen_callable(call) == (kind == "generator")
    assert models._is_coroutine_callable(call) == (kind == "coroutine")


def test_label_of_a_local_function_is_its_name() -> None:
    assert label(functools.partial(Factory().make)) == "Factory.make"
    assert label(Factory()) == "Factory"

    def inner() -> None: ...

    assert label(inner) == "inner"


# -- what is refused, and by which name --------------------------------------------------------------------


def current_user(request: Request) -> str:
    return str(request.url)


class Audit:
    def __init__(self, user: Annotated[str, Depends(current_user)]) -> None: ...


def wants_connection(connection: HTTPConnection) -> None: ...
def wants_socket(socket: WebSocket) -> None: ...
def wants_response(response: Response) -> None: ...
def wants_background(later: BackgroundTasks) -> None: ...
def wants_scopes(scopes: SecurityScopes) -> None: ...
def wants_text(text: str) -> None: ...
def wants_query(text: Annotated[str, Query(max_length=3)]) -> None: ...
def wants_header(text: str = Header()) -> None: ...
def wants_body(text: Annotated[dict[str, int], Body()]) -> None: ...
def wants_any(*args: int) -> None: ...
def wants_security(text: Annotated[str, Security(get_session)]) -> None: ...
def wants_twice(text: Annotated[str, Depends(get_session)] = Depends(get_session)) -> None: ...
def wants_by_place(session: Annotated[str, Depends(get_session)], /) -> None: ...
def wants_nothing(text: str = Injected) -> None: ...


def turns(again: Annotated[Any, Depends(lambda: 1)]) -> None: ...


turns.__annotations__["again"] = Annotated[Any, Depends(turns)]


def short_lived() -> Iterator[int]:
    yield 1


def long_lived(it: Annotated[int, Depends(short_lived, scope="function")]) -> Iterator[int]:
    yield it


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self) -> None: ...


REFUSED: list[tuple[Callable[..., Any] | Any, str]] = [
    (current_user, "parameter 'request' of current_user is a Request, but a task runs outside any"),
    (Audit, "parameter 'request' of Audit > current_user is a Request"),
    (wants_connection, "parameter 'connection' of wants_connection is a HTTPConnection"),
    (wants_socket, "parameter 'socket' of wants_socket is a WebSocket"),
    (wants_response, "parameter 'response' of wants_response is a Response"),
    (wants_background, "parameter 'later' of wants_background is a BackgroundTasks"),
    (wants_scopes, "parameter 'scopes' of wants_scopes is a SecurityScopes"),
    (wants_text, "parameter 'text' of wants_text has no default, so FastAPI would read it from"),
    (wants_query, "parameter 'text' of wants_query is a Query without a default"),
    (wants_header, "parameter 'text' of wants_header is a Header without a default"),
    (wants_body, "parameter 'text' of wants_body is a Body without a default"),
    (wants_any, "parameter 'args' of wants_any has no default"),
    (wants_security, "parameter 'text' of wants_security is a Security"),
    (wants_twice, "parameter 'text' of wants_twice has a Depends in its annotation and another"),
    (wants_by_place, "parameter 'session' of wants_by_place is handed over by name"),
    (wants_nothing, "parameter 'text' of wants_nothing has no default"),
    (turns, "parameter 'again' of turns depends on turns, which depends on itself"),
    (long_lived, "parameter 'it' of long_lived has the scope \"function\""),
    (
        OAuth2PasswordBearer("token"),
        "parameter 'request' of OAuth2PasswordBearer is a HTTPConnection",
    ),
    (Unhashable(), "which has no hash"),
    (3, "parameter 'it' depends on 3, which cannot be called: write Depends(f)"),
]


@pytest.mark.parametrize(
    "held", [Depends(open_session), Depends(open_session, scope="function", use_cache=False)]
)
def test_queue_that_joins_another_session_than_the_one_held_is_refused(
    router: TaskRouter, held: Any
) -> None:
    joined = job_queue(Depends(open_session, scope="function"))

    async def work(
        session: Annotated[Session, held] = Injected,
        queue: Annotated[JobQueue, Depends(joined)] = Injected,
    ) -> None: ...

    with pytest.raises(InvalidTask, match=r'write Depends\(open_session, scope="function"\)'):
        router.task(work)


def test_queue_that_joins_the_session_that_is_held_is_taken(router: TaskRouter) -> None:
    marker = Depends(open_session, scope="function")

    async def work(
        session: Annotated[Session, marker] = Injected,
        queue: Annotated[JobQueue, Depends(job_queue(marker))] = Injected,
    ) -> None: ...

    assert len(needs_of(router.task(work))) == 2


@pytest.mark.parametrize(("call", "said"), REFUSED, ids=[label(call) for call, _ in REFUSED])
def test_dependency_that_needs_a_request_is_refused_by_name(
    router: TaskRouter, call: Any, said: str
) -> None:
    def work(number: int, it: Annotated[Any, Depends(call)] = Injected) -> None: ...

    with pytest.raises(InvalidTask) as caught:
        router.task(work)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"work ({__file__}:")
    assert not router.tasks


def security(it: Any = Security(get_session)) -> None: ...  # noqa: B008 - as it is written
def nothing_to_inject(it: str = Injected) -> None: ...
def no_annotation(it=Injected) -> None: ...  # type: ignore[no-untyped-def]
def no_default(it: SessionDep) -> None: ...
def twice(it: SessionDep = Depends(get_session)) -> None: ...


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (security, "parameter 'it' is a Security"),
        (nothing_to_inject, "write `it: Annotated[..., Depends(f)] = Injected`"),
        (no_annotation, "write `it: Annotated[..., Depends(f)] = Injected`"),
        (no_default, "write `it: ... = Injected`"),
        (twice, "write `it: ... = Injected`"),
    ],
)
def test_parameter_that_is_half_injected_is_refused_with_what_to_write(
    router: TaskRouter, fn: Any, said: str
) -> None:
    with pytest.raises(InvalidTask) as caught:
        router.task(fn)
    assert said in str(caught.value)


def test_defaults_of_a_dependency_are_its_own(router: TaskRouter) -> None:
    def paged(
        size: int = 20,
        tags: list[str] = [],  # noqa: B006 - what is tested
        page: int = Query(3),
        order: Annotated[str, Query()] = "name",
        extra: Annotated[dict[str, int], Body(default_factory=dict)] = {"a": 1},  # noqa: B006
    ) -> None: ...

    @router.task
    def work(it: Annotated[Any, Depends(paged)] = Injected) -> None: ...

    given = needs_of(work)[0].given
    assert {name: make() for name, make in given.items()} == {
        "tags": [],
        "page": 3,
        "extra": {"a": 1},
    }
    assert given["tags"]() is not given["tags"]()


# -- callers do not fill it --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1, Session()), {}), ((1,), {"session": Session()})],
    ids=["place", "name"],
)
def test_enqueue_with_an_injected_argument_is_refused(
    router: TaskRouter, args: Any, kwargs: Any
) -> None:
    task: Any = router.task(annotated_form)
    with pytest.raises(
        InvalidArguments, match=r"annotated_form\(number\): session cannot be given: each"
    ):
        task.call(*args, **kwargs)


def test_injected_parameter_keeps_its_place_in_a_call(router: TaskRouter) -> None:
    @router.task
    def work(a: int, session: SessionDep = Injected, b: int = 0) -> None: ...

    assert work.call(1, b=2).args == '{"a":1,"b":2}'
    spec: Any = work
    with pytest.raises(InvalidArguments, match="session cannot be given"):
        spec.call(1, 2)


def test_edited_arguments_with_an_injected_one_are_refused(router: TaskRouter) -> None:
    codec = router.task(annotated_form).spec.args
    with pytest.raises(InvalidArguments, match="session cannot be given"):
        codec.merge('{"number":1}', {"session": 3})
    assert codec.merge('{"number":1,"session":3}', {"number": 2}) == '{"number":2}'


async def async_form(number: int, session: SessionDep = Injected) -> tuple[int, Session]:
    return number, session


async def async_context_form(
    job: JobContext, number: int, session: SessionDep = Injected
) -> tuple[int, Session]:
    return number, session


def sync_form(number: int, session: Session = Depends(get_session)) -> tuple[int, Session]:
    return number, session


def sync_context_form(
    job: JobContext, number: int, session: Session = Depends(get_session)
) -> tuple[int, Session]:
    return number, session


@pytest.mark.parametrize("fn", [async_form, async_context_form, sync_form, sync_context_form])
async def test_direct_call_takes_what_is_given_and_names_what_is_not(
    router: TaskRouter, fn: Any
) -> None:
    task: Any = router.task(fn)
    job = (object(),) if task.spec.wants_context else ()
    session = Session()
    for args, kwargs in (((1, session), {}), ((1,), {"session": session})):
        answer = task(*job, *args, **kwargs)
        assert (await answer if task.spec.is_async else answer) == (1, session)
    with pytest.raises(TypeError, match=rf"write {task.name}\(\.\.\., session=\.\.\.\)"):
        _ = await task(*job, 1) if task.spec.is_async else task(*job, 1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        _ = await task(*job, colour=1) if task.spec.is_async else task(*job, colour=1)


def test_injected_is_shown_by_its_name_and_is_one() -> None:
    import copy  # noqa: PLC0415
    import pickle  # noqa: PLC0415

    assert repr(Injected) == "Injected"
    assert copy.deepcopy(Injected) is Injected
    assert pickle.loads(pickle.dumps(Injected)) is Injected  # noqa: S301 - our own
