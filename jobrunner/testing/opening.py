"""Opens the application or runner that a tester tests."""

import inspect
from collections.abc import Callable
from typing import Any

from jobrunner.core.errors import ConfigurationError
from jobrunner.runner.runner import JobRunner


def opener_of(subject: Any) -> tuple[Any, Callable[[], Any]]:
    """Return the application or runner under test, and a function that opens it.

    Args:
        subject: A ``JobRunner``, an application with a lifespan, or a function that makes one of them.

    Raises:
        ConfigurationError: The subject is none of these.
    """
    if isinstance(subject, JobRunner):
        return subject, subject.running
    lifespan = getattr(getattr(subject, "router", None), "lifespan_context", None)
    if lifespan is not None:
        return subject, lambda: lifespan(subject)
    if callable(subject) and (inspect.isfunction(subject) or inspect.ismethod(subject)):
        return opener_of(subject())
    raise ConfigurationError(
        f"a tester takes an application, a JobRunner, or a function that makes one, not {subject!r}"
    )
