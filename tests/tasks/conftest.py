"""A router for the tasks of a test."""

import pytest

from jobrunner.tasks.router import TaskRouter


@pytest.fixture
def router() -> TaskRouter:
    return TaskRouter()
