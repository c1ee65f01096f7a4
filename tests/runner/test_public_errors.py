"""Bad input raises a clear error at the call or at the start, and stores nothing."""

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
import tenacity
from pydantic import BaseModel

from jobrunner import (
    DuplicateTask,
    InvalidArguments,
    InvalidCursor,
    InvalidOptions,
    InvalidTask,
    JobContext,
    JobNotFound,
    JobRunner,
    Retry,
    Snooze,
    StoreError,
    StoreFailed,
    TaskRouter,
    UnknownTask,
)
from jobrunner.store.sqlite.host import identity
from jobrunner.tasks.codec import MAX_ARGS_BYTES

tasks = TaskRouter()


class Order(BaseModel):
    number: int
    lines: list[dict[str, Any]] = []


@tasks.task
async def send(email: str, copies: int = 1) -> None: ...


@tasks.task
async def keep(detail: Any) -> None: ...


@tasks.task
async def ship(order: Order) -> None: ...


@tasks.task
async def weigh(weight: float) -> None: ...


# -- arguments -------------------------------------------------------------------------------------------


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def too_many_digits() -> int:
    return 10**5000


BAD_CALLS: dict[str, tuple[Any, Callable[[], tuple[tuple[Any, ...], dict[str, Any]]], str]] = {
    "wrong": (send, lambda: (("a@b.c", "many"), {}), "copies"),
    "missing": (send, lambda: ((), {}), "missing a required argument: 'email'"),
    "unknown": (send, lambda: (("a@b.c",), {"subject": "x"}), "unexpected keyword argument"),
    "too many": (send, lambda: (("a@b.c", 1, 2), {}), "too many positional arguments"),
    "twice": (send, lambda: (("a@b.c",), {"email": "d@e.f"}), "multiple values"),
    "option of ours": (send, lambda: (("a@b.c",), {"delay": 5}), "send.options(delay=...)"),
    "option of another queue": (
        send,
        lambda: (("a@b.c",), {"countdown": 5}),
        "send.options(delay=...)",
    ),
    "F7 set": (keep, lambda: (({"items": [1, {2}]},), {}), "detail.items[1]"),
    "F7 object": (keep, lambda: ((object(),), {}), "detail"),
    "F7 datetime": (keep, lambda: ((datetime(2026, 1, 1),), {}), "detail"),  # noqa: DTZ001 - any will do
    "F8 tuple": (keep, lambda: (((1, 2),), {}), "detail"),
    "F8 int key": (keep, lambda: (({1: "a"},), {}), "detail"),
    "F2 NaN": (weigh, lambda: ((float("nan"),), {}), "weight"),
    "F2 infinity": (weigh, lambda: ((float("inf"),), {}), "weight"),
    "F2 NaN inside": (keep, lambda: (({"a": [float("nan")]},), {}), "detail.a[0]"),
    "F3 surrogate": (send, lambda: (("\ud800",), {}), "email"),
    "F5 digits": (keep, lambda: ((too_many_digits(),), {}), "that many digits"),
    "F6 nesting": (keep, lambda: ((nested(100_000),), {}), "nested too deep"),
    "F1 too large": (send, lambda: (("x" * MAX_ARGS_BYTES,), {}), "bytes of JSON"),
    "model by a dict": (ship, lambda: (({"number": "x"},), {}), "order.number"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
async def test_arguments_that_do_not_fit_are_refused_at_the_call(
    jobs: JobRunner, case: str
) -> None:
    jobs.include(tasks)
    task, make, said = BAD_CALLS[case]
    args, kwargs = make()
    async with jobs.running(work=False):
        for enqueue in (
            lambda: jobs.enqueue(task, *args, **kwargs),
            lambda: task.enqueue(*args, **kwargs),
        ):
            with pytest.raises(InvalidArguments) as refused:
                await enqueue()
            assert said in str(refused.value)
            assert task.name in str(refused.value)
        with pytest.raises(InvalidArguments):
            await jobs.enqueue_many([send.call("ok"), task.call(*args, **kwargs)])
        assert (await jobs.list()).items == []


async def test_F9_arguments_changed_after_the_call_are_stored_as_they_were(jobs: JobRunner) -> None:
    @jobs.task
    async def echo(detail: dict[str, list[int]]) -> dict[str, list[int]]:
        return detail

    async with jobs.running():
        detail = {"a": [1]}
        enqueueing = asyncio.ensure_future(jobs.enqueue(echo, detail))
        call = echo.call(detail)
        await asyncio.wait([enqueueing], timeout=0)
        detail["a"].append(2)
        assert await (await enqueueing).result(timeout=15) == {"a": [1]}
        (second,) = await jobs.enqueue_many([call])
        assert await second.result(timeout=15) == {"a": [1]}


async def test_enqueue_many_of_too_many_is_refused_with_the_way_to_slice(jobs: JobRunner) -> None:
    jobs.include(tasks)
    call = send.call("a@b.c")
    async with jobs.running(work=False):
        with pytest.raises(
            InvalidOptions, match=r"10,000 jobs at most, not 10,001.*once per slice"
        ):
            await jobs.enqueue_many([call] * 10_001)
        assert (await jobs.list()).items == []
        assert await jobs.enqueue_many([]) == []
        with pytest.raises(InvalidOptions, match=r"write enqueue_many\(\[task\.call\("):
            await jobs.enqueue_many([send])  # type: ignore[arg-type]
        with pytest.raises(
            InvalidOptions, match=r"takes a list of calls: write enqueue_many\(\[task\.call\("
        ):
            await jobs.enqueue_many(send.call("ok"))  # type: ignore[arg-type]


# -- looking up ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "error", "said"),
    [
        (UUID(int=7), TypeError, r"write str\(id\)"),
        (None, TypeError, r"write str\(id\)"),
        ("\ud800", JobNotFound, "no job has the id"),
        ("a\0b", JobNotFound, "no (job|dead letter) has the id"),
    ],
)
async def test_id_that_no_job_can_have_is_told_so(
    jobs: JobRunner, id: Any, error: type[Exception], said: str
) -> None:
    async with jobs.running(work=False):
        letters = jobs.dead_letters
        for ask in (jobs.get, jobs.cancel, letters.get, letters.replay, letters.delete):
            with pytest.raises(error, match=said):
                await ask(id)


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ({"state": "failed"}, InvalidOptions, "none of scheduled, queued, running, blocked"),
        ({"task": "\ud800"}, InvalidOptions, "lone surrogate"),
        ({"queue": 7}, InvalidOptions, "queue=7 is not a text"),
        ({"limit": "5"}, InvalidOptions, "limit='5'"),
        ({"cursor": 7}, InvalidCursor, "7 is not a cursor"),
        ({"cursor": "\xb2"}, InvalidCursor, "is not a cursor"),
    ],
)
async def test_filter_that_cannot_be_is_refused_and_not_taken_for_one_that_meets_nothing(
    jobs: JobRunner, words: dict[str, Any], error: type[Exception], said: str
) -> None:
    async with jobs.running(work=False):
        with pytest.raises(error, match=said):
            await jobs.list(**words)


async def test_reason_that_there_is_not_is_refused_by_every_verb(jobs: JobRunner) -> None:
    async with jobs.running(work=False):
        letters = jobs.dead_letters
        for verb in (letters.list, letters.count, letters.replay_all, letters.delete_all):
            with pytest.raises(InvalidOptions, match="none of exhausted, buried"):
                await verb(reason=cast("Any", "failed"))


# -- tasks -----------------------------------------------------------------------------------------------


async def test_enqueues_what_is_no_task_is_refused(jobs: JobRunner) -> None:
    async def plain() -> None: ...

    async with jobs.running(work=False):
        with pytest.raises(UnknownTask, match=r"decorate the function with @jobs\.task"):
            await jobs.enqueue(plain)  # type: ignore[arg-type]
        with pytest.raises(UnknownTask, match=r"is not registered with this runner"):
            await jobs.enqueue(send, "a@b.c")


def test_two_tasks_of_one_name_are_refused_with_both_places() -> None:
    router = TaskRouter()

    @router.task(name="send")
    async def one() -> None: ...

    with pytest.raises(DuplicateTask, match="two tasks have the name 'send'") as refused:

        @router.task(name="send")
        async def two() -> None: ...

    assert str(refused.value).count(Path(__file__).name) == 2

    jobs = JobRunner("x.db")
    jobs.include(router)
    with pytest.raises(DuplicateTask):
        jobs.include(tasks)
    jobs.include(router)


def _bad_functions() -> dict[str, tuple[Callable[[TaskRouter], object], str]]:
    async def misplaced(email: str, job: JobContext) -> None: ...

    async def unannotated(email) -> None: ...  # type: ignore[no-untyped-def]

    async def catch_all(*args: int) -> None: ...

    async def keywords(**kwargs: int) -> None: ...

    async def opaque(connection: sqlite3.Connection) -> None: ...

    async def generator() -> Any:
        yield 1

    @dataclass
    class Service:
        async def __call__(self) -> None: ...

    return {
        "lambda": (lambda r: r.task(lambda: None), "write a def, or name=..."),
        "misplaced JobContext": (lambda r: r.task(misplaced), "as the first parameter"),
        "unannotated": (lambda r: r.task(unannotated), "write `email: str`"),
        "*args": (lambda r: r.task(catch_all), "name each one"),
        "**kwargs": (lambda r: r.task(keywords), "name each one"),
        "no schema": (lambda r: r.task(opaque), "pydantic has no schema for Connection"),
        "generator": (lambda r: r.task(generator), "is a generator"),
        "callable object": (lambda r: r.task(Service()), "a task is a function"),
        "bad name": (lambda r: r.task(name="a b")(send.spec.fn), "is not a name"),
        "name as argument": (lambda r: r.task(cast("Any", "send")), "write @task(name='send')"),
        "bad queue": (lambda r: r.task(queue="a b")(generator), "is not a name"),
        "timeout 0": (lambda r: r.task(timeout=0)(generator), "timeout=0"),
        "max_attempts 0": (lambda r: r.task(max_attempts=0)(send.spec.fn), "max_attempts"),
    }


@pytest.mark.parametrize("case", _bad_functions())
def test_function_that_cannot_be_a_task_is_refused_with_what_to_write(case: str) -> None:
    declare, said = _bad_functions()[case]
    with pytest.raises(InvalidTask) as refused:
        declare(TaskRouter())
    assert said in str(refused.value)


def _bad_strategies() -> dict[str, tuple[dict[str, Any], str]]:
    async def later(state: Any) -> bool:
        return True

    async def ask(error: BaseException) -> bool:
        return True

    return {
        "coroutine predicate": ({"retry": tenacity.retry_if_exception(ask)}, "not awaited"),  # type: ignore[arg-type]
        "coroutine retry": ({"retry": later}, "not awaited"),
        "coroutine wait": ({"wait": later}, "not awaited"),
        "coroutine stop": ({"stop": later}, "not awaited"),
        "a Retrying object": ({"retry": tenacity.Retrying()}, "sleeps by itself"),
        "an AsyncRetrying object": ({"wait": tenacity.AsyncRetrying()}, "sleeps by itself"),
        "a strategy that sleeps": (
            {"wait": tenacity.sleep_using_event(__import__("threading").Event())},
            "decorates or sleeps",
        ),
        "a class": ({"wait": tenacity.wait_fixed}, "no strategy"),
        "a number": ({"wait": 5}, "no strategy"),
        "the wrong kind": ({"wait": tenacity.stop_after_attempt(3)}, "this is a stop strategy"),
    }


@pytest.mark.parametrize("case", _bad_strategies())
def test_strategy_that_cannot_be_asked_is_refused_with_an_example(case: str) -> None:
    options, said = _bad_strategies()[case]
    (role,) = options
    with pytest.raises(InvalidTask) as refused:
        TaskRouter().task(**options)(send.spec.fn)
    assert said in str(refused.value)
    assert f"write for example {role}=" in str(refused.value)


# -- the words of other job queues -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("delay", "await send.enqueue(...)"),
        ("apply_async", "await send.options(delay=60).enqueue(...)"),
        ("kiq", "await send.enqueue(...)"),
        ("kicker", "await send.options(delay=60).enqueue(...)"),
        ("defer", "await send.enqueue(...)"),
        ("defer_async", "await send.enqueue(...)"),
        ("configure", "await send.options(delay=60).enqueue(...)"),
        ("send", "await send.enqueue(...)"),
        ("s", "send.call(...)"),
    ],
)
def test_attribute_of_another_queue_s_task_is_answered_with_our_line(word: str, line: str) -> None:
    with pytest.raises(AttributeError) as refused:
        getattr(send, word)
    assert line in str(refused.value)
    assert not hasattr(send, "nonsense")


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("enqueue_job", "await jobs.enqueue(task, ...)"),
        ("send_task", "await jobs.enqueue(task, ...)"),
        ("get_job", "await jobs.get(id)"),
        ("revoke", "await jobs.cancel(id)"),
    ],
)
async def test_attribute_of_another_queue_is_answered_with_our_line(
    jobs: JobRunner, word: str, line: str
) -> None:
    with pytest.raises(AttributeError) as refused:
        getattr(jobs, word)
    assert line in str(refused.value)
    async with jobs.running(work=False):
        with pytest.raises(AttributeError) as refused:
            getattr(await jobs.queue(), word)
        assert line.replace("jobs.", "queue.") in str(refused.value)


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("countdown", "delay=..."),
        ("eta", "run_at=..."),
        ("_defer_by", "delay=..."),
        ("_defer_until", "run_at=..."),
        ("_job_id", "key=..."),
        ("queueing_lock", "key=..."),
        ("max_retries", "max_attempts=..."),
        ("max_tries", "max_attempts=..."),
        ("schedule_in", "delay=..."),
    ],
)
def test_option_of_another_queue_is_answered_with_our_word(word: str, ours: str) -> None:
    options: dict[str, Any] = {word: 1}
    with pytest.raises(TypeError) as refused:
        send.options(**options)
    assert ours in str(refused.value)
    with pytest.raises(TypeError):
        TaskRouter().task(**options)


@pytest.mark.parametrize("kind", [Retry, Snooze])
@pytest.mark.parametrize(
    ("word", "ours"), [("defer", "delay"), ("countdown", "delay"), ("eta", "run_at")]
)
def test_word_of_another_queue_to_steer_is_answered_with_ours(
    kind: type[Retry | Snooze], word: str, ours: str
) -> None:
    options: dict[str, Any] = {word: 1}
    with pytest.raises(TypeError, match=rf"write {kind.__name__}\({ours}=\.\.\.\)"):
        kind(**options)


def test_steering_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(TypeError, match="not both"):
        Retry(5, run_at=datetime(2026, 1, 1))  # noqa: DTZ001 - any will do
    with pytest.raises(TypeError, match="for how long"):
        Snooze()


# -- files -----------------------------------------------------------------------------------------------


async def opening(file: Path) -> None:
    async with JobRunner(file).running():
        pass


async def test_file_that_is_not_sqlite_is_refused_and_left_as_it_is(tmp_db: Path) -> None:
    tmp_db.write_text("dear diary, " * 1000)
    before = tmp_db.read_bytes()
    with pytest.raises(StoreFailed, match="is not an SQLite database"):
        await opening(tmp_db)
    assert tmp_db.read_bytes() == before


async def test_file_of_a_later_version_is_refused(tmp_db: Path) -> None:
    await opening(tmp_db)
    with sqlite3.connect(tmp_db) as conn:
        conn.execute("UPDATE jobrunner_meta SET value = 999 WHERE name = 'schema_version'")
        changed = conn.total_changes
    conn.close()
    assert changed == 1
    with pytest.raises(StoreFailed, match="version 999"):
        await opening(tmp_db)


async def test_file_that_is_a_directory_is_refused(new_db: Path) -> None:
    new_db.mkdir()
    with pytest.raises(StoreError, match="is a directory; name a file in it"):
        await opening(new_db)


async def test_file_in_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a directory; make it first"):
        await opening(tmp_path / "a" / "jobs.db")


async def test_file_on_a_network_file_system_is_refused(
    new_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = new_db.with_name("mountinfo")
    table.write_text(f"22 1 0:21 / {new_db.parent} rw,relatime - nfs4 server:/share rw\n")
    monkeypatch.setattr(identity, "_MOUNTINFO", table)
    with pytest.raises(StoreFailed, match=r"network file system \(nfs4\)"):
        await opening(new_db)
    assert not new_db.exists()
