"""Sets the module name of public classes to the one that users import from."""

from typing import TypeVar

T = TypeVar("T")


def exported(cls: type[T]) -> type[T]:
    """Set a public class's ``__module__`` to ``jobrunner``, for tracebacks and pickles.

    Neither changes when the class moves to another module.
    """
    cls.__module__ = "jobrunner"
    return cls
