"""Checks signals, and writes their values as JSON."""

from typing import Final

from pydantic import BaseModel
from pydantic_core import to_json

from jobrunner.core.errors import InvalidOptions, shown
from jobrunner.core.units import is_step_name

MAX_SIGNAL_BYTES: Final = 1 << 20


def checked_signal(name: str) -> str:
    """Check the name of a signal and return it unchanged.

    Raises:
        InvalidOptions: The name has a character that is not allowed, or more than 200 characters.
    """
    if not is_step_name(name):
        raise InvalidOptions(
            f"{shown(name)} is no name of a signal: a letter, a digit or _, then also . : @ + -, at most 200 in all"
        )
    return name


def signal_text(value: object) -> str:
    """Return the value of a signal as JSON text.

    Raises:
        InvalidOptions: The value cannot be written as JSON, or is longer than 1 MiB.
    """
    try:
        # A model writes itself, as its own config says, so that it reads the same value back.
        data = (
            value.model_dump_json(round_trip=True).encode()
            if isinstance(value, BaseModel)
            else to_json(value, by_alias=False, bytes_mode="base64", inf_nan_mode="strings")
        )
    except Exception as error:
        raise InvalidOptions(
            f"the value of a signal cannot be written as JSON ({error}): pass a pydantic model"
        ) from error
    if len(data) > MAX_SIGNAL_BYTES:
        raise InvalidOptions(
            f"{len(data):,} bytes of JSON are more than the {MAX_SIGNAL_BYTES:,} of a signal; keep it in a file or a"
            " table and pass its name"
        )
    return data.decode()
