"""Imports an application by name and finds its runner."""

import contextlib
import gc
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobrunner.cli.exit_codes import say_traceback
from jobrunner.cli.location import Target
from jobrunner.core.errors import AmbiguousRunner, ConfigurationError
from jobrunner.runner.runner import JobRunner, made
from jobrunner.store.open import location_of


def load(target: Target) -> Any:
    """Import the application or runner that a target names, or call its factory.

    Raises:
        ConfigurationError: The application cannot be loaded. An exception from its code is printed first.
    """
    with _no_collecting():
        return _make(target)


@contextlib.contextmanager
def _no_collecting() -> Iterator[None]:
    """Turn garbage collection off during an import.

    Imports make hardly any garbage, and collecting took a tenth of their time.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _make(target: Target) -> Any:
    found = _find(target.name)
    if target.factory:
        if not callable(found):
            raise ConfigurationError(f"{target.name} cannot be called; leave out --factory")
        try:
            found = found()
        except Exception as error:
            say_traceback()
            raise ConfigurationError(f"{target.name}() failed, see above") from error
    elif inspect.isfunction(found):
        raise ConfigurationError(
            f"{target.name} is a function; if it makes the application, add --factory"
        )
    return found


def _find(name: str) -> Any:
    module_name, separator, path = name.partition(":")
    if not (separator and module_name and path):
        raise ConfigurationError(
            f"{name!r} is not the name of an application; write module:name, as in shop.main:app"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        # A script's path begins with the folder of the script. Names are relative to the working directory, as in
        # uvicorn.
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(
            f"{error.name}."
        ):
            raise ConfigurationError(
                f"there is no module {error.name} here ({here}) or on the path"
            ) from error
        say_traceback()
        raise ConfigurationError(f"{module_name} cannot be imported, see above") from error
    except Exception as error:
        say_traceback()
        raise ConfigurationError(f"{module_name} cannot be imported, see above") from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise ConfigurationError(f"{module_name} has no {path}") from error
    return found


def load_runner(target: Target) -> JobRunner:
    """Load an application and return the runner that it made.

    Raises:
        ConfigurationError: The application cannot be loaded, or makes no runner.
        AmbiguousRunner: The application makes several runners.
    """
    before = set(made)
    loaded = load(target)
    if isinstance(loaded, JobRunner):
        return loaded
    if len(made) > 1:
        gc.collect()  # forget a runner that was made and dropped during the import
    # If the module was imported before this call, as in a test, its runner was made then.
    found = list(set(made) - before) or list(made)
    if not found:
        raise ConfigurationError(
            f"{target.name} makes no JobRunner; name one, or give --store in its place"
        )
    if len(found) > 1:
        stores = ", ".join(sorted(location_of(runner.settings.store) for runner in found))
        raise AmbiguousRunner(
            f"{target.name} makes {len(found)} runners ({stores}); name one (--app module:jobs), or give --store in"
            " its place"
        )
    return found[0]
