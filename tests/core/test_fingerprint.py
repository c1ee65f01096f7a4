"""Fingerprints: equal for failures of one fault, different for those of another."""

import asyncio
import re
import sqlite3
import traceback
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from jobrunner.core.fingerprint import MAX_MESSAGE, MAX_TRACEBACK, fingerprint, without_values
from jobrunner.tasks import codec_errors


def of(error: BaseException, task: str = "work") -> str:
    """Return the fingerprint of an exception as a worker stores it."""
    text = "".join(traceback.format_exception(error))
    return fingerprint(task, type(error).__qualname__, str(error), text)


def raised(function: Callable[..., object], *args: object) -> BaseException:
    """Return the exception of a call."""
    try:
        function(*args)
    except BaseException as error:  # noqa: BLE001 - the tests compare any
        return error
    raise AssertionError("it raised nothing")


# -- messages ----------------------------------------------------------------------------------------

UNIQUE = (
    "(sqlite3.IntegrityError) UNIQUE constraint failed: user.email\n"
    "[SQL: INSERT INTO user (email) VALUES {}]\n[parameters: ({})]"
)
"""An error of SQLAlchemy."""

SAME = [
    ("'ada'", "'bob'", "*"),
    ("7", "12345", "*"),
    ("-3.5 s", "10 s", "* s"),
    ("Connection unexpectedly closed", "Connection unexpectedly closed", None),
    (
        "550 5.1.1 <ann@example.com>: no such user",
        "550 5.7.1 <bob.x+y@mail.example.org>: no such user",
        "* <*>: no such user",
    ),
    (
        "[Errno 111] Connect call failed ('127.0.0.1', 5432)",
        "[Errno 111] Connect call failed ('10.0.0.17', 80)",
        "[Errno * Connect call failed (*",
    ),
    (
        "Server error '503 Service Unavailable' for url 'https://api.example.com/a?id=1'",
        "Server error '503 Service Unavailable' for url 'https://api.example.com/b'",
        "Server error * for url *",
    ),
    ("at https://a.example/x/y?z=abc", "at http://b.example", "at *"),
    (
        UNIQUE.format("(?)", "'ann@example.com',"),
        UNIQUE.format("(?), (?)", "'bob', 'eve'"),
        "(*.IntegrityError) UNIQUE constraint failed: user.email",
    ),
    (
        "order 01936d2c-7a40-7c3e-9d55-6f0c1d2e3f4a of cus_9s6XKzkNRiz8i3 is paid",
        "order deadbeef-abcd-abcd-abcd-deadbeefabcd of cus_4fdAW5ftNQow1a is paid",
        "order * of * is paid",
    ),
    ("<Order object at 0x7f3a2b>", "<Order object at 0xdeadbeef0>", "<Order object at *>"),
    ("missing ids: [1, 2, 3]", "missing ids: [9]", "missing ids: [*"),
    ("bad: {'a': 1, 'b': [2, None]}", "bad: {'x': True}", "bad: {*"),
    ('"O\'Brien" is taken', '"Ann" is taken', "* is taken"),
    (r"'O\'Brien' is taken", "'Ann' is taken", "* is taken"),
    ("column `name` is full", "column `email` is full", "column * is full"),
    ("b'\\xff' is no text", "b'ab' is no text", "* is no text"),
    (
        "due 2026-11-22T08:00:00+00:00, now 2026-11-23",
        "due 2025-01-01T00:00:00Z, now 2025-01-02",
        "due *, now *",
    ),
    ("cannot parse 'abc", "cannot parse 'defghi jkl", "cannot parse *"),
    (
        "unhandled errors in a TaskGroup (1 sub-exception)",
        "unhandled errors in a TaskGroup (3 sub-exceptions)",
        "unhandled errors in a TaskGroup",
    ),
    (
        "payload '" + "x" * 9_000 + "' is too long",
        "payload '" + "y" * 5_000 + "' is too long",
        "payload *",
    ),
]

DIFFERENT = [
    ("Connection unexpectedly closed", "Connection refused"),
    ("UNIQUE constraint failed: user.email", "UNIQUE constraint failed: user.username"),
    ("can't connect to the printer", "can't connect to the scanner"),
    ("no such user: 'ada'", "no such order: 'ada'"),
    ("it's gone, and it's late", "it's here, and it's late"),
    ("1 of 3 is missing", "1 of 3 is broken"),
    ("", "gone"),
]


@pytest.mark.parametrize(("one", "other", "words"), SAME)
def test_messages_that_differ_in_values_have_one_fingerprint(
    one: str, other: str, words: str | None
) -> None:
    assert fingerprint("t", "E", one, None) == fingerprint("t", "E", other, None)
    assert words is None or without_values(one) == words


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_messages_that_differ_in_words_have_two_fingerprints(one: str, other: str) -> None:
    assert fingerprint("t", "E", one, None) != fingerprint("t", "E", other, None)


class Order(BaseModel):
    number: int
    email: str


def test_validation_errors_count_by_field_and_rule_not_by_input() -> None:
    def validate(**values: object) -> BaseException:
        return raised(Order.model_validate, values)

    one, other = validate(number="x", email="a"), validate(number=[{"a": "b" * 99}], email="b")
    kinds = "int_parsing", "int_type"
    # A text that is no number, and a list, break two rules.
    assert [re.findall(r"\[type=(\w+)", str(error)) for error in (one, other)] == [
        [kind] for kind in kinds
    ]
    assert of(one) == of(validate(number="much longer " * 20, email="b"))
    assert of(other) == of(validate(number={"c": None}, email="b"))
    assert len({of(one), of(other), of(validate(number=1)), of(validate(email="a"))}) == 4


def test_invalid_arguments_count_by_parameter() -> None:
    def fault(**values: object) -> str:
        error = raised(Order.model_validate, values)
        assert isinstance(error, ValidationError)
        return fingerprint("t", "InvalidArguments", codec_errors.fault_of_validation(error), None)

    assert fault(number="x", email="a") == fault(number="y", email="b")
    assert fault(number="x", email="a") != fault(number=1, email=2)


def test_database_errors_count_by_constraint() -> None:
    conn = sqlite3.connect(":memory:")
    conn.execute("CREATE TABLE user (email TEXT UNIQUE, name TEXT NOT NULL)")
    insert = "INSERT INTO user VALUES (?, ?)"
    conn.execute(insert, ("a", "b"))
    unique, missing = (
        raised(conn.execute, insert, ("a", "c")),
        raised(conn.execute, insert, ("b", None)),
    )
    conn.close()
    assert of(unique) != of(missing)


# -- places -----------------------------------------------------------------------------------------

LIBRARIES = "/srv/shop/.venv/lib/python3.12/site-packages"
STANDARD = "/usr/lib/python3.12"


def trace(*frames: tuple[str, str], line: int = 10) -> str:
    lines = [f'  File "{file}", line {line}, in {name}\n    call()\n' for file, name in frames]
    return "Traceback (most recent call last):\n" + "".join(lines) + "ValueError: no luck\n"


def place(text: str | None) -> str:
    return fingerprint("t", "ValueError", "no luck", text)


SEND = ("/srv/shop/mail.py", "send")


def test_line_numbers_and_the_folder_of_a_release_do_not_count() -> None:
    assert place(trace(SEND, line=10)) == place(trace(SEND, line=99))
    releases = [
        trace((f"/srv/releases/{name}/mail.py", "send")) for name in ("20261122", "a81bc3f")
    ]
    assert place(releases[0]) == place(releases[1])
    assert place(trace(SEND)) == place(trace(("/home/ann/shop/mail.py", "send")))


def test_function_and_file_count() -> None:
    texts = [
        trace(SEND),
        trace(("/srv/shop/mail.py", "receive")),
        trace(("/srv/shop/post.py", "send")),
        trace(("/srv/store/mail.py", "send")),
        None,
    ]
    assert len(set(map(place, texts))) == len(texts)


@pytest.mark.parametrize(
    "library",
    [
        f"{LIBRARIES}/httpx/_client.py",
        "/usr/lib/python3/dist-packages/requests/api.py",
        f"{STANDARD}/asyncio/runners.py",
        "/usr/local/lib/python3.11/smtplib.py",
        "/usr/lib64/python3.13/json/decoder.py",
        "<frozen importlib._bootstrap>",
        codec_errors.__file__,
        "jobrunner/worker/executor.py",
        f"{LIBRARIES}/jobrunner/worker/executor.py",
    ],
)
def test_frames_of_libraries_do_not_count(library: str) -> None:
    assert place(trace(SEND, (library, "call"))) == place(trace(SEND))
    without = place(trace(("/srv/shop/pay.py", "pay"), (library, "call")))
    assert without == place(trace(("/srv/shop/pay.py", "pay")))


def test_failure_without_a_frame_of_the_application_has_no_place() -> None:
    assert place(trace((codec_errors.__file__, "call"))) == place(None)
    ours = f"{LIBRARIES}/jobrunner/tasks/codec.py"
    assert place(trace((ours, "decode"), (f"{LIBRARIES}/pydantic/main.py", "f"))) == place(None)


def test_application_that_is_installed_as_a_package_has_frames_too() -> None:
    send, connect = (
        (f"{LIBRARIES}/shop/mail.py", "send"),
        (f"{LIBRARIES}/smtplib2/client.py", "connect"),
    )
    receive = (f"{LIBRARIES}/shop/mail.py", "receive")
    assert place(trace(send, connect)) == place(trace(send))
    assert place(trace(send, connect)) != place(trace(send, receive, connect))


def lookup(key: str) -> object:
    return dict[str, object]()[key]


def convert(key: str) -> object:
    try:
        return lookup(key)
    except KeyError as error:
        raise ValueError("no such key") from error


def fail_while_handling(key: str) -> object:
    try:
        return lookup(key)
    except KeyError:
        raise ValueError("no such key")  # noqa: B904 - without a cause, on purpose


def test_last_exception_of_a_chain_counts() -> None:
    assert of(raised(lookup, "a")) == of(raised(lookup, "b"))
    assert of(raised(convert, "a")) == of(raised(convert, "b"))
    assert of(raised(convert, "a")) != of(raised(fail_while_handling, "a"))
    assert of(raised(convert, "a")) != of(raised(lookup, "a"))
    plain = trace(SEND)
    handling = "During handling of the above exception, another exception occurred:"
    text = f"{trace(('/srv/shop/pay.py', 'pay'))}\n{handling}\n\n{plain}"
    assert place(text) == place(plain)


async def gather(*keys: str) -> None:
    async with asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(fetch(key))


async def fetch(key: str) -> None:
    if key == "other":
        convert(key)
    lookup(key)


def group_of(*keys: str) -> str:
    return of(raised(asyncio.run, gather(*keys)))


def test_exceptions_of_a_group_count_without_their_number_and_order() -> None:
    assert group_of("a") == group_of("b", "c")
    assert group_of("a", "other") == group_of("other", "b", "c")
    assert len({group_of("a"), group_of("other"), group_of("a", "other")}) == 3


def test_syntax_error_has_the_place_of_the_call() -> None:
    def compile_it(text: str) -> None:
        compile(text, "<unknown>", "exec")

    assert of(raised(compile_it, "x = = 1")) == of(raised(compile_it, "\n\ny = = 2"))
    assert of(raised(compile_it, "x = = 1")) != of(raised(compile, "x = = 1", "<unknown>", "exec"))


def test_task_and_class_count() -> None:
    assert (
        len({fingerprint(task, kind, "m", None) for task in "ab" for kind in ("X", "Y", None)}) == 6
    )


# -- any text ----------------------------------------------------------------------------------------

WORDS = st.lists(st.text("bcdgh", min_size=1, max_size=8), min_size=1, max_size=8)
VALUES = st.one_of(
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(str),
    st.uuids().map(str),
    st.integers(0, 2**64).map(hex),
    st.text(st.characters(codec="utf-8"), max_size=30).map(repr),
    st.from_regex(r"[a-z]+[.+_-]?[a-z]+@[a-z]+\.(com|org)", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.datetimes().map(lambda moment: moment.isoformat()),
)


@given(WORDS, VALUES, VALUES)
def test_any_values_between_the_same_words_have_one_fingerprint(
    words: list[str], one: str, other: str
) -> None:
    def message(value: str) -> str:
        return f"{' '.join(words)} {value} end"

    assert without_values(message(one)) == without_values(message(other))


@given(WORDS, WORDS)
def test_any_different_words_have_different_fingerprints(one: list[str], other: list[str]) -> None:
    same = fingerprint("t", "E", " ".join(one), None) == fingerprint(
        "t", "E", " ".join(other), None
    )
    assert same == (one == other)


@given(st.text(), st.text(), st.text())
def test_any_texts_have_a_fingerprint_of_16_hex_digits(task: str, error: str, text: str) -> None:
    found = fingerprint.__wrapped__(task, None, error, text)
    assert re.fullmatch("[0-9a-f]{16}", found)
    assert found == fingerprint.__wrapped__(task, None, error, text)


def test_long_texts_are_read_up_to_a_bound() -> None:
    message = "so " * MAX_MESSAGE
    assert fingerprint("t", None, message, None) == fingerprint("t", None, f"{message}x", None)
    padding = f"{trace(('/srv/shop/pay.py', 'pay'))}{'-' * MAX_TRACEBACK}"
    assert place(f"{padding}\n{trace(SEND)}") == place(trace(SEND))
    assert place(padding) == place(None)
