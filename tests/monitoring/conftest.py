"""A runner that is traced, and its spans."""

import pytest

from jobrunner import JobRunner
from jobrunner.opentelemetry import instrument
from tests.support.traces import Traces


@pytest.fixture
def traces() -> Traces:
    return Traces()


@pytest.fixture
def traced(jobs: JobRunner, traces: Traces) -> JobRunner:
    instrument(jobs, tracer_provider=traces.provider)
    return jobs
