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
    left = [*_ours(thing)]
    while left:
        one = left.pop()
        if any(one is starter for starter in STARTERS):
            return True
        if id(one) not in seen and id(one) not in _harmless:
            seen[id(one)] = one
            names, meant = _used_by(one)
            if names & STARTS:
                return True
            left.extend(meant)
    _harmless.update(seen)
    return False


@cache
def _used_by(thing: Any) -> tuple[frozenset[str], tuple[object, ...]]:
    """Return the names in a function's code, and what they mean there; of a class, what it is made of.

    Left out is all that is no starter and was not written for the tests.
    """
    if isinstance(thing, type):
        names, meant = frozenset[str](), [*vars(thing).values(), *thing.__bases__]
    else:
        names = frozenset(_names(thing.__code__))
        meant = [thing.__globals__[name] for name in names if name in thing.__globals__]
        modules = [vars(one) for one in meant if isinstance(one, ModuleType)]
        meant += [module[name] for module in modules for name in names & module.keys()]
    return names, tuple(found for one in meant for found in _ours(one))


def _ours(one: object) -> Iterator[object]:
    """Yield a starter, or the function or class itself of one that is of the tests."""
    if isinstance(one, staticmethod | classmethod):
        one = one.__func__
    if isinstance(one, FunctionType):
        one = inspect.unwrap(one)
    if any(one is starter for starter in STARTERS) or (
        isinstance(one, FunctionType | type) and one.__module__.startswith("tests.")
    ):
        yield one


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
