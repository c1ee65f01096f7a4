"""The set-ups of the log in the documentation, each in a process with real loggers: the job on every line of a task."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.processes import CHECKOUT

PROGRAM: Final = """
import asyncio, logging, os, signal
from contextlib import asynccontextmanager
from fastapi import FastAPI
from tenacity import wait_none
from jobrunner import JobRunner
SETUP
jobs = globals().get("jobs") or JobRunner("sqlite:///shop.db")
log = GET_LOGGER("shop.orders")

@jobs.task(max_attempts=2, wait=wait_none())
async def one() -> None:
    log.info("in one")
    await asyncio.create_task(inner())
    raise ValueError("no luck")

async def inner() -> None:
    log.info("in a subtask")

@jobs.task
def two() -> None:
    log.info("in a thread")

@asynccontextmanager
async def lifespan(app):
    async with jobs.running(app):
        log.info("outside")
        for task in (two, one):
            job = await task.enqueue()
            print(job.id, flush=True)
            try:
                await job.result(timeout=30)
            except Exception:
                pass
        log.info("outside again")
        os.kill(os.getpid(), signal.SIGTERM)
        yield

app = FastAPI(lifespan=lifespan)
"""

SERVED: Final = ("-m", "uvicorn", "case:app", "--port", "0")


def logged(
    folder: Path, setup: str = "", *, get: str = "logging.getLogger", config: str | None = None
) -> tuple[Mapping[str, str], Sequence[str]]:
    """Run the program under plain uvicorn; return the ids of its jobs by task, and its lines on standard error."""
    program = PROGRAM.replace("SETUP", setup).replace("GET_LOGGER", get)
    (folder / "case.py").write_text(program)
    command = [sys.executable, *SERVED]
    if config is not None:
        (folder / "log.json").write_text(config)
        command += ["--log-config", "log.json"]
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PYTHONPATH": f"{CHECKOUT}:{folder}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (0, -signal.SIGTERM), done.stderr
    two, one = done.stdout.split()
    return {"one": one, "two": two}, done.stderr.splitlines()


def block(page: str, language: str, mark: str) -> str:
    """Return the one block of a page that has a text in it."""
    text = (CHECKOUT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(rf"```{language}[^\n]*\n(.*?)```", text, re.DOTALL)
    (found,) = (one for one in blocks if mark in one)
    return str(found)


INSIDE: Final = [("in a thread", "two", 1)] + [
    (text, "one", attempt) for attempt in (1, 2) for text in ("in one", "in a subtask")
]
FAILURES: Final = [("one {} failed in attempt 1", "one", 1), ("one {} is a dead letter", "one", 2)]


@pytest.mark.parametrize(
    ("setup", "config"),
    [
        ("", lambda: block("deploy.md", "json", "JobLogFilter")),
        (lambda: block("monitoring.md", "python", "%(job)s"), None),
    ],
    ids=["a file for uvicorn", "in the program"],
)
def test_text_has_the_job_on_every_line_inside_a_task(
    tmp_path: Path, setup: Any, config: Any
) -> None:
    ids, lines = logged(tmp_path, setup and setup(), config=config and config())
    for text, task, attempt in INSIDE:
        job = f"shop.orders task={task} attempt={attempt} job_id={ids[task]}: {text}"
        assert sum(line.endswith(job) for line in lines) == 1, lines
    for text, task, attempt in FAILURES:
        job = f"jobrunner task={task} attempt={attempt} job_id={ids[task]}: "
        assert sum(job + text.format(ids[task]) in line for line in lines) == 1, lines
    assert sum(line.endswith("shop.orders: outside") for line in lines) == 1
    assert sum(line.endswith("shop.orders: outside again") for line in lines) == 1


def in_json(lines: Sequence[str], message: str) -> list[tuple[str, object, object, object, bool]]:
    """Return message, task, attempt and job of each line, and whether it has a traceback."""
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [
        (
            *(one[message], one.get("task"), one.get("attempt"), one.get("job_id")),
            "ValueError" in str(one.get("traceback", one.get("exception", ""))),
        )
        for one in found
    ]


@pytest.mark.parametrize(
    ("mark", "get", "message"),
    [
        ("class JsonFormatter", "logging.getLogger", "message"),
        ("import structlog", "structlog.stdlib.get_logger", "event"),
        ("import structlog", "logging.getLogger", "event"),
    ],
    ids=["json", "structlog", "structlog and other loggers"],
)
def test_json_has_the_job_on_every_line_inside_a_task(
    tmp_path: Path, mark: str, get: str, message: str
) -> None:
    ids, lines = logged(tmp_path, block("monitoring.md", "python", mark), get=get)
    found = in_json(lines, message)
    for text, task, attempt in INSIDE:
        assert found.count((text, task, attempt, ids[task], False)) == 1, found
    for text, task, attempt in FAILURES:
        begun = text.format(ids[task])
        alike = [one for one in found if one[0].startswith(begun)]
        assert [one[1:] for one in alike] == [(task, attempt, ids[task], True)], found
    for text in ("outside", "outside again"):
        assert found.count((text, None, None, None, False)) == 1, found
