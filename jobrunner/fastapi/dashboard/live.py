"""Marks and hashes the parts of a page that change while it is open.

The script of the page asks for the page's own address again with the hash of what it shows.  If the parts are the same,
the answer is an empty 304.
"""

import hashlib
from collections.abc import Callable
from typing import Final

from markupsafe import Markup

_PART: Final = Markup('<div data-live id="live-{name}" class="{look}">{inner}</div>')


class LiveParts:
    """The live parts of one page, collected while it is rendered."""

    def __init__(self, build: str) -> None:
        self._hash = hashlib.sha256(build.encode())

    def __call__(self, name: str, look: str = "stack", *, caller: Callable[[], Markup]) -> Markup:
        """Return the block of a template as a live part: ``{% call live("rows") %}...{% endcall %}``."""
        inner = caller()
        self._hash.update(f"{name}\0{inner}\0".encode())
        return _PART.format(name=name, look=look, inner=inner)

    @property
    def etag(self) -> str:
        """The hash of all parts; weak, since the rest of the page may differ."""
        return f'W/"{self._hash.hexdigest()[:32]}"'
