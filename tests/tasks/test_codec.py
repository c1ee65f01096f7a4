"""Arguments and results that are stored come back as they were."""

import dataclasses
import decimal
import inspect
import json
import pathlib
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, computed_field

from jobrunner.core.errors import InvalidArguments, InvalidTask, ResultNotStored
from jobrunner.tasks.codec import ArgsCodec, ResultCodec
from tests.support.arguments import (
    Attachment,
    Colour,
    Point,
    Surly,
    User,
    codec_for,
    codec_of,
    nested,
    send,
)


class Aliased(BaseModel):
    user_id: int = Field(alias="userId")
    shown: int = Field(default=0, serialization_alias="out", validation_alias="in")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.user_id


class Base64Attachment(Attachment):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class Tree(BaseModel):
    children: "list[Tree]" = []


@dataclasses.dataclass(eq=False)
class ById:
    x: int


# what is stored


def test_encode_positional_and_named_arguments_gives_one_canonical_object() -> None:
    codec = codec_of(send)
    stored = codec.encode(("a@b.c", "ada"), {"copies": 2})
    assert stored == '{"email":"a@b.c","username":"ada","copies":2}'
    assert codec.encode((), {"copies": 2, "username": "ada", "email": "a@b.c"}) == stored


def test_encode_without_the_optional_arguments_leaves_the_defaults_in_the_function() -> None:
    assert codec_of(send).encode(("a@b.c",), {}) == '{"email":"a@b.c"}'


def test_decode_what_was_encoded_gives_keyword_arguments() -> None:
    codec = codec_of(send)
    assert codec.decode(codec.encode(("a@b.c",), {"copies": 2})) == {"email": "a@b.c", "copies": 2}


def test_encode_without_parameters_gives_an_empty_object() -> None:
    codec = ArgsCodec("digest", ())
    assert codec.encode((), {}) == "{}"
    assert codec.decode("{}") == {}


@pytest.mark.parametrize(
    "name", ["json", "copy", "schema", "dict", "validate", "model_config", "self_"]
)
def test_encode_a_parameter_named_like_a_model_attribute_stores_it(name: str) -> None:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    codec = ArgsCodec("t", [inspect.Parameter(name, kind, annotation=str)])
    assert codec.decode(codec.encode(("x",), {})) == {name: "x"}


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (uuid.UUID, uuid.UUID(int=7)),
        (datetime, datetime(2026, 11, 22, 8, tzinfo=UTC)),
        (timedelta, timedelta(days=1, microseconds=3)),
        (decimal.Decimal, decimal.Decimal("10.10")),
        (bytes, b"\xff\x00"),
        (pathlib.Path, pathlib.Path("/var")),
        (Colour, Colour.RED),
        (Literal["a", "b"], "b"),
        (set[int], {1, 2}),
        (tuple[int, str], (1, "a")),
        (dict[int, str], {1: "a"}),
        (dict[str, Any], {"a": [1, 2.5, None, True, {"b": "c"}]}),
        (User, User(name="ada", joined=datetime(2026, 1, 1, tzinfo=UTC))),
        (User | None, None),
        (list[User | int], [User(name="ada"), 3]),
        (Aliased, Aliased.model_validate({"userId": 3, "in": 4})),
        (Base64Attachment, Base64Attachment(content=b"\xff")),
        (Tree, Tree(children=[Tree()])),
        (Point, Point(1, {2})),
        (float, 1e308),
        (int, 2**70),
    ],
)  # fmt: skip
def test_decode_a_typed_value_gives_an_equal_one(annotation: Any, value: object) -> None:
    codec = codec_for(annotation)
    back = codec.decode(codec.encode((value,), {}))["detail"]
    assert back == value
    assert type(back) is type(value)


def test_encode_an_object_without_equality_of_its_own_compares_its_parts() -> None:
    codec = codec_for(list[ById])
    assert codec.decode(codec.encode(([ById(3)],), {}))["detail"][0].x == 3


def test_encode_text_for_an_int_stores_what_the_annotation_says() -> None:
    assert codec_for(int).encode(("5",), {}) == '{"detail":5}'


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.binary()
        | st.dates(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
            | st.frozensets(st.integers(), max_size=3)
            | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_encode_anything_into_an_untyped_parameter_is_kept_exactly_or_refused(
    value: object,
) -> None:
    codec = codec_for(Any)
    try:
        stored = codec.encode((value,), {})
    except InvalidArguments:
        return
    back = codec.decode(stored)["detail"]
    assert back == value
    assert repr(back) == repr(value)


# a signature that has changed since (D18)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ("{}", "missing: email"),
        ('{"email":"a","gone":1}', "gone: Extra inputs are not permitted"),
        ('{"email":["a"]}', "email: Input should be a valid string"),
        ("[]", "Input should be an object"),
        ("nonsense", "Invalid JSON"),
    ],
)
def test_D18_decode_a_payload_that_no_longer_fits_is_refused(payload: str, said: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        codec_of(send).decode(payload)
    assert said in str(caught.value)


def test_D18_decode_a_payload_from_before_an_optional_parameter_still_fits() -> None:
    assert codec_of(send).decode('{"email":"a"}') == {"email": "a"}


def test_D18_merge_the_missing_parameter_makes_an_old_payload_fit() -> None:
    assert codec_of(send).merge('{"username":"ada"}', {"email": "a@b.c"}) == (
        '{"email":"a@b.c","username":"ada"}'
    )


def test_D18_merge_leaves_out_what_the_function_no_longer_takes() -> None:
    assert codec_of(send).merge('{"mail":"a"}', {"email": "a"}) == '{"email":"a"}'


# merging


def test_merge_named_parameters_keeps_the_others() -> None:
    codec = codec_of(send)
    assert codec.merge('{"email":"a","copies":2}', {"copies": 3}) == '{"email":"a","copies":3}'


def test_merge_a_name_that_is_no_parameter_is_refused() -> None:
    with pytest.raises(InvalidArguments, match="has no parameter colour"):
        codec_of(send).merge('{"email":"a"}', {"colour": 1})


def test_merge_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidArguments, match="copies: Input should be a valid integer"):
        codec_of(send).merge('{"email":"a"}', {"copies": "many"})


def test_merge_over_arguments_that_still_lack_one_is_refused() -> None:
    with pytest.raises(InvalidArguments, match="missing: email"):
        codec_of(send).merge("{}", {"copies": 2})


@pytest.mark.parametrize(
    ("annotation", "value", "stored"),
    [
        (bytes, "_w==", '"_w=="'),
        (bytes, b"\xff", '"_w=="'),
        (set[int], [4], "[4]"),
        (set[int], {4}, "[4]"),
        (datetime, "2026-01-01T00:00:00Z", '"2026-01-01T00:00:00Z"'),
        (datetime, datetime(2026, 1, 1, tzinfo=UTC), '"2026-01-01T00:00:00Z"'),
        (User, {"name": "ada"}, '{"name":"ada"}'),
        (User, User(name="ada", joined=None), '{"name":"ada","joined":null}'),
        (Aliased, {"userId": 3, "in": 4}, '{"user_id":3,"shown":4}'),
        (Aliased, {"user_id": 3, "shown": 4}, '{"user_id":3,"shown":4}'),
    ],
)
def test_merge_takes_python_objects_and_plain_json(
    annotation: Any, value: object, stored: str
) -> None:
    assert codec_for(annotation).merge("{}", {"detail": value}) == f'{{"detail":{stored}}}'


def test_merge_deep_nesting_is_refused() -> None:
    value = nested(100_000)
    with pytest.raises(InvalidArguments, match="nested too deep"):
        codec_for(Any).merge("{}", {"detail": value})
    while value:
        value = value[0]


# declaring


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (Callable[[], int], "a function cannot be stored"),
        (list[Callable[[], int]] | None, "detail[]: a function cannot be stored"),
        (type[int], "a class cannot be stored"),
        (Surly, "pydantic has no schema for Surly"),
        (list["Nowhere"], "pydantic has no schema"),  # type: ignore[name-defined]  # noqa: F821
    ],
)
def test_declare_a_parameter_that_cannot_be_stored_is_refused(annotation: Any, said: str) -> None:
    with pytest.raises(InvalidTask, match="parameter 'detail'") as caught:
        codec_for(annotation)
    assert said in str(caught.value)


def test_declare_a_function_that_is_written_as_its_name_is_taken() -> None:
    looked_up = Annotated[
        Callable[[Any], int],
        PlainSerializer(lambda fn: fn.__name__),
        BeforeValidator(lambda v: len if v == "len" else v),
    ]
    codec = codec_for(list[looked_up])
    assert codec.decode(codec.encode(([len],), {})) == {"detail": [len]}


# results


@pytest.mark.parametrize(
    ("annotation", "value", "stored"),
    [
        (int, 3, "3"),
        (str, "a", '"a"'),
        (bytes, b"\xff", '"_w=="'),
        (User, User(name="ada", joined=None), '{"name":"ada","joined":null}'),
        (list[User], [User(name="ada")], '[{"name":"ada"}]'),
        (tuple[int, int], (1, 2), "[1,2]"),
        (inspect.Signature.empty, {"a": 1}, '{"a":1}'),
    ],
)
def test_encode_a_result_gives_json_that_comes_back(
    annotation: Any, value: object, stored: str
) -> None:
    codec = ResultCodec("report", annotation)
    assert codec.encode(value) == stored
    assert codec.decode(stored) == value
    assert json.loads(stored) is not None


def test_encode_no_result_stores_nothing() -> None:
    codec = ResultCodec("report", None)
    assert codec.encode(None) is None
    assert codec.decode(None) is None


def test_encode_a_result_of_another_type_than_annotated_is_not_stored() -> None:
    with pytest.raises(ResultNotStored, match="valid integer"):
        ResultCodec("report", int).encode("many")


def test_encode_a_result_of_a_type_without_schema_is_not_stored() -> None:
    codec = ResultCodec("report", Surly)
    assert codec.encode(None) is None
    with pytest.raises(ResultNotStored, match="pydantic has no schema for it"):
        codec.encode(Surly())
    with pytest.raises(ResultNotStored):
        codec.decode("1")


def test_decode_a_result_that_no_longer_fits_is_refused() -> None:
    with pytest.raises(ResultNotStored, match="valid integer"):
        ResultCodec("report", int).decode('"a"')
