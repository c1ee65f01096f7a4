"""The surface as type checkers see it: what they take, and what they refuse on exactly which line."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]

Found = set[tuple[int, str]]
"""Errors by line, with mypy's code."""

_MARK: Final = re.compile(r"# E: ([a-z, -]+)$")
_MYPY_LINE: Final = re.compile(r":(\d+): error: .*\[([a-z-]+)\]$")


def marked(source: Path) -> Found:
    found: Found = set()
    for number, line in enumerate(source.read_text().splitlines(), start=1):
        mark = _MARK.search(line)
        if mark is not None:
            found |= {(number, code) for code in mark[1].split(", ")}
    return found


def check(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy_on(source: Path) -> Found:
    found: Found = set()
    for line in check("mypy", "--strict", "--no-error-summary", str(source)).splitlines():
        # What it says of the library's own modules is for the check recipe.
        error = _MYPY_LINE.search(line)
        if error is not None and source.name in line:
            found.add((int(error[1]), error[2]))
    return found


def pyright_on(source: Path) -> set[int]:
    report = json.loads(
        check("pyright", "--outputjson", "--pythonpath", sys.executable, str(source))
    )
    return {
        error["range"]["start"]["line"] + 1
        for error in report["generalDiagnostics"]
        if error["severity"] == "error"
    }


@pytest.fixture
def refused(tmp_path: Path) -> Path:
    source = tmp_path / "refused.py"
    source.write_text((HERE / "refused.py.txt").read_text())
    return source


CHECKERS: Final = ["mypy", *(["pyright"] if importlib.util.find_spec("pyright") else [])]
"""The type checkers; only mypy if pyright, which installs Node.js, is missing."""

# A cold cache takes mypy half a minute.
pytestmark = pytest.mark.slow


def lines_found(checker: str, source: Path) -> set[int]:
    return pyright_on(source) if checker == "pyright" else {line for line, _ in mypy_on(source)}


@pytest.mark.parametrize("checker", CHECKERS)
def test_check_what_users_write_finds_no_error(checker: str) -> None:
    assert not lines_found(checker, HERE / "accepted.py")


def test_check_what_is_wrong_with_mypy_finds_exactly_the_marked_errors(refused: Path) -> None:
    assert mypy_on(refused) == marked(refused)


@pytest.mark.parametrize("checker", CHECKERS)
def test_check_what_is_wrong_finds_exactly_the_marked_lines(checker: str, refused: Path) -> None:
    assert lines_found(checker, refused) == {line for line, _ in marked(refused)}
