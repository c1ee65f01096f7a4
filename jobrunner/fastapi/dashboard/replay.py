"""The form that edits the arguments of a dead letter and replays it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal

from starlette.responses import Response

from jobrunner.core.audit import Action
from jobrunner.core.errors import AlreadyReplayed, InvalidArguments, UnknownTask
from jobrunner.core.job import steps_of
from jobrunner.core.model import JobRow
from jobrunner.fastapi.dashboard import arguments
from jobrunner.fastapi.dashboard.forms import Form
from jobrunner.fastapi.dashboard.job import stored
from jobrunner.fastapi.dashboard.jobs import Row, row_of, state_of
from jobrunner.fastapi.dashboard.pages import Pages
from jobrunner.fastapi.dashboard.visit import Visit

Control = Literal["text", "number", "choice", "json"]

WHOLE: Final = "arguments"
"""The name of the only field if the task has no schema."""
FORGET: Final = "forget"
"""The name of the fields with the steps that the job forgets."""
_PREFIX: Final = "arg."
"""Before the names of parameters, which could be any word."""
_SCALARS: Final[Mapping[str, Control]] = {"integer": "number", "number": "number", "string": "text"}
_LONG: Final = 120
"""A text of more characters, or of several lines, gets a large field."""


@dataclass(frozen=True, slots=True)
class Field:
    """One argument in the form."""

    name: str
    label: str
    control: Control
    text: str
    """The stored value, or the text that was typed."""
    choices: Sequence[str]
    hint: str
    error: str
    required: bool
    step: str

    @property
    def rows(self) -> int:
        """The height of a large field, in lines; 1 for a small one."""
        if self.control == "json":
            return min(max(self.text.count("\n") + 1, 3), 18)
        return 4 if self.control == "text" and (len(self.text) > _LONG or "\n" in self.text) else 1


@dataclass(frozen=True, slots=True)
class EditView:
    """The form."""

    row: Row
    fields: Sequence[Field]
    steps: Sequence[str]
    """The names of the steps that the job could forget."""
    forgotten: Sequence[str]
    """The chosen ones."""
    error: str
    """An error that belongs to no field."""


class _Unreadable(Exception):
    """The text in a field is no value of its kind."""


def fields_of(
    schema: Mapping[str, Any] | None,
    values: Mapping[str, Any],
    typed: Form | None = None,
    errors: Mapping[str, str] | None = None,
) -> list[Field]:
    """Return the fields of the form.

    Args:
        schema: the JSON schema of the task's arguments; None if it has none.
        values: the stored arguments.
        typed: the form that was sent, so that what was typed stays.
        errors: the error of each argument.
    """
    if schema is None:
        text = arguments.written(values) if typed is None else typed.get(WHOLE)
        error = (errors or {}).get(WHOLE, "")
        return [
            Field(
                WHOLE,
                "Arguments",
                "json",
                text,
                (),
                "A JSON object by parameter name.",
                error,
                True,
                "",
            )
        ]
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    found = []
    for name, part in properties.items():
        control, choices = _control_of(part)
        text = _text_of(control, values[name]) if name in values else ""
        if typed is not None:
            text = typed.get(_PREFIX + name)
        hint = (
            "" if name in values else "Not given so far: leave it empty for the task's own default."
        )
        if control == "json":
            hint = f"JSON. {hint}".strip()
        found.append(
            Field(
                name=_PREFIX + name,
                label=name,
                control=control,
                text=text,
                choices=choices,
                hint=hint,
                error=(errors or {}).get(name, ""),
                required=name in schema.get("required", ()) and control != "text",
                step="1" if part.get("type") == "integer" else "any",
            )
        )
    return found


def _control_of(part: Mapping[str, Any]) -> tuple[Control, Sequence[str]]:
    if part.get("type") == "boolean":
        return "choice", ("true", "false")
    if isinstance(part.get("enum"), list):
        return "choice", [json.dumps(one) for one in part["enum"]]
    if "anyOf" in part or "$ref" in part or "contentMediaType" in part:
        return "json", ()
    return _SCALARS.get(str(part.get("type")), "json"), ()


def _text_of(control: Control, value: object) -> str:
    return value if control == "text" and isinstance(value, str) else arguments.written(value)


def changes_of(
    schema: Mapping[str, Any] | None, values: Mapping[str, Any], form: Form
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the arguments that a form changes, and errors by field."""
    if schema is None:
        try:
            given = _json(form.get(WHOLE))
        except _Unreadable as error:
            return {}, {WHOLE: str(error)}
        if not isinstance(given, dict):
            return {}, {WHOLE: "Write a JSON object: the arguments by parameter name."}
        return {k: v for k, v in given.items() if k not in values or values[k] != v}, {}
    changes: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name, part in schema.get("properties", {}).items():
        text = form.get(_PREFIX + name)
        control, _ = _control_of(part)
        if not text and (name not in values or control != "text"):
            # An empty field leaves the argument as it is.
            continue
        try:
            value = text.replace("\r\n", "\n") if control == "text" else _json(text)
        except _Unreadable as error:
            errors[name] = str(error)
            continue
        if name not in values or json.dumps(values[name]) != json.dumps(value):
            changes[name] = value
    return changes, errors


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise _Unreadable(f"This is not JSON: {error}.") from None
    except RecursionError:
        raise _Unreadable("This is nested too deep.") from None


def errors_by_name(error: InvalidArguments, names: Sequence[str]) -> dict[str, str]:
    """Return the findings of an error by argument; the others under an empty name."""
    found: dict[str, str] = {}
    _, _, text = str(error).partition(": ")
    for one in text.split("; "):
        path, _, said = one.partition(": ")
        name = next(
            (name for name in names if path == name or path.startswith((f"{name}.", f"{name}["))),
            "",
        )
        words = said if path == name else one
        found[name] = f"{found[name]}; {words}" if name in found else words
    return found


def _schema_of(visit: Visit, row: JobRow) -> dict[str, Any] | None:
    """Return the JSON schema of a dead letter's arguments.

    Raises:
        UnknownTask: The runner does not have its task.
    """
    spec = visit.parts.tasks.get(row.task)
    if spec is None:
        raise UnknownTask(f"no task {row.task!r} is registered with this runner")
    return spec.args.json_schema()


async def _dead(visit: Visit) -> JobRow:
    row = await stored(visit)
    if row.state != "dead" or row.replayed_as is not None:
        raise AlreadyReplayed(f"the job is {state_of(row)}, and no dead letter to replay")
    return row


def add_edit(pages: Pages) -> None:
    """Add the form that edits the arguments of a dead letter and replays it."""

    @pages.show("/jobs/{id}/edit", acting=True, seeing=True)
    async def edit(visit: Visit) -> Response:
        row = await _dead(visit)
        await arguments.record_shown(visit, row.id)
        fields = fields_of(_schema_of(visit, row), visit.redaction.value(json.loads(row.args)))
        return await _page(
            visit, EditView(row_of(row, None), fields, await _step_names(visit, row), (), "")
        )

    @pages.do("/jobs/{id}/edit", seeing=True)
    async def replay_edited(visit: Visit, form: Form) -> Response:
        row = await _dead(visit)
        schema, args = _schema_of(visit, row), json.loads(row.args)
        values = visit.redaction.value(args)
        changes, errors = changes_of(schema, values, form)
        forget = form.all(FORGET)
        if changes and forget:
            errors[""] = "With other arguments a new job is stored, which has no steps to forget."
        if not errors:
            action: Action = "dead_letters.replay_edited" if changes else "dead_letters.replay"
            try:
                changes = visit.redaction.restored(changes, args)
                async with visit.act(action, target=row.id):
                    job = await visit.queue.dead_letters.replay(
                        row.id, args=changes or None, forget=forget
                    )
            except InvalidArguments as error:
                names = [WHOLE] if schema is None else list(schema.get("properties", {}))
                errors = errors_by_name(error, names)
            else:
                return visit.go(f"jobs/{job.id}", "replayed-edited" if changes else "replayed")
        await arguments.record_shown(visit, row.id)
        view = EditView(
            row_of(row, None),
            fields_of(schema, values, form, errors),
            await _step_names(visit, row),
            forget,
            errors.pop("", ""),
        )
        return await _page(visit, view, HTTPStatus.UNPROCESSABLE_ENTITY)


async def _step_names(visit: Visit, row: JobRow) -> list[str]:
    steps = steps_of(await visit.parts.store.workflows.steps(row.seq))
    return list(dict.fromkeys(step.name for step in steps))


async def _page(visit: Visit, view: EditView, status: int = HTTPStatus.OK) -> Response:
    return await visit.page(
        "edit.html", view, title="Edit and replay", section="dead", status=status, live=False
    )
