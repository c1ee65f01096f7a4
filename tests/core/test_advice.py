"""Error messages name what to write: that it exists, that it is Python, and that it runs on the oldest Python."""

import ast
import builtins
import inspect
import re
import sqlite3
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import click
import fastapi
import pytest
import tenacity

import jobrunner
import jobrunner.fastapi
import jobrunner.sqlalchemy
import jobrunner.testing
from jobrunner import InvalidOptions, Job, JobRunner
from jobrunner.cli.main import command_group
from jobrunner.core import hints
from jobrunner.queue.job_batches import JobBatches
from jobrunner.queue.queue import enqueuer_of
from jobrunner.queue.schedules import Schedules
from jobrunner.store.committer import ROWS_PER_CALL
from jobrunner.tasks.options import JOB_OPTIONS, TASK_OPTIONS
from jobrunner.tasks.retry import _EXAMPLES
from jobrunner.tasks.router import TaskRouter
from jobrunner.tasks.schedule_options import ScheduleOptions
from jobrunner.worker.settings import RUNNER_OPTIONS
from tests.support.contexts import context

PACKAGE = Path(jobrunner.__file__).parent
OLDEST = (3, 11)
HOLE = "x"
"""Stands where a message has a value."""


def _texts_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    texts: list[ast.Constant | ast.JoinedStr] = []
    no_texts: set[int] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str()):
                texts.append(node)
            case ast.JoinedStr():
                texts.append(node)
                no_texts.update(map(id, node.values))
            case ast.Expr(value=ast.Constant() as docstring):
                no_texts.add(id(docstring))
            case ast.Call(func=ast.Name(id="doc")):
                # Descriptions for JSON schemas, which are in Markdown.
                no_texts.update(
                    id(part) for part in ast.walk(node) if isinstance(part, ast.Constant)
                )
    for text in texts:
        if isinstance(text, ast.JoinedStr):
            pieces = (
                str(part.value) if isinstance(part, ast.Constant) else HOLE for part in text.values
            )
            yield text.lineno, "".join(pieces)
        elif id(text) not in no_texts:
            yield text.lineno, str(text.value)


@cache
def texts() -> list[tuple[str, str]]:
    """Return every text of the package that is no docstring, and where it stands."""
    return [
        (f"{path.relative_to(PACKAGE)}:{line}", _filled(text))
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in _texts_of(
            ast.parse(path.read_text(encoding="utf-8"), feature_version=OLDEST)
        )
    ]


def _filled(text: str) -> str:
    """Return a text of the table of foreign words as a user reads it."""
    return text.replace("{name}", HOLE).replace("{word}", HOLE)


# -- what is written in backticks is Python -----------------------------------------------------------

COMMANDS = ("jobrunner ", "chmod ", "chown ")
"""The first words of lines for a shell."""
MARKDOWN = ("fastapi/",)
"""Descriptions for the OpenAPI page, where backticks hold JSON."""


def _fragments() -> Iterator[tuple[str, str]]:
    for place, text in texts():
        if not place.startswith(MARKDOWN):
            for fragment in re.findall(r"`([^`]+)`", text):
                yield place, fragment


def _is_python(fragment: str) -> bool:
    forms = (
        fragment,
        f"{fragment}\n    pass",  # `async with jobs.running():`
        f"{fragment}: pass",  # `def wrapper(*args, **kwargs)`, `if TYPE_CHECKING`
        f"{fragment}(): pass",  # `async def wrapper`
        f"{fragment}\ndef f(): pass",  # `@functools.wraps(fn)`
        f"def f({fragment.removeprefix('= ') if fragment.startswith('= ') else fragment}): pass",
        f"x {fragment}",  # `= Injected`
        f"{fragment.replace(HOLE, 'async def', 1)}: pass",  # `{def} wrapper(*args, **kwargs)`
    )
    for form in forms:
        try:
            ast.parse(
                f"async def outer():\n{textwrap.indent(form, '    ')}", feature_version=OLDEST
            )
        except SyntaxError:
            continue
        return True
    return fragment in {"async", "def", "async def", "yield", "await", "/", f"{HOLE} {HOLE}"}


def test_what_messages_write_in_backticks_is_python() -> None:
    fragments = list(_fragments())
    assert len(fragments) > 60, "the messages were found"
    wrong = [
        (place, text)
        for place, text in fragments
        if not (_is_python(text) or text.startswith(COMMANDS))
    ]
    assert wrong == []


def test_check_of_fragments_refuses_what_is_no_python() -> None:
    assert not _is_python("for each call")
    assert not _is_python("write include()")
    assert _is_python("async with jobs.running(app):")


# -- what is named exists -----------------------------------------------------------------------------

SQL = ("store/sqlite/", "store/postgres/")
CHAIN = re.compile(r"(?<![\w.-])(jobs|queue|job|task|router)((?:\.[A-Za-z_]\w*)+)")


async def test_attributes_that_messages_name_exist(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def work() -> None: ...

    wrong = []
    seen = set()
    async with jobs.running(work=False):
        queue = await jobs.queue()
        in_batch = context()
        in_batch._batches = JobBatches(enqueuer_of(queue))
        roots: dict[str, tuple[object, ...]] = {
            "jobs": (jobs,),
            "queue": (queue,),
            "job": (await jobs.enqueue(work), in_batch),
            "task": (work,),
            "router": (jobs,),
        }
        for place, text in texts():
            for root, rest in CHAIN.findall(text):
                if place.startswith(SQL) or rest in (".db", ".py") or f".{HOLE}" in rest:
                    continue
                seen.add(root + rest)
                if not any(_resolves(one, rest) for one in roots[root]):
                    wrong.append((place, root + rest))
    assert wrong == []
    assert {"jobs.schedules.upsert", "queue.enqueue_many", "job.attempt"} <= seen


def test_modules_of_python_that_messages_name_have_it() -> None:
    """``itertools.batched`` came with 3.12."""
    named = {
        (module, name)
        for _, text in texts()
        for module, name in re.findall(r"(?<![\w.])([a-z]+)\.([a-z_]\w*)\b", text)
        if module in sys.stdlib_module_names - {"queue", "token", "http"}
    }
    assert {("asyncio", "to_thread"), ("functools", "wraps")} <= named
    assert [one for one in named if not hasattr(import_module(one[0]), one[1])] == []


def _resolves(value: object, chain: str) -> bool:
    for name in chain.split(".")[1:]:
        try:
            value = getattr(value, name)
        except AttributeError:
            return False
    return True


def _tables() -> Iterator[str]:
    for rows in hints.FOREIGN_WORDS.values():
        yield from (_filled(row.ours) for row in rows)


def _names_of(*calls: Callable[..., Any]) -> set[str]:
    return {name for call in calls for name in inspect.signature(call).parameters}


def test_functions_and_classes_that_answers_to_foreign_words_name_exist() -> None:
    known = [builtins, jobrunner, jobrunner.fastapi, jobrunner.testing, tenacity, fastapi]
    named = {
        name for text in _tables() for name in re.findall(r"(?<![\w.@])([A-Za-z_]\w*)\(", text)
    }
    named -= {HOLE, "timedelta", "task", "every", "cron"}
    assert {"wait_exponential_jitter", "retry_if_exception_type", "Retry", "JobRunner"} <= named
    assert [one for one in named if not any(hasattr(module, one) for module in known)] == []


def test_options_that_answers_to_foreign_words_name_exist() -> None:
    ours = _names_of(
        JobRunner, TaskRouter, TaskRouter.cron, TaskRouter.every, Schedules.upsert, Job.result,
        tenacity.wait_exponential_jitter, fastapi.FastAPI, jobrunner.Concurrency, jobrunner.Rate,
        JobRunner.enqueue_batch,
    ) | TASK_OPTIONS | JOB_OPTIONS | RUNNER_OPTIONS  # fmt: skip
    ours |= get_type_hints(ScheduleOptions).keys() | {"days", "weeks"}
    named = {name for text in _tables() for name in re.findall(r"\b(\w+)=", text)}
    assert {"max_attempts", "run_at", "misfire", "queues", "every"} <= named
    assert named - ours - {HOLE} == set()


@pytest.mark.parametrize("role", _EXAMPLES)
def test_strategies_that_are_told_are_taken(role: str) -> None:
    given: Any = eval(f"dict({_EXAMPLES[role]})", vars(tenacity).copy())  # noqa: S307
    TaskRouter(**given)


def _commands(group: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    for name, command in getattr(group, "commands", {}).items():
        yield from _commands(command, (*words, name))


def test_commands_that_messages_name_exist() -> None:
    known = set(_commands(command_group()))
    heads = {words[:1] for words in known if words}
    found = 0
    for place, text in texts():
        for words in re.findall(r"\bjobrunner ((?:[a-z]+ ?)+)", text):
            first, *rest = words.split()
            if (first,) not in heads:
                continue
            found += 1
            leaf = not any(words[:1] == (first,) and len(words) > 1 for words in known)
            assert leaf or (first, rest[0]) in known, (place, words)
    assert found >= 3


# -- what is told runs --------------------------------------------------------------------------------


async def test_line_for_too_many_calls_runs_as_it_is_told(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def work(n: int) -> None: ...

    async with jobs.running(work=False):
        calls = [work.call(n) for n in range(ROWS_PER_CALL + 1)]
        with pytest.raises(InvalidOptions, match="once per slice") as caught:
            await jobs.enqueue_many(calls)
        (line,) = re.findall(r"`([^`]+)`", str(caught.value))
        names: dict[str, Any] = {"calls": calls, "queue": await jobs.queue()}
        code = compile(f"async def told():\n    {line}", "told", "exec", dont_inherit=True)
        exec(code, names)  # noqa: S102
        await names["told"]()
        with closing(sqlite3.connect(tmp_db)) as conn:
            (stored,) = conn.execute("SELECT count(*) FROM jobrunner_jobs").fetchone()
        assert stored == ROWS_PER_CALL + 1


async def test_lines_for_words_of_other_results_run_as_they_are_told(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task(max_attempts=1)
    async def work() -> None:
        raise ValueError("no")

    async with jobs.running():
        job = await jobs.enqueue(work)
        with pytest.raises(jobrunner.JobDead):
            await job.result(10)
        for word, answer in (("status", "dead"), ("error", "no")):
            with pytest.raises(AttributeError) as caught:
                getattr(job, word)
            line = str(caught.value).partition("write ")[2]
            names: dict[str, Any] = {"job": job}
            exec(f"async def told():\n    return {line}", names)  # noqa: S102
            assert answer in await names["told"]()


def test_runner_option_for_a_limit_says_that_slots_are_per_process() -> None:
    words: Any = {"concurrency": 1}
    with pytest.raises(TypeError, match="the slots of each queue in one process"):
        JobRunner("sqlite:///unused.db", **words)


async def _work(job: jobrunner.JobContext) -> None: ...


@pytest.mark.parametrize("call", ["every", "cron"])
@pytest.mark.parametrize("word", ["days", "hour"])
def test_line_for_words_of_other_schedules_is_taken(call: str, word: str) -> None:
    first = {"every": 60, "cron": "@daily"}[call]
    words: Any = {word: 1}
    jobs = JobRunner("sqlite:///unused.db")
    with pytest.raises(TypeError) as caught:
        getattr(jobs, call)(first, **words)
    (line,) = re.findall(r"@(jobs\..*\)) above", str(caught.value))
    names: dict[str, Any] = {"jobs": jobs, "timedelta": lambda **_: timedelta(days=1)}
    eval(line.replace("...", "1"), names)(_work)  # noqa: S307
    assert list(jobs.declarations) == ["_work"]
