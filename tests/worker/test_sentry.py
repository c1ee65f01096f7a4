"""The recipe of docs/monitoring.md with the real sentry-sdk: events that group by error, and scopes that do not mix."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.processes import CHECKOUT

PROGRAM = """
import asyncio, json
from collections.abc import AsyncIterator
import sentry_sdk
from jobrunner import JobContext, JobRunner

def tell(kind):
    return lambda event, hint: print(json.dumps([kind, event], default=str))

sentry_sdk.init(
    dsn="http://x@127.0.0.1:9/1", traces_sample_rate=1.0,
    before_send=tell("event"), before_send_transaction=tell("transaction"),
)
sentry_sdk.set_tag("service", "shop")
jobs = JobRunner("sqlite:///case.db", queues={"default": 1})
RECIPE

@jobs.task(max_attempts=1)
async def one() -> None:
    sentry_sdk.set_tag("tenant", "acme")
    raise ValueError("a")

@jobs.task(max_attempts=1)
def two() -> None:
    sentry_sdk.set_tag("thread", "yes")
    raise KeyError("b")

@jobs.task(max_attempts=1, timeout=0.05)
async def three() -> None:
    await asyncio.Event().wait()

async def main():
    async with jobs.running():
        for task in (one, two, three):
            job = await task.enqueue()
            try:
                await job.result(timeout=20)
            except Exception:
                pass

asyncio.run(main())
"""


def told(folder: Path, recipe: str) -> list[list[Any]]:
    """Run the program in a new process, which Sentry changes permanently; return the events for Sentry."""
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("RECIPE", recipe)],
        cwd=folder,
        env={"PYTHONPATH": str(CHECKOUT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in answer.stdout.splitlines()]


def recipe_of_the_docs() -> str:
    text = (CHECKOUT / "docs" / "monitoring.md").read_text()
    (recipe,) = re.findall(r"```python\n(import sentry_sdk.*?)```", text, re.DOTALL)
    return str(recipe)


def test_case_09_errors_group_by_exception_and_tags_stay_with_their_job(tmp_path: Path) -> None:
    sent = told(tmp_path, recipe_of_the_docs())
    events = [event for kind, event in sent if kind == "event"]
    transactions = [event for kind, event in sent if kind == "transaction"]

    found = [event["exception"]["values"][-1] for event in events]
    assert [one["type"] for one in found] == ["ValueError", "KeyError", "TimedOut"]
    # What Sentry groups by: the frames of the application, with nothing of ours around them.
    assert [one["stacktrace"]["frames"][0]["function"] for one in found] == ["one", "two", "three"]
    assert len({event["logentry"]["message"] for event in events}) == 1

    tags = [event["tags"] for event in events]
    assert tags[0] == {"service": "shop", "task": "one", "tenant": "acme"}
    assert tags[1] == {"service": "shop", "task": "two", "thread": "yes"}
    assert tags[2] == {"service": "shop", "task": "three"}
    assert [event["contexts"]["job"]["attempt"] for event in events] == [1, 1, 1]

    assert [one["transaction"] for one in transactions] == ["one", "two", "three"]
    traces = [one["contexts"]["trace"] for one in transactions]
    assert len({one["trace_id"] for one in traces}) == 3
    assert {one["op"] for one in traces} == {"queue.task"}
    # An event belongs to the transaction of its attempt.
    assert [e["contexts"]["trace"]["trace_id"] for e in events] == [t["trace_id"] for t in traces]


def test_errors_group_by_exception_also_without_the_recipe(tmp_path: Path) -> None:
    events = [event for kind, event in told(tmp_path, "") if kind == "event"]
    kinds = [event["exception"]["values"][-1]["type"] for event in events]
    assert kinds == ["ValueError", "KeyError", "TimedOut"]
