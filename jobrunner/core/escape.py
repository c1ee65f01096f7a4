"""Escapes untrusted text for logs and terminals.

Escaped text cannot start a new line, move the cursor or change the direction of writing.
"""

import re
from typing import Final

_SIGNS: Final = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""DEL, the C1 controls, bidirectional controls, line and paragraph separators, lone surrogates."""
_IN_LINE: Final = re.compile(f"[\x00-\x1f{_SIGNS}]")
_IN_LINES: Final = re.compile(f"[\x00-\x08\x0b-\x1f{_SIGNS}]")


def escaped(text: str, *, lines: bool = False) -> str:
    r"""Return a text with its control characters escaped.

    They become ``\n``, ``\x9b``, ``\u202e`` and the like.

    Args:
        text: Any text. Lone surrogates, which UTF-8 cannot encode, are escaped too.
        lines: Keep newlines and tabs, for a text that may have several lines.
    """
    if text.isprintable():
        return text
    return (_IN_LINES if lines else _IN_LINE).sub(_written_out, text)


def escaped_json(text: str) -> str:
    """Return a JSON document with the same characters as JSON escapes; its meaning is unchanged."""
    # Outside strings JSON has none of these characters except newlines; inside strings newlines are escaped already.
    return _IN_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _written_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
