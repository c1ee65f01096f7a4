"""Response models take listed fields from a dataclass, and nothing that is not listed."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from jobrunner import Attempt, DeadLetter, Health, Job, QueueInfo, Schedule, ScheduleTick
from jobrunner.core.response_models import ResponseModel, doc


@dataclass(frozen=True)
class Parcel:
    id: int
    weight: float | None = field(metadata=doc("In kilograms; null before it is weighed.", 1.5))
    colour: str = "red"
    sent_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)


class ParcelBody(ResponseModel, of=Parcel, shows=("id", "weight", "sent_at")):
    id: str = Field(coerce_numbers_to_str=True)


PARCEL = Parcel(7, 2.5)


def test_body_shows_the_listed_fields_in_their_order_and_no_others() -> None:
    body = ParcelBody.model_validate(PARCEL)
    assert body.model_dump_json() == '{"id":"7","weight":2.5,"sent_at":"2026-01-01T00:00:00Z"}'


def test_body_has_types_descriptions_and_examples_of_the_dataclass() -> None:
    schema = ParcelBody.model_json_schema()
    assert schema["properties"]["weight"] == {
        "anyOf": [{"type": "number"}, {"type": "null"}],
        "description": "In kilograms; null before it is weighed.",
        "examples": [1.5],
        "title": "Weight",
    }
    assert schema["required"] == ["id", "weight", "sent_at"]
    with pytest.raises(ValidationError):
        ParcelBody.model_validate({"id": 7, "weight": "heavy", "sent_at": PARCEL.sent_at})


def test_body_that_extends_another_adds_its_fields_behind() -> None:
    class Whole(ParcelBody, of=Parcel, shows=("colour",)):
        pass

    assert list(Whole.model_fields) == ["id", "weight", "sent_at", "colour"]
    assert list(ParcelBody.model_fields) == ["id", "weight", "sent_at"]


def test_body_of_a_field_that_there_is_not_is_refused() -> None:
    with pytest.raises(KeyError, match="price"):

        class Priced(ResponseModel, of=Parcel, shows=("price",)):
            pass


@pytest.mark.parametrize(
    "cls", [Attempt, DeadLetter, Health, Job, QueueInfo, Schedule, ScheduleTick]
)
def test_public_dataclass_is_a_type_that_routes_can_return(cls: type[Any]) -> None:
    assert TypeAdapter(cls).json_schema()["properties"]
