"""Derives response models from public dataclasses, so that a field is declared once."""

from collections.abc import Sequence
from dataclasses import fields
from inspect import get_annotations
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


def doc(description: str | None = None, example: object = None) -> dict[str, Any]:
    """Return metadata of a dataclass field, in the form that pydantic reads.

    Args:
        description: The description in the JSON schema, so it says "null" instead of None.
        example: One example, as a JSON value.
    """
    found = {"description": description, "examples": None if example is None else [example]}
    return {name: value for name, value in found.items() if value is not None}


class ResponseModel(BaseModel):
    """A response body with only the listed fields of a public dataclass.

    ::

        class QueueBody(ResponseModel, of=QueueInfo, shows=("name", "slots")): ...

    A field that is added to the dataclass later stays hidden until it is listed.  Types, descriptions and examples come
    from the dataclass, except for fields that the body declares itself because JSON needs another type.
    """

    model_config = ConfigDict(from_attributes=True)

    def __init_subclass__(cls, *, of: type | None = None, shows: Sequence[str] = ()) -> None:
        super().__init_subclass__()
        if of is not None:
            known = {field.name: field for field in fields(of)}
            # Set before pydantic reads the annotations. A field that the body declares keeps its place in `shows`.
            cls.__annotations__ = {
                name: Annotated[known[name].type, Field(**known[name].metadata)] for name in shows
            } | get_annotations(cls)
