"""Type-checks and executes the modules of pages."""

import ast
import contextlib
import importlib
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Final

from tests.docs.modules import Module, Part
from tests.support.processes import CHECKOUT

_ROOT: Final = "documented"
_HEADER: Final = (
    '# mypy: allow-redefinition, no-warn-unreachable, disable-error-code="empty-body,return"'
)
"""A function on a page may end with ``...``, and a page may give a name a second value."""
_FOUND: Final = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): (?P<text>(?:error|note): .*)$")


# -- types ----------------------------------------------------------------------------------------------------


def type_errors(parts: Iterable[Part], folder: Path) -> list[str]:
    """Return what mypy finds in all modules of the parts, in one run: lines that begin with page and line.

    Args:
        folder: an empty one, for the modules' files.
    """
    numbers: dict[str, tuple[str, list[int]]] = {}
    for part in parts:
        for module in part.modules.values():
            text, lines = _typed(part, module)
            file = _write(folder / _ROOT / part.name, module, text)
            numbers[file.relative_to(folder).as_posix()] = (part.page, lines)
    if not numbers:
        return []
    # The cache is the checkout's, in which the library and the frameworks are checked already.
    command = ["-m", "mypy", "--strict", "--no-error-summary", "--no-pretty", "-p", _ROOT]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=CHECKOUT,
        env=os.environ | {"MYPYPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return [_on_the_page(line, numbers) for line in done.stdout.splitlines()]


def _typed(part: Part, module: Module) -> tuple[str, list[int]]:
    """Return a module's source for mypy, and for each of its lines the page's."""
    inside = [line for one in module.statements if one.inside for line in one.lines]
    outside = [line for one in module.statements if not one.inside for line in one.lines]
    written = [(0, _HEADER)]
    written += _with_imports_of(part, outside)
    if inside:
        written.append((0, "async def _awaited() -> None:"))
        written += [(number, f"    {line}") for number, line in _with_imports_of(part, inside)]
    return "".join(f"{line}\n" for _, line in written), [number for number, _ in written]


def _with_imports_of(part: Part, lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return lines in which the page's own modules are imported from the package that mypy finds them in."""
    ours = {name.partition(".")[0] for name in part.modules}
    prefix = f"{_ROOT}.{part.name}."
    source = "\n".join(line for _, line in lines)
    edited = [line for _, line in lines]
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(source, part.page, "exec", flags, dont_inherit=True)
    # From the end, so that the columns of what is left to do stay true.
    for node in reversed(list(ast.walk(tree))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ours:
            before, after = (
                edited[node.lineno - 1][: node.col_offset],
                edited[node.lineno - 1][node.col_offset :],
            )
            edited[node.lineno - 1] = before + after.replace("from ", f"from {prefix}", 1)
        elif isinstance(node, ast.alias) and isinstance(node.name, str):
            edited = _with_alias_of(tree, node, ours, prefix, edited)
    return [(number, text) for (number, _), text in zip(lines, edited, strict=True)]


def _with_alias_of(
    tree: ast.AST, alias: ast.alias, ours: set[str], prefix: str, lines: list[str]
) -> list[str]:
    top = alias.name.partition(".")[0]
    of_import = any(isinstance(node, ast.Import) and alias in node.names for node in ast.walk(tree))
    if not of_import or top not in ours:
        return lines
    line = lines[alias.lineno - 1]
    name = f"{prefix}{alias.name}"
    if alias.asname is not None:
        name += f" as {alias.asname}"
    elif top == alias.name:
        name += f" as {top}"
    else:
        name += f", {prefix}{top} as {top}"
    changed = line[: alias.col_offset] + name + line[alias.end_col_offset :]
    return [*lines[: alias.lineno - 1], changed, *lines[alias.lineno :]]


def _write(folder: Path, module: Module, text: str) -> Path:
    names = module.name.split(".")
    file = (
        folder.joinpath(*names, "__init__.py")
        if module.is_package
        else folder.joinpath(*names).with_suffix(".py")
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    for parent in (file, *file.parents):
        if parent == folder.parent.parent:
            break
        (parent.parent / "__init__.py").touch()
    file.write_text(text, encoding="utf-8")
    return file


def _on_the_page(line: str, numbers: dict[str, tuple[str, list[int]]]) -> str:
    found = _FOUND.match(line)
    assert found is not None, line
    text = re.sub(rf"{_ROOT}\.\w+\.", "", found["text"])
    # An error that mypy has kept in its cache names the folder of an earlier run.
    _, root, file = found["file"].rpartition(f"{_ROOT}/")
    if root + file not in numbers:
        return f"{found['file']}:{found['line']}: {text}"
    page, lines = numbers[root + file]
    return f"{page}:{lines[int(found['line']) - 1]}: {text}"


# -- execution ------------------------------------------------------------------------------------------------


class _Importer(MetaPathFinder, Loader):
    """Imports the modules of a part of a page under the names that the page gives them."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self.roots = {name.partition(".")[0] for name in part.modules}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self.roots:
            return None
        below = any(name.startswith(f"{fullname}.") for name in self._part.modules)
        module = self._part.modules.get(fullname)
        if module is None and not below:
            return None
        is_package = below or (module is not None and module.is_package)
        return ModuleSpec(fullname, self, origin=self._part.page, is_package=is_package)

    def exec_module(self, module: ModuleType) -> None:
        ours = self._part.modules.get(module.__name__)
        if ours is not None:
            code = compile(ours.code(), self._part.page, "exec", dont_inherit=True)
            exec(code, module.__dict__)  # noqa: S102 - the code of the project's own pages


def run(part: Part) -> str | None:
    """Execute the modules of a part of a page; return the error, which begins with page and line."""
    with _importing(_Importer(part)):
        for name in part.modules:
            try:
                importlib.import_module(name)
            except Exception as error:  # noqa: BLE001 - whatever the page's code raises is the answer
                return _said_of(error, part.page)
    return None


def _said_of(error: Exception, page: str) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == page), None)
    return f"{page}:{line or 1}: {type(error).__name__}: {error}"


@contextlib.contextmanager
def _importing(importer: _Importer) -> Iterator[None]:
    def theirs(name: str) -> bool:
        return name.partition(".")[0] in importer.roots

    hidden = {name: module for name, module in sys.modules.items() if theirs(name)}
    for name in hidden:
        del sys.modules[name]
    sys.meta_path.insert(0, importer)
    try:
        yield
    finally:
        sys.meta_path.remove(importer)
        for name in [name for name in sys.modules if theirs(name)]:
            del sys.modules[name]
        sys.modules.update(hidden)
