"""Encodes a value of a pydantic type as JSON text, and decodes that text."""

from typing import Any, Final

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import CoreConfig, SchemaSerializer

from jobrunner.tasks.codec_equality import difference
from jobrunner.tasks.codec_errors import AGAIN, fault_of_dump, fault_of_load, fault_of_validation
from jobrunner.tasks.codec_schema import holds
from jobrunner.tasks.unset_fields import Omitted, omitted

STORED = ConfigDict(extra="forbid", allow_inf_nan=False, val_json_bytes="base64")
# The config of a TypedDict reaches the validator of a TypeAdapter but not its serialiser (2.14): it is passed here.
_WRITTEN = CoreConfig(ser_json_bytes="base64", ser_json_inf_nan="strings")

EXACT_BYTES: Final = 4_000
"""The longest text that is not read back, if all values of its type are exact: longer numbers cannot be read."""


class Refused(Exception):
    """A value cannot be stored unchanged; the public methods replace it by a public error.

    That error takes its text and its cause. The cause is never a ValidationError: it shows the values, which may be
    secrets.
    """


class ValueCodec:
    """Converts values of one pydantic type to JSON text and back."""

    __slots__ = ("_adapter", "_compared", "_dump", "_is_exact", "_load", "_models", "_validate")

    def __init__(self, adapter: TypeAdapter[Any]) -> None:
        self._adapter = adapter
        # The adapter's methods wrap these, which costs a microsecond per call.
        self._validate = adapter.validator.validate_python
        self._load = adapter.validator.validate_json
        self._dump = SchemaSerializer(adapter.core_schema, _WRITTEN).to_json
        found = holds(adapter.core_schema)
        self._compared = found.compared
        self._is_exact = found.exact
        self._models = found if found.parts else None

    def write(self, value: object, limit: int) -> str:
        """Return the value as JSON text that reads back as the same value.

        Raises:
            Refused: There is no such text, or it is longer than ``limit`` bytes.
        """
        try:
            value = self._validate(value)
        except ValidationError as error:
            raise Refused(fault_of_validation(error)) from None
        except Exception as error:
            raise Refused(f"a validator raised {error!r}") from error
        leave_out = None if self._models is None else omitted(value, self._models)
        if leave_out is not None:
            try:
                return self._written(value, limit, leave_out)
            except Refused:
                pass  # the class does not restore the left-out fields: everything is written
        return self._written(value, limit)

    def _written(self, value: object, limit: int, leave_out: Omitted | None = None) -> str:
        try:
            data = self._dump(
                value, by_alias=False, round_trip=True, warnings=False, exclude=leave_out
            )
        except Exception as error:
            raise Refused(fault_of_dump(value, error)) from error
        if len(data) > limit:
            raise Refused(
                f"{len(data):,} bytes of JSON are more than the {limit:,} that are stored; "
                "keep it in a file or a table and pass its name"
            )
        if self._is_exact and len(data) <= EXACT_BYTES:
            return data.decode()
        try:
            back = self._load(data, by_alias=False, by_name=True)
        except ValidationError as error:
            raise Refused(fault_of_load(error)) from None
        except Exception as error:
            raise Refused(f"it would not come back from JSON: {error!r}; {AGAIN}") from error
        try:
            same = self._compared and bool(back == value)
        except Exception:  # noqa: BLE001 - the application's __eq__ may raise anything; that of arrays does
            same = False
        if not same:
            fault = difference(value, back)
            if fault is not None:
                again = fault.plain and self._changes(back, data, leave_out)
                raise Refused(f"{fault}; {AGAIN}" if again else str(fault))
        return data.decode()

    def _changes(self, back: object, data: bytes, leave_out: Omitted | None) -> bool:
        """Return whether a validator changed the value on reading, and no serialiser lost it."""
        try:
            again = self._dump(
                back, by_alias=False, round_trip=True, warnings=False, exclude=leave_out
            )
        except Exception:  # noqa: BLE001 - this only selects the message
            return False
        return bool(again != data)

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of the stored text.

        Raises:
            PydanticInvalidForJsonSchema: A part of the type has no JSON schema.
        """
        return self._adapter.json_schema(by_alias=False, mode="validation")

    def read(self, text: str, *, by_alias: bool = False) -> Any:
        """Return the value that the text holds.

        Args:
            text: JSON with field names, as ``write`` returns it.
            by_alias: Accept aliases too, for text that someone else wrote.

        Raises:
            Refused: The text does not fit the type.
        """
        try:
            return self._load(text, by_alias=by_alias, by_name=True)
        except ValidationError as error:
            raise Refused(fault_of_validation(error)) from None
        except Exception as error:
            raise Refused(f"a validator raised {error!r}") from error


def adapter_of(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=STORED)
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(
            annotation
        )  # a model, a dataclass or a TypedDict, which has its own config
