"""Finds out which tests start processes: those whose code, through helpers and fixtures, names what starts one."""

import asyncio
import inspect
import multiprocessing
import os
import subprocess
from collections.abc import Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

import pytest

STARTERS: Final = (subprocess, multiprocessing, asyncio.subprocess, os.fork)
"""The modules and functions that start a process; ``STARTS`` finds their other names."""
STARTS: Final = {"create_subprocess_exec", "fork", "forkpty", "posix_spawn"}
"""Names of attributes that do."""


def starts_processes(item: pytest.Item) -> bool:
    """Return whether a test, one of its fixtures or of its parameters starts a process."""
    if not isinstance(item, pytest.Function):
        return False
    fixtures = (
        definition.func
        for definitions in item._fixtureinfo.name2fixturedefs.values()
        for definition in definitions[-1:]
    )
    given = item.callspec.params.values() if hasattr(item, "callspec") else ()
    parameters = (one for one in given if isinstance(one, FunctionType | type))
    return any(_starts(thing) for thing in (item.function, *fixtures, *parameters))


_harmless: Final[dict[int, object]] = {}
"""By id, functions and classes from which no starter can be reached."""


@cache
def _starts(thing: object) -> bool:
    seen: dict[int, object] = {}
    left = [thing]
    while left:
        one = left.pop()
        if any(one is starter for starter in STARTERS):
            return True
        if isinstance(one, staticmethod | classmethod):
            one = one.__func__
        if isinstance(one, FunctionType):
            one = inspect.unwrap(one)
        ours = isinstance(one, FunctionType | type) and one.__module__.startswith("tests.")
        if ours and id(one) not in seen and id(one) not in _harmless:
            seen[id(one)] = one
            names, meant = _used_by(one)
            if names & STARTS:
                return True
            left.extend(meant)
    _harmless.update(seen)
    return False


@cache
def _used_by(thing: Any) -> tuple[frozenset[str], tuple[object, ...]]:
    """Return the names in a function's code, and what they mean there; of a class, what it is made of."""
    if isinstance(thing, type):
        return frozenset(), (*vars(thing).values(), *thing.__bases__)
    names = frozenset(_names(thing.__code__))
    meant = [thing.__globals__[name] for name in names if name in thing.__globals__]
    of_modules = [
        vars(one).get(name) for one in meant if isinstance(one, ModuleType) for name in names
    ]
    return names, (*meant, *of_modules)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
