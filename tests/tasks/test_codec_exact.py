"""Types whose values are not read back before they are stored, since JSON holds each of them."""

from typing import Annotated, Any, Literal

import pytest
from annotated_types import Gt
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, StringConstraints, TypeAdapter, with_config
from typing_extensions import TypedDict

from jobrunner.tasks.codec_value import EXACT_BYTES, Refused, ValueCodec


class Closed(TypedDict):
    number: int


@with_config(ConfigDict(extra="allow"))
class Open(TypedDict):
    number: int


def _is_exact(kind: Any) -> bool:
    return ValueCodec(TypeAdapter(kind))._is_exact


@pytest.mark.parametrize(
    "kind", [None, bool, int, str, int | None, list[int], list[list[str | None]]]
)
def test_plain_type_is_exact(kind: Any) -> None:
    assert _is_exact(kind)


@pytest.mark.parametrize(
    "kind",
    [
        Any,
        float,  # not a number and infinity
        bytes,
        dict[str, int],
        tuple[int, int],
        set[int],
        int | str,
        Literal["a"],
        Annotated[int, Gt(0)],
        Annotated[str, StringConstraints(to_lower=True)],
        Open,
        Closed,  # drops the extra fields that it is given
    ],
)
def test_type_that_may_change_a_value_is_read_back(kind: Any) -> None:
    assert not _is_exact(kind)


@given(st.lists(st.integers() | st.none()))
def test_exact_numbers_come_back(value: list[int | None]) -> None:
    codec = ValueCodec(TypeAdapter(list[int | None]))
    assert codec.read(codec.write(value, 1 << 20)) == value


@given(st.text())
def test_exact_text_comes_back_or_is_refused(value: str) -> None:
    codec = ValueCodec(TypeAdapter(str))
    try:
        text = codec.write(value, 1 << 20)
    except Refused:
        with pytest.raises(UnicodeEncodeError):
            value.encode()
    else:
        assert codec.read(text) == value


@pytest.mark.parametrize(
    "digits", [EXACT_BYTES - 1, EXACT_BYTES, EXACT_BYTES + 1, 4_299, 4_300, 4_301]
)
def test_long_number_comes_back_or_is_refused(digits: int) -> None:
    codec = ValueCodec(TypeAdapter(int))
    number = 10 ** (digits - 1)
    try:
        text = codec.write(number, 1 << 20)
    except Refused:
        assert digits > EXACT_BYTES
    else:
        assert codec.read(text) == number
