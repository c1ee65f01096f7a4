"""Marks public classes with the module that users import them from."""

from typing import TypeVar

T = TypeVar("T")


def exported(cls: type[T]) -> type[T]:
    """Set a public class's ``__module__`` to ``jobrunner``, for tracebacks and pickles.

    Both then hold when the class moves to another module.
    """
    cls.__module__ = "jobrunner"
    return cls
