"""Checks the pages that its arguments name, or all of them: ``python -m tests.docs docs/guides/retries.md``."""

import contextlib
import os
import sys
import tempfile
import warnings
from pathlib import Path

from tests.docs.blocks import PageError, pages
from tests.docs.checks import run, type_errors
from tests.docs.modules import Part, parts_of
from tests.support.processes import CHECKOUT


def check(names: list[str]) -> list[str]:
    """Return what is wrong with the Python blocks of pages."""
    wrong: list[str] = []
    parts: list[Part] = []
    for name in names:
        page = Path(name).resolve()
        shown = page.relative_to(CHECKOUT).as_posix() if page.is_relative_to(CHECKOUT) else name
        try:
            parts += parts_of(shown, page.read_text(encoding="utf-8"))
        except PageError as error:
            wrong.append(str(error))
    with tempfile.TemporaryDirectory() as folder:
        wrong += type_errors(parts, Path(folder).resolve())
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        wrong += [raised for part in parts if (raised := run(part)) is not None]
    return wrong


if __name__ == "__main__":
    wrong = check(sys.argv[1:] or [os.fspath(CHECKOUT / page) for page in pages()])
    sys.stdout.writelines(f"{line}\n" for line in wrong or ["all well"])
    sys.exit(bool(wrong))
