"""Text that others chose, made safe to show: it cannot begin a line, move a cursor or turn the direction of writing."""

import re
from typing import Final

_SIGNS: Final = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""DEL, the C1 controls, what orders bidirectional text, line and paragraph separators, lone surrogates."""
_IN_LINE: Final = re.compile(f"[\x00-\x1f{_SIGNS}]")
_IN_LINES: Final = re.compile(f"[\x00-\x08\x0b-\x1f{_SIGNS}]")


def escaped(text: str, *, lines: bool = False) -> str:
    r"""Return a text with its control characters written out, as in ``\n``, ``\x9b`` and ``\u202e``.

    Args:
        text: any; what UTF-8 cannot hold is written out too.
        lines: leave newlines and tabs as they are, for a text that may have several lines.
    """
    if text.isprintable():
        return text
    return (_IN_LINES if lines else _IN_LINE).sub(_written_out, text)


def escaped_json(text: str) -> str:
    """Return a JSON document with the same characters in the escapes of JSON; it means what it meant."""
    # Outside of strings it has no such character but newlines, and in them those are escaped already.
    return _IN_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _written_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
