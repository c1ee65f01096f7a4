"""Calls whose arguments would not come back as they were are refused."""

import decimal
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from jobrunner.core.errors import InvalidArguments, ResultNotStored
from jobrunner.tasks.codec import MAX_ARGS_BYTES, MAX_RESULT_BYTES, ResultCodec
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


class Admin(User):
    level: int = 1


def refusal(annotation: Any, value: object) -> str:
    with pytest.raises(InvalidArguments) as caught:
        codec_for(annotation).encode((value,), {})
    return str(caught.value).removeprefix("note: ")


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
