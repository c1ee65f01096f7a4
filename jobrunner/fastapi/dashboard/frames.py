"""Splits a traceback into the frames of the application and those of libraries."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

_FRAME: Final = re.compile(r'^\s+(?:\| )*\s*File "(?P<file>[^"]+)", line \d+')
_OWN_PACKAGE: Final = str(Path(__file__).parents[2])
_LIBRARY: Final = re.compile(
    r"[\\/](?:site|dist)-packages[\\/](?P<package>[^\\/]+)"
    r"|[\\/]lib[\\/]python3\.\d+t?[\\/](?P<module>[^\\/]+)"
    r"|^<(?P<frozen>[^>]+)>"
)
_MOST_PACKAGES: Final = 4

Kind = Literal["own", "lib", "text", "err"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Lines of a traceback that belong together."""

    kind: Kind
    text: str
    summary: str = ""
    """For the frames of libraries: their number and their packages."""


def pieces_of(traceback: str) -> Sequence[Piece]:
    """Return a traceback in pieces; neighbouring frames of libraries are one piece."""
    found: list[Piece] = []
    library: list[tuple[str, str]] = []

    def close_library() -> None:
        if library:
            packages = list(dict.fromkeys(package for package, _ in library))
            shown = ", ".join(packages[:_MOST_PACKAGES])
            more = "" if len(packages) <= _MOST_PACKAGES else ", …"
            number = len(library)
            frames = "1 frame" if number == 1 else f"{number} frames"
            found.append(
                Piece("lib", "\n".join(text for _, text in library), f"… {frames} in {shown}{more}")
            )
            library.clear()

    for kind, text, package in _blocks(traceback):
        if kind == "lib":
            library.append((package, text))
            continue
        close_library()
        found.append(Piece(kind, text))
    close_library()
    return found


def _blocks(traceback: str) -> Iterator[tuple[Kind, str, str]]:
    lines = traceback.rstrip().split("\n")
    index = 0
    while index < len(lines):
        line = lines[index]
        frame = _FRAME.match(line)
        end = index + 1
        if frame is not None:
            indent = len(line) - len(line.lstrip())
            # The source line and its markers follow, further to the right.
            while end < len(lines) and len(lines[end]) - len(lines[end].lstrip()) > indent:
                end += 1
            package = _package_of(frame["file"])
            yield ("own" if package is None else "lib"), "\n".join(lines[index:end]), package or ""
        else:
            is_error = bool(line) and not line[0].isspace() and not line.startswith(_BETWEEN)
            yield ("err" if is_error else "text"), line, ""
        index = end


_BETWEEN: Final = ("Traceback (", "During handling", "The above exception")


def _package_of(file: str) -> str | None:
    """Return the library that a file belongs to; None for a file of the application."""
    if file.startswith(_OWN_PACKAGE) or re.search(r"[\\/]jobrunner[\\/](worker|tasks)[\\/]", file):
        return "jobrunner"
    found = _LIBRARY.search(file)
    if found is None:
        return None
    name = found["package"] or found["module"] or found["frozen"] or "Python"
    return name.removesuffix(".py")
