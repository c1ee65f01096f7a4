"""Processes without the extra for traces, without an SDK, or with a late one."""

import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import trace

from jobrunner import ConfigurationError, JobContext, JobRunner
from jobrunner.opentelemetry import instrument
from tests.support.processes import CHECKOUT


def test_second_instrument_is_refused(traced: JobRunner) -> None:
    with pytest.raises(ConfigurationError, match="already"):
        instrument(traced)


# -- without the extra, and without an SDK ------------------------------------------------------------------

PROGRAM = """
import asyncio, sys
from jobrunner import JobRunner

jobs = JobRunner("case.db")

@jobs.task
async def work() -> None: ...

async def main():
    async with jobs.running():
        await (await work.enqueue()).result(timeout=30)

asyncio.run(main())
print([name for name in sys.modules if name.startswith(("opentelemetry", "prometheus_client"))])
"""

WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
sys.modules["opentelemetry.trace"] = None
try:
    import jobrunner.opentelemetry
except Exception as error:
    print(type(error).__name__, error)
"""


def run(program: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={"PYTHONPATH": str(CHECKOUT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_runner_imports_neither_opentelemetry_nor_prometheus(tmp_path: Path) -> None:
    assert run(PROGRAM, tmp_path) == "[]\n"


def test_import_without_the_extra_names_the_line_to_write(tmp_path: Path) -> None:
    assert run(WITHOUT, tmp_path) == (
        "ConfigurationError traces need opentelemetry-api: write pip install"
        " 'fastapi-jobrunner[opentelemetry]'\n"
    )


async def test_instrumented_runner_without_an_sdk_runs_and_stores_no_context(
    jobs: JobRunner,
) -> None:
    instrument(jobs)

    @jobs.task
    async def work(job: JobContext) -> bool:
        return trace.get_current_span().get_span_context().is_valid

    async with jobs.running():
        job = await work.enqueue()
        assert await job.result(timeout=30) is False
        assert (await job.refresh()).trace_id is None


LATER = """
import asyncio
import time
from unittest.mock import patch
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from jobrunner import JobRunner
from jobrunner.opentelemetry import instrument

jobs = JobRunner("case.db")
instrument(jobs)

@jobs.task
async def work() -> None: ...

async def main():
    async with jobs.running():
        await (await work.enqueue()).result(timeout=30)
        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        jobs._hooks.tracing._asked_at_s -= 1  # as a second later
        # After the wall clock was set back by an hour.
        real = time.time_ns
        with patch("time.time_ns", lambda: real() - 3600 * 10**9):
            await (await work.enqueue()).result(timeout=30)
    print(sorted(span.name for span in exporter.get_finished_spans()))

asyncio.run(main())
"""


def test_sdk_that_is_set_up_later_is_found(tmp_path: Path) -> None:
    """In a new process, since the global provider is set once for all."""
    assert run(LATER, tmp_path) == "['process work', 'send work']\n"
