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


def mypy_on(*sources: Path) -> dict[Path, Found]:
    found: dict[Path, Found] = {source: set() for source in sources}
    for line in check("mypy", "--strict", "--no-error-summary", *map(str, sources)).splitlines():
        # What it says of the library's own modules is for the check recipe.
        error = _MYPY_LINE.search(line)
        for source in sources:
            if error is not None and source.name in line:
                found[source].add((int(error[1]), error[2]))
    return found


def pyright_on(*sources: Path) -> dict[Path, set[int]]:
    report = json.loads(
        check("pyright", "--outputjson", "--pythonpath", sys.executable, *map(str, sources))
    )
    found: dict[Path, set[int]] = {source: set() for source in sources}
    for error in report["generalDiagnostics"]:
        if error["severity"] == "error":
            found[Path(error["file"])].add(error["range"]["start"]["line"] + 1)
    return found


@pytest.fixture
def refused(tmp_path: Path) -> Path:
    source = tmp_path / "refused.py"
    source.write_text((HERE / "refused.py.txt").read_text())
    return source


ACCEPTED: Final = HERE / "accepted.py"

# A cold cache takes mypy half a minute.
pytestmark = [pytest.mark.slow, pytest.mark.rest]


def test_mypy_takes_what_users_write_and_finds_exactly_the_marked_errors(refused: Path) -> None:
    assert mypy_on(ACCEPTED, refused) == {ACCEPTED: set(), refused: marked(refused)}


@pytest.mark.skipif(
    importlib.util.find_spec("pyright") is None,
    reason="pyright, which installs Node.js, is missing",
)
def test_pyright_takes_what_users_write_and_finds_exactly_the_marked_lines(refused: Path) -> None:
    lines = {line for line, _ in marked(refused)}
    assert pyright_on(ACCEPTED, refused) == {ACCEPTED: set(), refused: lines}
