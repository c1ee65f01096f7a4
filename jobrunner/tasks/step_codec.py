"""Reads and writes what a job remembers, in the types that the code declares."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, get_args, get_origin
from weakref import WeakKeyDictionary

from jobrunner.core.errors import InvalidStep, InvalidTask, ResultNotStored, StepMismatch
from jobrunner.tasks.annotations import hints_of, place_of
from jobrunner.tasks.codec import ResultCodec

_AWAITABLE: Final = (Awaitable, Coroutine)
_EMPTY: Final = inspect.Signature.empty


class StepCodec:
    """Encodes values of one type as JSON text; None is ``null``.

    Args:
        source: The function or type that declares the type, for the errors.
        annotation: The type; ``inspect.Signature.empty`` stands for any.

    Raises:
        InvalidStep: Values of the type cannot be read back.
    """

    __slots__ = ("_codec",)

    def __init__(self, source: str, annotation: Any) -> None:
        try:
            self._codec = ResultCodec(source, annotation)
        except InvalidTask as error:
            raise InvalidStep(str(error)) from error

    def write(self, value: object, what: str) -> str:
        """Return a value as JSON text.

        Args:
            value: The value.
            what: The step, for the error.

        Raises:
            InvalidStep: The value would not come back unchanged, or is too large.
        """
        try:
            text = self._codec.encode(value)
            if text is None:
                text = "null"
                self._codec.decode(text)
        except ResultNotStored as error:
            raise InvalidStep(f"{what} ends with a value that cannot be stored: {error}") from error
        return text

    def read(self, text: str, what: str) -> Any:
        """Return the value of a JSON text.

        Args:
            text: The text; a signal from elsewhere may have aliases in it.
            what: The step and the line that helps, for the error.

        Raises:
            StepMismatch: The text does not fit the type.
        """
        try:
            return self._codec.decode(text, by_alias=True)
        except ResultNotStored as error:
            raise StepMismatch(f"{what}: {error}") from error


_codecs: Final["WeakKeyDictionary[Any, StepCodec]"] = WeakKeyDictionary()
"""The codecs of the results of functions: to make one takes a hundred times longer than a step."""
_cursors: Final["WeakKeyDictionary[Any, StepCodec]"] = WeakKeyDictionary()


@functools.cache
def _plain() -> StepCodec:
    """Return the codec of functions without annotations."""
    return StepCodec("a function without annotations", _EMPTY)


def codec_of_result(function: Callable[..., object]) -> StepCodec:
    """Return the codec of what a function returns, or of what its coroutine returns.

    Raises:
        InvalidStep: The annotation cannot be read, or values of its type cannot be read back.
    """
    source = _written(function)
    return _cached(_codecs, source, lambda: _result_of(source))


def codec_of_cursor(source: Callable[..., object]) -> StepCodec:
    """Return the codec of a source's first parameter; raises as ``codec_of_result``."""
    written = _written(source)
    return _cached(_cursors, written, lambda: _first_parameter_of(written))


def codec_of_model(model: Any) -> StepCodec:
    """Return the codec of a type; raises as ``codec_of_result``."""
    return _cached(_codecs, model, lambda: model)


def _cached(
    codecs: "WeakKeyDictionary[Any, StepCodec]", source: Any, annotation: Callable[[], Any]
) -> StepCodec:
    try:
        found = codecs.get(source)
    except TypeError:  # it has no hash, or no weak references
        return _codec(source, annotation())
    if found is None:
        found = codecs[source] = _codec(source, annotation())
    return found


def _codec(source: Any, annotation: Any) -> StepCodec:
    if annotation is _EMPTY:
        return _plain()
    return StepCodec(getattr(source, "__name__", None) or repr(source), annotation)


def _written(function: Any) -> Any:
    """Return the part of a callable that has its annotations."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    if inspect.isclass(function) or inspect.isroutine(function):
        return function
    return type(function).__call__


def _result_of(function: Any) -> Any:
    if inspect.isclass(function):
        return function
    annotation = _hints(function).get("return", _EMPTY)
    if get_origin(annotation) in _AWAITABLE:
        annotation = get_args(annotation)[-1]
    return annotation


def _first_parameter_of(function: Any) -> Any:
    hints = _hints(function)
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    return hints.get(names[0], _EMPTY) if names else _EMPTY


def _hints(function: Any) -> dict[str, Any]:
    try:
        return hints_of(function, None)
    except (NameError, TypeError) as error:
        raise InvalidStep(
            f"the annotations of {getattr(function, '__name__', function)!r} ({place_of(function)}) cannot be read:"
            f" {error}; they are needed when the task runs, so import the names outside `if TYPE_CHECKING:`"
        ) from error
