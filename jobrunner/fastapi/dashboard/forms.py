"""Reads the forms that pages send; Starlette's own reader needs another package."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from jobrunner.core.errors import InvalidOptions
from jobrunner.fastapi.api.problems import MAX_BODY_BYTES, NOT_JSON, TOO_LARGE, Kind, Refusal

_FORM: Final = "application/x-www-form-urlencoded"
NOT_A_FORM: Final = Kind(NOT_JSON.status, "not-a-form", "Not a form", f"send the form as {_FORM}")
MAX_FIELDS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form, in order."""

    fields: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        """Return the last value of a field; empty if it is missing."""
        return next((value for key, value in reversed(self.fields) if key == name), "")

    def all(self, name: str) -> list[str]:
        """Return every value of a field, each once."""
        return list(dict.fromkeys(value for key, value in self.fields if key == name))

    def until(self) -> datetime:
        """Return the end of the set that the viewer has seen; what came later is not changed.

        Raises:
            InvalidOptions: The field was changed.
        """
        try:
            until = datetime.fromisoformat(self.get("until"))
        except ValueError:
            until = None
        if until is None or until.tzinfo is None:
            raise InvalidOptions(
                "until= of the form is no time with an offset: open the page again"
            )
        return until

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self.fields)


async def read_form(request: Request) -> Form:
    """Read the form of a request.

    Raises:
        Refusal: The body is not a form, or is too large.
    """
    media_type = request.headers.get("content-type", _FORM).partition(";")[0].strip().lower()
    if media_type != _FORM:
        raise Refusal(NOT_A_FORM, NOT_A_FORM.example)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Refusal(TOO_LARGE, TOO_LARGE.example)
    try:
        fields = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError:
        raise Refusal(NOT_A_FORM, "the form is not UTF-8, or has too many fields") from None
    return Form(tuple(fields))
