"""Encodes arguments and results as JSON text: validates, writes, reads back and compares them.

A value that would come back as another one (a tuple as a list, an int key as text, a subclass without its own fields)
is refused at the call, not later by the attempt.  JSON is stored with field names, not aliases.
"""

import inspect
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn, NotRequired

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema
from typing_extensions import TypedDict  # pydantic takes typing's own from Python 3.12 on

from jobrunner.core.errors import InvalidArguments, InvalidTask, ResultNotStored
from jobrunner.tasks.codec_errors import at
from jobrunner.tasks.codec_schema import clock_fault, storing_fault
from jobrunner.tasks.codec_value import STORED, Refused, ValueCodec, adapter_of
from jobrunner.tasks.options import option_for
from jobrunner.tasks.placeholder import MAY_HAND, Handed, handed_in, refuse_inside

MAX_ARGS_BYTES: Final = 1 << 20
MAX_RESULT_BYTES: Final = 1 << 20


class ArgsCodec:
    """Encodes the arguments of one task as a JSON object by parameter name.

    Only the arguments that the caller passed are stored. Defaults stay in the function and change with it.

    Args:
        task: The task's name, for the errors.
        parameters: All parameters except the job context, with resolved annotations.
        injected: The names of the parameters that no caller fills. They keep their positions in a call.
        written: The task as a caller writes it, if not its name.
        wrapper: The source location of the function's wrapper; None if it has none.

    Raises:
        InvalidTask: Pydantic has no schema for an annotation, or its values cannot be stored.
    """

    __slots__ = (
        "_are_all",
        "_call",
        "_codec",
        "_injected",
        "_positional",
        "_positional_only",
        "_required",
        "_task",
        "_wrapper",
        "_written",
    )

    def __init__(
        self,
        task: str,
        parameters: Sequence[inspect.Parameter],
        injected: frozenset[str] = frozenset(),
        *,
        written: str | None = None,
        wrapper: str | None = None,
    ) -> None:
        self._task = task
        self._written = task if written is None else written
        self._wrapper = wrapper
        filled = [p for p in parameters if p.name not in injected]
        self._call = inspect.Signature(filled)
        self._injected = injected
        self._positional = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
        self._positional_only = frozenset(p.name for p in parameters if p.kind is p.POSITIONAL_ONLY)
        self._required = frozenset(p.name for p in filled if p.default is p.empty)
        self._are_all = not injected and self._required.issubset(self._positional)
        """True if values for all positional parameters are a whole call."""
        self._codec = _codec_of_parameters(task, filled)

    def encode(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
        """Return the stored form of a call's arguments.

        It is a copy: changing an argument later has no effect on it.

        Raises:
            InvalidArguments: The arguments do not fit the task, or would not come back from JSON unchanged.
            TypeError: An argument holds the result of a call that has not run.
        """
        return self._write(self._bound(args, kwargs), args, kwargs)

    def encode_call(
        self, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> tuple[str, dict[str, Handed] | None]:
        """Return the stored form of a call's arguments, and the results among them.

        A result of another call is no part of the stored form.

        Raises:
            InvalidArguments: The other arguments do not fit the task, or would not come back from JSON unchanged.
            TypeError: The result of another call is only a part of an argument.
        """
        given = self._bound(args, kwargs)
        handed = None
        # Runs once per enqueue: nearly all arguments can be no result of a call.
        for value in given.values():
            if type(value) in MAY_HAND:
                handed = handed_in(given)
                break
        if handed is not None:
            given = {name: value for name, value in given.items() if name not in handed}
        return self._write(given, args, kwargs), handed

    def _bound(
        self, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> Mapping[str, object]:
        """Return the arguments of a call by parameter name."""
        given = dict(zip(self._positional, args, strict=False))
        if self._are_all and not kwargs and len(args) == len(self._positional):
            return given  # nearly every call
        if len(args) > len(self._positional):
            self._refuse_call(args, kwargs)
        if kwargs:
            if not kwargs.keys().isdisjoint(given) or not self._positional_only.isdisjoint(kwargs):
                self._refuse_call(args, kwargs)
            given.update(kwargs)
        if self._injected and not self._injected.isdisjoint(given):
            self._refuse_injected(given)
        if not self._required <= given.keys():
            self._refuse_call(args, kwargs)
        return given

    def _write(
        self,
        given: Mapping[str, object],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
    ) -> str:
        try:
            return self._codec.write(given, MAX_ARGS_BYTES)
        except Refused as fault:
            refuse_inside(given)
            self._refuse_call(args, kwargs, fault)

    def json_schema(self) -> dict[str, Any] | None:
        """Return the JSON schema of the arguments, with the required ones; None if there is none."""
        try:
            schema = self._codec.json_schema()
        except PydanticInvalidForJsonSchema:
            return None
        return schema | {"required": sorted(self._required)}

    def decode(self, payload: str, without: Collection[str] = ()) -> dict[str, Any]:
        """Return the keyword arguments of a stored payload.

        Args:
            payload: The stored arguments.
            without: Parameters that may be missing, since the results of other jobs will fill them.

        Raises:
            InvalidArguments: The function's signature has changed, and the payload no longer fits.
        """
        try:
            given: dict[str, Any] = self._codec.read(payload)
        except Refused as fault:
            raise InvalidArguments(f"{self._task}: {fault}") from fault.__cause__
        if not self._required <= given.keys():
            missing = sorted(self._required - given.keys() - set(without))
            if missing:
                raise InvalidArguments(f"{self._task}: missing: {', '.join(missing)}")
        return given

    def merge(
        self, payload: str, changes: Mapping[str, object], without: Collection[str] = ()
    ) -> str:
        """Return a stored payload with some parameters changed.

        Values for parameters that the function no longer has are dropped, so that an edit can bring old arguments up to
        date.

        Args:
            payload: The stored arguments. They may no longer fit the task; the result must.
            changes: New values by parameter name, as Python objects or as plain JSON (bytes as base64 text).
            without: Parameters that may be missing; see ``decode``.

        Raises:
            InvalidArguments: The result does not fit the task, or a name is not a parameter.
        """
        if not self._injected.isdisjoint(changes):
            self._refuse_injected(changes)
        unknown = changes.keys() - self._call.parameters.keys()
        if unknown:
            raise InvalidArguments(
                f"{self._task}{self._call_text()} has no parameter {', '.join(sorted(unknown))}"
            )
        stored: dict[str, object] = json.loads(payload)
        try:
            kept = {name: stored[name] for name in stored if name in self._call.parameters}
            changed = json.loads(self._codec.write(self._from_outside(changes), MAX_ARGS_BYTES))
            merged = self.decode(json.dumps({**kept, **changed}), without)
            return self._codec.write(merged, MAX_ARGS_BYTES)
        except Refused as fault:
            raise InvalidArguments(f"{self._task}: {fault}") from fault.__cause__

    def _from_outside(self, changes: Mapping[str, object]) -> Any:
        if not _is_plain_json(changes):
            return dict(changes)
        try:
            text = json.dumps(dict(changes), allow_nan=False)
        except RecursionError:
            raise Refused("nested too deep to be stored as JSON") from None
        except ValueError as error:
            raise Refused(f"cannot be stored as JSON ({error})") from None
        return self._codec.read(text, by_alias=True)

    def _refuse_injected(self, given: Mapping[str, object]) -> NoReturn:
        names = ", ".join(name for name in given if name in self._injected)
        raise InvalidArguments(
            f"{self._task}{self._call_text()}: {names} cannot be given: each attempt of the job is handed its own,"
            " which the task's `= Injected` or `= Depends(...)` says"
        )

    def _refuse_call(
        self, args: tuple[object, ...], kwargs: Mapping[str, object], fault: Refused | None = None
    ) -> NoReturn:
        """Raise InvalidArguments, with Python's own text if the call does not bind."""
        try:
            self._call.bind(*args, **kwargs)
        except TypeError as error:
            hint = self._hint(kwargs) or self._hint_of_wrapper(args, kwargs)
            raise InvalidArguments(f"{self._task}{self._call_text()}: {error}{hint}") from None
        raise InvalidArguments(f"{self._task}: {fault}") from (fault and fault.__cause__)

    def _hint(self, kwargs: Mapping[str, object]) -> str:
        for word in kwargs:
            option = None if word in self._call.parameters else option_for(word)
            if option is not None:
                return (
                    f"; if {word!r} is meant for the job and not for the function, "
                    f"write {self._written}.options({option}=...)"
                )
        return ""

    def _hint_of_wrapper(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
        given = {*self._positional[: len(args)], *kwargs}
        missing = tuple(name for name in self._call.parameters if name in self._required - given)
        if self._wrapper is None or not missing:
            return ""
        return (
            f"; if what stands around the function ({self._wrapper}) fills that, write"
            f" `{missing[0]}: Annotated[..., Depends(f)] = Injected` in its place, or hide it there:"
            " `shown = inspect.signature(fn)` and `wrapper.__signature__ = shown.replace(parameters=[p for p in"
            f" shown.parameters.values() if p.name not in {missing!r}])`"
        )

    def _call_text(self) -> str:
        """Return the parameters as a caller sees them, such as ``(email, name=...)``."""
        optional = (n if n in self._required else f"{n}=..." for n in self._call.parameters)
        return f"({', '.join(optional)})"


class ResultCodec:
    """Encodes the results of one task as JSON.

    Args:
        task: The task's name, for the errors.
        annotation: The function's return annotation; ``inspect.Signature.empty`` stands for any type.

    Raises:
        InvalidTask: A validator of the type reads the clock, so that reading a stored result would fail one day.
    """

    __slots__ = ("_codec", "_task", "_unfit")

    def __init__(self, task: str, annotation: Any) -> None:
        self._task = task
        self._unfit: str | None = None
        self._codec: ValueCodec | None = None
        if annotation is inspect.Signature.empty:
            annotation = Any
        try:
            adapter = adapter_of(annotation)
        except Exception as error:  # noqa: BLE001 - not refused: the result may be for direct callers only
            self._unfit = f"pydantic has no schema for it ({_first_line(error)})"
        else:
            fault = clock_fault(adapter.core_schema)
            if fault is not None:
                raise InvalidTask(f"{task}: its result: {at(*fault)}")
            self._codec = ValueCodec(adapter)

    def encode(self, value: object) -> str | None:
        """Return the stored form of a result; None for None.

        Raises:
            ResultNotStored: The result is too large, or would not come back from JSON unchanged.
        """
        if value is None:
            return None
        if self._codec is None:
            raise ResultNotStored(f"{self._task} returned {type(value).__name__}: {self._unfit}")
        try:
            return self._codec.write(value, MAX_RESULT_BYTES)
        except Refused as fault:
            raise ResultNotStored(f"the result of {self._task}: {fault}") from fault.__cause__

    def decode(self, stored: str | None, *, by_alias: bool = False) -> Any:
        """Return the result of a stored text.

        Args:
            stored: The text; None for a result of None.
            by_alias: Accept aliases too, for text that someone else wrote.

        Raises:
            ResultNotStored: The function's return annotation has changed, and the text no longer fits.
        """
        if stored is None:
            return None
        if self._codec is None:
            raise ResultNotStored(f"the result of {self._task}: {self._unfit}")
        try:
            return self._codec.read(stored, by_alias=by_alias)
        except Refused as fault:
            raise ResultNotStored(f"the result of {self._task}: {fault}") from fault.__cause__


def _codec_of_parameters(task: str, parameters: Sequence[inspect.Parameter]) -> ValueCodec:
    # All fields are NotRequired: a merge validates a part of the arguments, and we word missing ones ourselves.
    fields = {p.name: NotRequired[p.annotation] for p in parameters}
    try:
        make: Any = TypedDict  # type checkers accept only literal fields in the functional form
        shape = make("Arguments", fields)
        shape.__pydantic_config__ = STORED
        adapter: TypeAdapter[Any] = TypeAdapter(shape)
        schema = adapter.core_schema
        fault = clock_fault(schema) or storing_fault(schema)  # they raise if a name does not exist
    except Exception as error:
        raise InvalidTask(_unfit_parameter(task, parameters, error)) from error
    if fault is not None:
        name = fault.path.partition(".")[0].partition("[")[0]
        where = "" if name == fault.path else f" {fault.path}:"
        raise InvalidTask(f"{task}: parameter {name!r}:{where} {fault.text}")
    return ValueCodec(adapter)


def _unfit_parameter(task: str, parameters: Iterable[inspect.Parameter], error: Exception) -> str:
    for parameter in parameters:
        try:
            _ = TypeAdapter(parameter.annotation).core_schema["type"]
        except Exception as found:  # noqa: BLE001 - whatever it raises, this is the parameter at fault
            kind = getattr(parameter.annotation, "__name__", str(parameter.annotation))
            return (
                f"{task}: parameter {parameter.name!r}: pydantic has no schema for {kind}, so it cannot be stored "
                f"({_first_line(found)}); pass an id or a pydantic model and look the rest up in the task, or have each"
                f" attempt handed its own: `{parameter.name}: Annotated[{kind}, Depends(f)] = Injected`"
            )
    return f"{task}: pydantic has no schema for its parameters ({_first_line(error)})"


def _is_plain_json(value: object, depth: int = 0) -> bool:
    if depth > 200:  # noqa: PLR2004 - deeper than the JSON parser goes; refused later
        return True
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_plain_json(v, depth + 1) for k, v in value.items())
    if type(value) is list:
        return all(_is_plain_json(item, depth + 1) for item in value)
    return value is None or type(value) in (str, int, float, bool)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
