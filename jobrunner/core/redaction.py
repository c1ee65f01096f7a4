"""Hides the values of sensitive fields from operators.

An operator may send the hidden form back, as in an edited replay; then the stored values are put into it again.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final, Protocol, Self, TypeVar

from jobrunner.core.errors import ConfigurationError, InvalidArguments


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


T = TypeVar("T", bound=_Dataclass)

REDACTED: Final = "[redacted]"
"""The text that is shown for a sensitive value."""
DEFAULT_NAMES: Final = frozenset(
    {
        "password",
        "secret",
        "client_secret",
        "token",
        "access_token",
        "refresh_token",
        "api_key",
        "private_key",
        "authorization",
    }
)
_SHOWN_FIELDS: Final = frozenset({"args", "result", "steps"})
_MISSING: Final = object()


@dataclasses.dataclass(frozen=True, slots=True)
class Redaction:
    """Hides the values of fields by their names, at any depth."""

    names: frozenset[str]
    """Without case, ``_`` and ``-``: ``api_key`` also hides ``apiKey`` and ``API-Key``."""

    @classmethod
    def of(cls, names: Iterable[str] = DEFAULT_NAMES) -> Self:
        """Return the redaction that hides the fields with these names.

        Raises:
            ConfigurationError: A name is not a string, or all names are one string.
        """
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise ConfigurationError(
                f'redact={names!r} is not a set of names; write redact={{"password", "card_number"}}'
            )
        given = list(names)
        wrong = [name for name in given if not isinstance(name, str) or not _folded(name)]
        if wrong:
            raise ConfigurationError(f"redact holds {wrong[0]!r}, which is not the name of a field")
        return cls(frozenset(map(_folded, given)))

    def hides(self, name: str) -> bool:
        """Return whether the value of a field with this name is hidden."""
        return _folded(name) in self.names

    def shown(self, thing: T) -> T:
        """Return a copy of a dataclass with redacted arguments and results."""
        fields = _SHOWN_FIELDS & {field.name for field in dataclasses.fields(thing)}
        values = {name: self.value(getattr(thing, name)) for name in fields}
        return dataclasses.replace(thing, **values)

    def value(self, value: Any) -> Any:
        """Return a JSON value with the sensitive values in it replaced by ``"[redacted]"``."""
        if isinstance(value, Mapping):
            return {
                name: REDACTED if self.hides(name) else self.value(below)
                for name, below in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(below) for below in value]
        return value

    def restored(self, given: Any, stored: Any) -> Any:
        """Return a JSON value with the stored values in place of ``"[redacted]"``.

        Only the values of sensitive fields are replaced.

        Args:
            given: The value that an operator sent, perhaps an edited form of what ``value`` returned.
            stored: The stored value, with the sensitive values in it.

        Raises:
            InvalidArguments: The stored value has nothing in that place, so ``"[redacted]"`` itself would be stored;
                or the value is nested too deep.
        """
        try:
            return self._restored(given, stored, "")
        except RecursionError:
            raise InvalidArguments("the arguments are nested too deep") from None

    def _restored(self, given: Any, stored: Any, path: str) -> Any:
        if isinstance(given, Mapping):
            known = stored if isinstance(stored, Mapping) else {}
            return {
                name: self._field(
                    name, value, known.get(name, _MISSING), f"{path}.{name}".lstrip(".")
                )
                for name, value in given.items()
            }
        if isinstance(given, list):
            # If an item was added or removed, the others may stand in other places than their stored values.
            same = isinstance(stored, list) and len(stored) == len(given)
            return [
                self._restored(value, stored[place] if same else _MISSING, f"{path}[{place}]")
                for place, value in enumerate(given)
            ]
        return given

    def _field(self, name: str, given: Any, stored: Any, path: str) -> Any:
        if given != REDACTED or not self.hides(name):
            return self._restored(given, stored, path)
        if stored is _MISSING:
            raise InvalidArguments(
                f"{path} is {REDACTED!r}, and nothing is stored there that it could stand for: send the value itself,"
                " or leave the argument out"
            )
        return stored


def _folded(name: str) -> str:
    return name.casefold().replace("_", "").replace("-", "")
