"""Rewrites docstrings for the reference pages, which are Markdown: a griffe extension that ``zensical.toml`` names."""

import ast
import re
import textwrap
from typing import Any, Final

import griffe

_EXAMPLE: Final = re.compile(
    r"^(?P<text>[^\n]*?)::\n\n(?P<code>(?:(?: {4}[^\n]*)?(?:\n|\Z))+)", re.MULTILINE
)


class Docstrings(griffe.Extension):
    """Makes fenced blocks of examples, and docstrings of the descriptions that dataclass fields have."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)

    def on_attribute(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        """Document a field by its ``field(metadata=doc("..."))``."""
        described = None if attr.docstring else description(str(attr.value or "None"))
        if described is not None:
            attr.docstring = griffe.Docstring(described, parent=attr)
            attr.value = None


def fenced(docstring: str) -> str:
    """Return a docstring with its examples, which ``::`` begins, as fenced blocks."""
    return _EXAMPLE.sub(_fence, docstring)


def _fence(example: re.Match[str]) -> str:
    code = textwrap.dedent(example["code"]).strip("\n")
    text = f"{example['text']}:\n\n" if example["text"].strip() else ""
    return f"{text}```{_language(code)}\n{code}\n```\n\n"


def _language(code: str) -> str:
    try:
        ast.parse(code)
    except SyntaxError:
        return "text"
    return "python"


def description(value: str) -> str | None:
    """Return the text of the call ``doc("...")`` in an expression; None if there is none."""
    for node in ast.walk(ast.parse(value, mode="eval")):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "doc":
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                return first.value
    return None
