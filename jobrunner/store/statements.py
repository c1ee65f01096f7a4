"""Compiles the statements of SQLAlchemy that tasks pass to ``job.write()``."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobrunner.core.errors import InvalidWrite

if TYPE_CHECKING:
    from sqlalchemy import Dialect


def is_statement(what: object) -> bool:
    """Return whether something is a statement of SQLAlchemy."""
    # Code that has one has imported SQLAlchemy; other code must not pay for the import.
    if "sqlalchemy" not in sys.modules:
        return False
    from sqlalchemy import Executable  # noqa: PLC0415 - see above

    return isinstance(what, Executable)


def compiled(statement: Any, dialect: "Dialect") -> tuple[str, Sequence[Any]]:
    """Return a statement's text and its values, as a dialect's driver takes them.

    Raises:
        InvalidWrite: A default of a column needs the connection.
    """
    form = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    values: dict[str, Any] = dict(form.construct_params())
    for column in form.insert_prefetch:
        values[column.key] = _default_of(column, column.default)
    for column in form.update_prefetch:
        values[column.key] = _default_of(column, column.onupdate)
    # Public is only what converts one type; these are those of all parameters, also of the lists behind IN.
    convert = form._bind_processors  # noqa: SLF001 - see above
    names: Sequence[str] = form.positiontup or ()
    return form.string, [
        convert[name](values[name]) if name in convert else values[name] for name in names
    ]


def _default_of(column: Any, default: Any) -> Any:
    """Return the value that Python gives to a column that the statement leaves out."""
    if default.is_scalar:
        return default.arg
    try:
        return default.arg(None)
    except Exception as error:
        raise InvalidWrite(
            f"job.write(): the default of {column} cannot be computed without a connection; give the statement a value:"
            f" .values({column.key}=...)"
        ) from error
