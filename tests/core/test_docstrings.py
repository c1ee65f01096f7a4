"""Docstrings keep the rules of CONTRIBUTING.md that a machine can check."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import CHECKOUT

PACKAGES = ["app", "jobrunner", "tests"]

BANNED = re.compile(
    r"\b(told|tells?|telling|hears?|heard|hearing|looks?|looked|looking|held against|no more|of its own|whoever)\b",
    re.IGNORECASE,
)
QUESTION = re.compile(r"(What|Who|Whoever|Whatever|Whether|Where|When|How|Why|Those|That|Which)\b")
WORDS = 14
"""The most words in the first sentence of a module, class or function, outside of the tests."""


def docstrings(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Yield line, text, and whether it is of a module, class or function rather than of an attribute."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for index, statement in enumerate(node.body):
                if (
                    isinstance(statement, ast.Expr)
                    and isinstance(statement.value, ast.Constant)
                    and isinstance(statement.value.value, str)
                ):
                    yield statement.lineno, statement.value.value, index == 0


def problems(text: str, *, summary: bool) -> list[str]:
    """Return what is wrong with a docstring."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.:;!?])\s", paragraph)[0]
    found = [f"the word {word!r}" for word in BANNED.findall(text)]
    if QUESTION.match(sentence):
        found.append(f"begins with {sentence.split()[0]!r}")
    if summary and len(sentence.split()) > WORDS:
        found.append(f"{len(sentence.split())} words in the first sentence")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_say_in_plain_words_what_a_thing_does(package: str) -> None:
    wrong = [
        f"{path.relative_to(CHECKOUT)}:{line}: {', '.join(found)}"
        for path in sorted((CHECKOUT / package).rglob("*.py"))
        for line, text, summary in docstrings(path)
        if (found := problems(text, summary=summary and package != "tests"))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Return a job.", []),
        ("What is asked for, checked.", ["begins with 'What'"]),
        ("Hear what a round did.", ["the word 'Hear'"]),
        ("One " * 15 + ".", ["16 words in the first sentence"]),
        ("Return a job.\n\nIt has a lock of its own.", ["the word 'of its own'"]),
    ],
)
def test_problems_are_found(text: str, found: list[str]) -> None:
    assert problems(text, summary=True) == found
