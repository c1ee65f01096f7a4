"""Sensitive fields are hidden at any depth, and what is hidden comes back from what an operator sends."""

from dataclasses import dataclass
from typing import Any

import pytest

from jobrunner import InvalidArguments
from jobrunner.core.redaction import REDACTED, Redaction

REDACTION = Redaction.of({"password", "api_key"})


@dataclass(frozen=True, slots=True)
class Shown:
    password: str
    args: dict[str, Any]
    result: Any


def test_values_of_names_are_hidden_at_any_depth_whatever_they_are() -> None:
    value = {
        "user": "ada",
        "password": "hunter2",
        "accounts": [{"name": "a", "API-Key": {"id": 1, "key": "k"}}, [{"apikey": None}], 7],
    }
    assert REDACTION.value(value) == {
        "user": "ada",
        "password": REDACTED,
        "accounts": [{"name": "a", "API-Key": REDACTED}, [{"apikey": REDACTED}], 7],
    }
    assert value["password"] != REDACTED


@pytest.mark.parametrize("value", [None, 1, 1.5, True, "password", [], {}, {"passwords": "x"}])
def test_values_without_a_sensitive_name_are_shown_as_they_are(value: object) -> None:
    assert REDACTION.value(value) == value


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("api_key", True),
        ("apiKey", True),
        ("API_KEY", True),
        ("x-api-key", False),
        ("api_keys", False),
        ("", False),
        ("_", False),
    ],
)
def test_names_are_compared_without_case_and_separators_and_as_a_whole(
    name: str, hidden: bool
) -> None:
    assert REDACTION.hides(name) is hidden


def test_no_names_hide_nothing() -> None:
    assert Redaction.of(()).value({"password": "x"}) == {"password": "x"}


def test_arguments_and_result_of_an_object_are_hidden_and_its_other_fields_are_not() -> None:
    thing = Shown("p", {"password": "p"}, [{"password": "p"}])
    assert REDACTION.shown(thing) == Shown("p", {"password": REDACTED}, [{"password": REDACTED}])


STORED = {
    "password": "hunter2",
    "login": {"password": "deep", "user": "ada"},
    "many": [{"api_key": "one"}, {"api_key": "two"}],
}


def test_what_was_shown_and_comes_back_is_what_is_stored() -> None:
    assert REDACTION.restored(REDACTION.value(STORED), STORED) == STORED


def test_what_was_edited_beside_a_hidden_value_keeps_the_hidden_value() -> None:
    given = {
        "login": {"password": REDACTED, "user": "bob"},
        "many": [{"api_key": REDACTED, "more": 1}, {"api_key": "new"}],
    }
    assert REDACTION.restored(given, STORED) == {
        "login": {"password": "deep", "user": "bob"},
        "many": [{"api_key": "one", "more": 1}, {"api_key": "new"}],
    }


def test_the_word_in_a_field_that_is_not_hidden_is_a_value_like_others() -> None:
    given = {"note": REDACTED, "notes": [REDACTED]}
    assert REDACTION.restored(given, STORED) == given


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"api_key": REDACTED}, "api_key"),
        ({"login": {"api_key": REDACTED}}, "login.api_key"),
        ({"other": {"password": REDACTED}}, "other.password"),
        # An item was taken away: nobody knows whose key this one is.
        ({"many": [{"api_key": REDACTED}]}, "many[0].api_key"),
        ([{"password": REDACTED}], "[0].password"),
    ],
)
def test_the_word_where_nothing_is_stored_is_refused_with_its_place(
    given: object, place: str
) -> None:
    with pytest.raises(InvalidArguments, match=r"send the value itself") as refused:
        REDACTION.restored(given, STORED)
    assert str(refused.value).startswith(f"{place} is '[redacted]'")


def test_values_that_are_nested_too_deep_are_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidArguments, match="too deep"):
        REDACTION.restored(deep, STORED)
