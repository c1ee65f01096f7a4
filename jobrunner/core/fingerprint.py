"""Computes the fingerprint of a failure: equal for failures of one fault, and different for those of another.

It is a function of the stored texts alone, so any process computes the same at any time.  Line numbers do not count,
since a deploy shifts them.  The task counts under its stored name: after a rename, its older jobs have groups of their
own.
"""

import os
import re
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

DIGITS: Final = 16
"""Hex digits of a fingerprint."""
MAX_MESSAGE: Final = 2_000
"""Characters of a message that count; the rest is left out."""
MAX_WORDS: Final = 300
"""Characters that count of what remains without the values."""
MAX_TRACEBACK: Final = 40_000
"""Characters of a traceback that count, from its end; a stored one is shorter."""

_VALUES: Final = re.compile(
    r"""
    # A quoted part, up to its closing quote or the end. A quote between two letters is an apostrophe.
    (?<!\w)[bBrRuU]?(?:
        '(?:[^'\\]|\\.?|'(?=\w))*+'?
        | "(?:[^"\\]|\\.?|"(?=\w))*+"?
        | \x60[^\x60]*+\x60?
    )
    | \b[a-zA-Z][\w+.-]{0,15}+://\S++  # a URL
    | (?<![\w.+-])[\w.+-]++@[\w.-]++  # an email address
    | \b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b
    | (?:(?<![\w.])[-+])?\b[^\W\d]*+\d\w*+  # a word with a digit: a number, an address, an id
    | \b(?:None|True|False|null|true|false|nan|inf)\b
    """,
    re.VERBOSE | re.DOTALL,
)
# A list or an object has more values at another time, and ends in other brackets.
_SEVERAL: Final = re.compile(r"\*(?:[\s,.:;/=+()\[\]{}-]++\*)*+[)\]}]*+")
_PARTS_OF_GROUP: Final = re.compile(r"\(\d+ sub-exceptions?\)")
# Pydantic shows the value, and cuts it anywhere; SQLAlchemy shows the statement with its values.
_INPUT: Final = re.compile(r"input_value=.{0,200}?, input_type=\w+", re.DOTALL)
_STATEMENT: Final = "\n[SQL: "

_CHAINS: Final = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
_IN_GROUP: Final = re.compile(r"\+(?:-\+)?-{16} (?:\d+|\.{3}) -{16}\n")
_TYPE_IN_GROUP: Final = re.compile(r"^ *\| ([^\W\d][\w.]*)(?::|$)", re.MULTILINE)
# Not anchored to the line: a search for the literal is ten times as fast.
_FRAME: Final = re.compile(r'File "([^"\n]+)", line \d+, in (.+)')

_PACKAGE: Final = re.compile(r"[/\\](?:site|dist)-packages[/\\]([^/\\]+)")
_STANDARD_LIBRARY: Final = re.compile(r"[/\\]lib(?:64)?[/\\]python\d[^/\\]*[/\\]|^<")
_OURS: Final = (
    str(Path(__file__).parents[1]) + os.sep,
    "jobrunner/",
)
"""Starts of paths in this package; in an executable of PyInstaller, paths are relative."""


# Many jobs fail at once, with equal texts.
@lru_cache(maxsize=64)
def fingerprint(task: str, error_type: str | None, error: str | None, traceback: str | None) -> str:
    """Return the fingerprint of a failure, 16 hex digits.

    Args:
        task: the task's stored name.
        error_type: the name of the exception's class.
        error: its message.
        traceback: its traceback as text.
    """
    places = _places((traceback or "")[-MAX_TRACEBACK:])
    parts = (task, error_type or "", without_values(error or ""), *places)
    return blake2b("\0".join(parts).encode(), digest_size=DIGITS // 2).hexdigest()


def without_values(message: str) -> str:
    """Return a message with ``*`` in place of numbers, ids, addresses and quoted parts."""
    text = message[:MAX_MESSAGE].partition(_STATEMENT)[0]
    text = _INPUT.sub("", _PARTS_OF_GROUP.sub("", text))
    text = _SEVERAL.sub("*", _VALUES.sub("*", text))
    return " ".join(text.split())[:MAX_WORDS]


def _places(traceback: str) -> list[str]:
    """Return where the exception was raised, and where each exception of its group was.

    Only the last exception of a chain counts; the ones before it have led to it.
    """
    whole, *members = _IN_GROUP.split(_last_of_chain(traceback, "\n"))
    return [_place(whole), *sorted({_member(member) for member in members})]


def _last_of_chain(text: str, lead: str) -> str:
    return text[max(0, *(text.rfind(f"{lead}{chained}") for chained in _CHAINS)) :]


def _member(text: str) -> str:
    """Return the class of a group's exception, and where it was raised."""
    last = _last_of_chain(text, "| ")
    frames = [*_FRAME.finditer(last)]
    named = _TYPE_IN_GROUP.search(last, frames[-1].end() if frames else 0)
    return f"{named[1] if named else ''} {_place(last)}"


def _place(text: str) -> str:
    """Return the last frame in the application's own code."""
    frames = _FRAME.findall(text)
    # An application that is installed as a package lies among the libraries; its task is called first.
    home = _package_of(frames[0][0]) if frames else None
    for file, function in reversed(frames):
        if _is_own(file, home):
            # The folder of a release often has its number in its name.
            *folders, name = re.split(r"[/\\]", file)
            return f"{without_values(folders[-1]) if folders else ''}/{name}:{function}"
    return ""


def _is_own(file: str, home: str | None) -> bool:
    if file.startswith(_OURS):
        return False
    if "-packages" in file:
        return home not in (None, "jobrunner") and _package_of(file) == home
    return not _STANDARD_LIBRARY.search(file)


def _package_of(file: str) -> str | None:
    found = _PACKAGE.search(file)
    return None if found is None else found[1]
