"""Arguments and results: what is stored comes back as it was, and what would not is refused at the call."""

import dataclasses
import decimal
import enum
import inspect
import json
import math
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
from jobrunner.tasks.codec import MAX_ARGS_BYTES, MAX_RESULT_BYTES, ArgsCodec, ResultCodec


class User(BaseModel):
    name: str
    joined: datetime | None = None


class Admin(User):
    level: int = 1


class Aliased(BaseModel):
    user_id: int = Field(alias="userId")
    shown: int = Field(default=0, serialization_alias="out", validation_alias="in")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.user_id


class Attachment(BaseModel):
    content: bytes


class Base64Attachment(Attachment):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class Tree(BaseModel):
    children: "list[Tree]" = []


@dataclasses.dataclass
class Point:
    x: int
    seen: set[int]


@dataclasses.dataclass(eq=False)
class ById:
    x: int


class Colour(enum.Enum):
    RED = "red"


class Surly:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not today")

    __hash__ = None  # type: ignore[assignment]


def codec_of(fn: Callable[..., Any]) -> ArgsCodec:
    return ArgsCodec(fn.__name__, tuple(inspect.signature(fn).parameters.values()))


def codec_for(annotation: Any) -> ArgsCodec:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return ArgsCodec("note", [inspect.Parameter("detail", kind, annotation=annotation)])


def refusal(annotation: Any, value: object) -> str:
    with pytest.raises(InvalidArguments) as caught:
        codec_for(annotation).encode((value,), {})
    return str(caught.value).removeprefix("note: ")


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def send(email: str, username: str = "you", *, copies: int = 1) -> None:
    raise NotImplementedError


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


# calls that are wrong as calls


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "send(email, username=..., copies=...): missing a required argument: 'email'"),
        (("a", "b", 3), {}, "too many positional arguments"),
        (("a",), {"email": "b"}, "multiple values for argument 'email'"),
        (("a",), {"colour": "red"}, "unexpected keyword argument 'colour'"),
    ],
)
def test_encode_a_call_that_python_would_refuse_says_so_in_its_words(
    args: tuple[Any, ...], kwargs: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        codec_of(send).encode(args, kwargs)
    assert said in str(caught.value)


def test_encode_a_positional_only_parameter_by_name_is_refused() -> None:
    def note(text: str, /) -> None: ...

    with pytest.raises(InvalidArguments, match="positional"):
        codec_of(note).encode((), {"text": "a"})


@pytest.mark.parametrize(
    ("word", "ours"),
    [("delay", "delay"), ("countdown", "delay"), ("eta", "run_at"), ("_job_id", "key")],
)
def test_encode_an_option_among_the_arguments_names_the_options_call(word: str, ours: str) -> None:
    with pytest.raises(InvalidArguments, match=rf"write send\.options\({ours}=\.\.\.\)"):
        codec_of(send).encode(("a",), {word: 5})


def test_encode_a_value_of_the_wrong_type_names_the_path_and_not_the_value() -> None:
    said = refusal(User, {"name": {"secret": "hunter2"}})
    assert said == "detail.name: Input should be a valid string"


def test_encode_a_wrong_value_keeps_it_out_of_the_traceback_too() -> None:
    with pytest.raises(InvalidArguments) as caught:
        codec_for(int).encode(("hunter2",), {})
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


# the fault catalogue, section F


def test_F1_encode_more_than_a_mebibyte_is_refused() -> None:
    assert "1,048,576" in refusal(str, "x" * MAX_ARGS_BYTES)


def test_F1_encode_as_much_as_a_mebibyte_is_stored() -> None:
    frame = len('{"detail":""}')
    assert len(codec_for(str).encode(("x" * (MAX_ARGS_BYTES - frame),), {})) == MAX_ARGS_BYTES


def test_F1_encode_counts_bytes_and_not_characters() -> None:
    assert "bytes" in refusal(str, "€" * (MAX_ARGS_BYTES // 3))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("annotation", [float, Any, float | None, dict[str, float]])
def test_F2_encode_nan_or_infinity_is_refused(annotation: Any, number: float) -> None:
    value = {"a": number} if annotation == dict[str, float] else number
    assert refusal(annotation, value).startswith("detail")


def test_F2_encode_nan_deep_in_plain_data_names_its_path() -> None:
    assert refusal(Any, {"a": [1, math.nan]}).startswith("detail.a[1]: nan")


def test_F2_decode_a_number_that_overflows_is_refused_for_a_float() -> None:
    with pytest.raises(InvalidArguments, match="finite"):
        codec_for(float).decode('{"detail":1e400}')


def test_F2_merge_nan_is_refused() -> None:
    with pytest.raises(InvalidArguments):
        codec_for(float).merge('{"detail":1.0}', {"detail": math.nan})


@pytest.mark.parametrize("annotation", [str, Any])
def test_F3_encode_a_lone_surrogate_is_refused(annotation: Any) -> None:
    assert (
        refusal(annotation, "\ud800")
        == "detail: the text holds a lone surrogate, which is not UTF-8"
    )


def test_F3_encode_a_lone_surrogate_as_a_key_is_refused() -> None:
    refusal(Any, {"\ud800": 1})


def test_F4_encode_nul_is_stored_as_an_escape() -> None:
    codec = codec_for(str)
    stored = codec.encode(("a\0b",), {})
    assert stored == r'{"detail":"a\u0000b"}'
    assert codec.decode(stored) == {"detail": "a\0b"}


@pytest.mark.parametrize("annotation", [int, Any, list[int]])
def test_F5_encode_an_int_of_5000_digits_is_refused(annotation: Any) -> None:
    value = [10**5000] if annotation == list[int] else 10**5000
    assert "digits" in refusal(annotation, value)


@pytest.mark.parametrize(
    "number", [2**63, -(2**63) - 1, 10**4000], ids=["2**63", "-2**63-1", "10**4000"]
)
def test_F5_encode_an_int_beyond_64_bits_is_kept(number: int) -> None:
    codec = codec_for(int)
    assert codec.decode(codec.encode((number,), {})) == {"detail": number}


@pytest.mark.parametrize("depth", [300, 100_000])
def test_F6_encode_deep_nesting_is_refused(depth: int) -> None:
    value = nested(depth)
    said = refusal(Any, value)
    while value:  # taken apart by hand: the interpreter would recurse
        value = value[0]
    assert said == "nested too deep to be stored as JSON"


def test_F6_encode_what_the_parser_would_not_take_back_is_refused() -> None:
    assert refusal(Any, nested(220)) == "nested too deep to be stored as JSON"


def test_F6_encode_a_list_that_holds_itself_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    assert "holds itself" in refusal(Any, ring)
    ring.clear()


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        ({1, 2}, "detail", "set"),
        ({"items": [1, 2, {3}]}, "detail.items[2]", "set"),
        ({"at": datetime(2026, 1, 1, tzinfo=UTC)}, "detail.at", "datetime"),
        ([b"\xff"], "detail[0]", "bytes"),
        ({"price": decimal.Decimal(1)}, "detail.price", "Decimal"),
        ({"who": User(name="ada")}, "detail.who", "User"),
        (Point(1, {2}), "detail", "Point"),
        (Colour.RED, "detail", "Colour"),
        ({"a": {"b": object()}}, "detail.a.b", "object"),
        (float, "detail", "type"),
    ],
)
def test_F7_encode_what_json_has_no_word_for_is_refused_with_its_path(
    value: object, path: str, kind: str
) -> None:
    said = refusal(Any, value)
    assert said.startswith(f"{path}: ")
    assert f"a {kind}" in said or f"an {kind}" in said
    assert "cannot be stored as JSON" in said


def test_F7_encode_bytes_that_their_model_writes_as_text_names_the_setting() -> None:
    said = refusal(Attachment, Attachment(content=b"\xff"))
    assert said.startswith("detail.content: ")
    assert 'ser_json_bytes="base64"' in said


@pytest.mark.parametrize(
    ("value", "path"), [((1, 2), "detail"), ({"a": (1,)}, "detail.a"), ([[(1,)]], "detail[0][0]")]
)
def test_F8_encode_a_tuple_that_would_become_a_list_is_refused(value: object, path: str) -> None:
    said = refusal(Any, value)
    assert said.startswith(f"{path}: a tuple")
    assert "tuple[...]" in said


@pytest.mark.parametrize("value", [{1: "a"}, {1: "a", "1": "b"}, {None: 1}, {True: 1}])
def test_F8_encode_a_key_that_would_become_text_is_refused(value: object) -> None:
    assert "the keys of JSON are str" in refusal(Any, value)


@pytest.mark.parametrize("annotation", [User, list[User], User | None])
def test_F8_encode_a_subclass_that_would_lose_its_fields_is_refused(annotation: Any) -> None:
    value = [Admin(name="ada")] if annotation == list[User] else Admin(name="ada")
    said = refusal(annotation, value)
    assert "an Admin would come back as a User without what it adds" in said


def test_F8_encode_a_model_that_was_changed_behind_its_back_is_refused() -> None:
    user = User(name="ada")
    user.__dict__["name"] = 5
    assert refusal(User, user).startswith("it would not come back from JSON: detail.name")


def test_F8_encode_what_cannot_be_compared_is_refused() -> None:
    class Odd(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        inner: Any

    assert refusal(Odd, Odd(inner={"a": Surly()})).startswith("detail.inner.a: ")


def test_F8_encode_what_raises_when_compared_is_refused() -> None:
    class Odd(BaseModel):
        n: int

        def __eq__(self, other: object) -> bool:
            raise RuntimeError("not today")

        __hash__ = None  # type: ignore[assignment]

    assert codec_for(Odd).encode((Odd(n=1),), {}) == '{"detail":{"n":1}}'
    assert refusal(dict[str, Any], {"a": Odd(n=1)}).startswith("detail.a: ")


def test_F9_change_an_argument_after_the_call_leaves_the_stored_one() -> None:
    codec = codec_for(dict[str, list[int]])
    detail = {"a": [1]}
    stored = codec.encode((detail,), {})
    detail["a"].append(2)
    assert stored == '{"detail":{"a":[1]}}'


def test_F10_encode_a_result_that_is_too_large_is_not_stored() -> None:
    with pytest.raises(ResultNotStored, match="1,048,576"):
        ResultCodec("report", str).encode("x" * MAX_RESULT_BYTES)


@pytest.mark.parametrize("value", [{1, 2}, object(), math.nan, (1,), {1: 2}, "\ud800", [10**5000]])
def test_F10_encode_a_result_that_is_not_json_is_not_stored(value: object) -> None:
    with pytest.raises(ResultNotStored, match="the result of report"):
        ResultCodec("report", Any).encode(value)


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
