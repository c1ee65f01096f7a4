"""Response models that are derived from public dataclasses, so that a field is spelled once."""

from collections.abc import Sequence
from dataclasses import fields
from inspect import get_annotations
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


def doc(description: str | None = None, example: object = None) -> dict[str, Any]:
    """Return a dataclass field's metadata, in the form that pydantic reads.

    Args:
        description: for the field's JSON schema, so None is "null" there.
        example: one value, as JSON has it.
    """
    found = {"description": description, "examples": None if example is None else [example]}
    return {name: value for name, value in found.items() if value is not None}


class ResponseModel(BaseModel):
    """A response body that shows the listed fields of a public dataclass, and no others.

    ::

        class QueueBody(ResponseModel, of=QueueInfo, shows=("name", "slots")): ...

    A field that the dataclass gains later stays hidden until it is listed.  Types, descriptions and examples are the
    dataclass's, but for fields that the body spells because JSON needs another type.
    """

    model_config = ConfigDict(from_attributes=True)

    def __init_subclass__(cls, *, of: type | None = None, shows: Sequence[str] = ()) -> None:
        super().__init_subclass__()
        if of is not None:
            known = {field.name: field for field in fields(of)}
            # Before pydantic reads them; what the body spells keeps its place in the list.
            cls.__annotations__ = {
                name: Annotated[known[name].type, Field(**known[name].metadata)] for name in shows
            } | get_annotations(cls)
