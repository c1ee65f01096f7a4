"""Makes modules out of the blocks of a page."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from tests.docs.blocks import Block, PageError, read

PAGE: Final = "page"
"""The name of the module of the blocks without a title."""

_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_KEPT: Final = (*_SCOPES, ast.Import, ast.ImportFrom)


@dataclass(frozen=True)
class Statement:
    """A statement of a module.

    Attributes:
        tree: its syntax tree, with the page's line numbers.
        lines: its text with the comments above it, each line with its number on the page.
        run: whether it is executed.
        inside: whether it is type-checked inside an ``async def``.
    """

    tree: ast.stmt
    lines: list[tuple[int, str]]
    run: bool
    inside: bool


@dataclass
class Module:
    """A module that blocks of a page form.

    Attributes:
        name: its dotted name, as the page's other code imports it.
        is_package: whether it is an ``__init__.py``.
    """

    name: str
    is_package: bool = False
    statements: list[Statement] = field(default_factory=list)

    def code(self) -> ast.Module:
        """Return what is executed."""
        return ast.Module([one.tree for one in self.statements if one.run], type_ignores=[])

    def add(self, page: str, block: Block) -> None:
        """Append the statements of a block."""
        lines = block.source.splitlines()
        done = 0
        awaits = False
        for tree in parse(page, block).body:
            ast.increment_lineno(tree, block.line - 1)
            end = (tree.end_lineno or tree.lineno) - block.line + 1
            kept = isinstance(tree, _KEPT)
            awaits = awaits or (not kept and _awaits(tree))
            inside = not kept and (awaits or bool(_names(tree, ast.Load) & self._names_inside()))
            numbered = [(block.line + index, lines[index]) for index in range(done, end)]
            run = not inside and "not-run" not in block.classes
            self.statements.append(Statement(tree, numbered, run, inside))
            done = max(done, end)

    def _names_inside(self) -> set[str]:
        inside = [one.tree for one in self.statements if one.inside]
        outside = [one.tree for one in self.statements if not one.inside]
        bound = {name for tree in inside for name in _names(tree, ast.Store)}
        return bound - {name for tree in outside for name in _names(tree, ast.Store)}


@dataclass(frozen=True)
class Part:
    """The modules of a page, or of a part of it that starts over."""

    page: str
    name: str
    modules: dict[str, Module]


def parts_of(page: str, text: str) -> list[Part]:
    """Return the modules that a page's blocks form.

    Raises:
        PageError: A block is not Python, or the page breaks a rule.
    """
    parts = []
    for number, blocks in enumerate(read(page, text), start=1):
        modules: dict[str, Module] = {}
        for block in blocks:
            if "theirs" in block.classes:
                parse(page, block)
                continue
            name, is_package = _module_name(block.title)
            modules.setdefault(name, Module(name, is_package)).add(page, block)
        slug = "".join(letter if letter.isalnum() else "_" for letter in page)
        parts.append(Part(page, f"{slug}_{number}", modules))
    return parts


def _module_name(title: str | None) -> tuple[str, bool]:
    """Return a file's dotted name, and whether it is a package."""
    if title is None:
        return PAGE, False
    path = PurePosixPath(title).with_suffix("")
    if path.name == "__init__":
        return ".".join(path.parent.parts), True
    return ".".join(path.parts), False


def parse(page: str, block: Block) -> ast.Module:
    """Return the syntax tree of a block, in which ``await`` may stand outside a function.

    Raises:
        PageError: The block is not Python.
    """
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        tree = compile(block.source, page, "exec", flags, dont_inherit=True)
        if "theirs" in block.classes:
            compile(tree, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as error:
        line = block.line + (error.lineno or 1) - 1
        raise PageError(f"{page}:{line}: this is not Python: {error.msg}") from None
    assert isinstance(tree, ast.Module)
    return tree


def _in_this_scope(tree: ast.AST) -> Iterator[ast.AST]:
    yield tree
    if not isinstance(tree, _SCOPES):
        for child in ast.iter_child_nodes(tree):
            yield from _in_this_scope(child)


def _awaits(tree: ast.stmt) -> bool:
    return any(
        isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith)
        or (isinstance(node, ast.comprehension) and node.is_async)
        for node in _in_this_scope(tree)
    )


def _names(tree: ast.stmt, context: type[ast.expr_context]) -> set[str]:
    return {
        node.id
        for node in _in_this_scope(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, context)
    }
