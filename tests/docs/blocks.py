"""Reads the Python blocks of a Markdown page."""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.processes import CHECKOUT

_FENCE: Final = re.compile(r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`]*)$")
_COMMENT: Final = re.compile(r'^<!-- python(?: title="(?P<title>[^"]+)")?$')
_FILE: Final = re.compile(r'^<!-- python file="(?P<file>[^"]+)" -->$')
_NEW_PAGE: Final = "<!-- python: new page -->"
_INFO: Final = re.compile(
    r"^python(?: title=\"(?P<title>[^\"]+)\"| \{(?P<classes>(?: ?\.[\w-]+)+)(?: title=\"(?P<other>[^\"]+)\")?\})?"
    r"(?: (?:linenums|hl_lines)=\"[^\"]*\")*$"
)
_CLASSES: Final = frozenset({"theirs", "not-run"})


class PageError(Exception):
    """A page breaks a rule of ``tests.docs``; the message begins with page and line."""


@dataclass(frozen=True)
class Block:
    """Python code on a page.

    Attributes:
        line: the line of the page on which the code begins, from 1.
        title: the file's name that stands above it.
        classes: the attributes of its fence, such as ``theirs``.
    """

    line: int
    source: str
    title: str | None = None
    classes: frozenset[str] = frozenset()


def pages() -> list[str]:
    """Return the pages whose blocks are checked, relative to the checkout, in alphabetical order."""
    found = {"README.md", *(_relative(page) for page in (CHECKOUT / "docs").rglob("*.md"))}
    return sorted(page for page in found if not page.startswith("docs/decisions/"))


def _relative(page: Path) -> str:
    return page.relative_to(CHECKOUT).as_posix()


def read(page: str, text: str) -> list[list[Block]]:
    """Return the Python blocks of a page, divided where the page starts over.

    Args:
        page: its name, for errors.
        text: its Markdown.

    Raises:
        PageError: The page has a fence or a comment that does not end, or that says what no rule knows.
    """
    parts: list[list[Block]] = [[]]
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        where = f"{page}:{at}"
        if line.strip() == _NEW_PAGE:
            parts.append([])
        elif (hidden := _FILE.match(line.rstrip())) is not None:
            parts[-1].append(Block(at, (CHECKOUT / hidden["file"]).read_text(encoding="utf-8")))
        elif line.startswith("<!-- python"):
            begun = _COMMENT.match(line.rstrip())
            if begun is None:
                raise PageError(f"{where}: no rule of tests/docs knows the comment {line}")
            end = _end(lines, at, "-->", where)
            parts[-1].append(Block(at + 1, _code(lines[at:end]), begun["title"]))
            at = end + 1
        elif (fence := _FENCE.match(line)) is not None:
            end = _end(lines, at, fence["fence"], where)
            if (
                fence["info"].lower().startswith(("py", "{.py", "{ .py"))
                and "pycon" not in fence["info"]
            ):
                title, classes = _attributes(fence["info"].strip(), where)
                parts[-1].append(Block(at + 1, _code(lines[at:end]), title, classes))
            at = end + 1
    return parts


def _end(lines: list[str], begin: int, mark: str, where: str) -> int:
    """Return the index of the line that ends what has begun above ``begin``."""
    for index in range(begin, len(lines)):
        stripped = lines[index].strip()
        if stripped.startswith(mark) and not stripped.strip(mark[0]).strip("->"):
            return index
    raise PageError(f"{where}: what begins here has no end, a line {mark}")


def _code(lines: list[str]) -> str:
    return textwrap.dedent("\n".join(lines)) + "\n"


def _attributes(info: str, where: str) -> tuple[str | None, frozenset[str]]:
    read = _INFO.match(info)
    classes = frozenset((read["classes"] or "").replace(".", " ").split()) if read else frozenset()
    if read is None or not classes <= _CLASSES:
        raise PageError(
            f'{where}: no rule of tests/docs knows this fence; write ```python, ```python title="shop.py", '
            f"```python {{.theirs}} or ```python {{.not-run}}, and not ```{info}"
        )
    return read["title"] or read["other"], classes
