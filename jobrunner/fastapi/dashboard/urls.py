"""Makes the addresses of the pages.

Every address is relative to the page that holds it, so that the dashboard works under any prefix, below a
``root_path``, and behind a proxy that changes the path.
"""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote, urlencode, urlsplit

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_.:@%+~-]+")
_QUERY: Final = re.compile(r"[!$&-;=?-Z_a-z~%\[\]]*")
MAX_BACK: Final = 2_000
"""Maximum characters of an address to go back to."""


def base_of(path: str) -> str:
    """Return the relative address of the dashboard's root, from one of its pages.

    Args:
        path: the path of the page below the root, such as ``/jobs/1``.
    """
    return "../" * (path.count("/") - 1) or "./"


def segment(text: str) -> str:
    """Return a text as one segment of a path."""
    return quote(text, safe="")


def with_query(path: str, parameters: Mapping[str, object]) -> str:
    """Return an address with the parameters that have a value."""
    given = {name: value for name, value in parameters.items() if value not in (None, "")}
    if not given:
        return path
    return f"{path}{'&' if '?' in path else '?'}{urlencode(given)}"


def own_address(text: str) -> str:
    """Return an address below the dashboard's root; empty, which is the overview, for any other text.

    Addresses come from hidden fields and query strings, which a stranger can write.
    """
    # urlsplit drops line breaks and blanks without a word.
    if len(text) > MAX_BACK or not text.isascii() or not text.isprintable() or " " in text:
        return ""
    try:
        parts = urlsplit(text)
    except ValueError:
        return ""
    if parts.scheme or parts.netloc or parts.fragment or _QUERY.fullmatch(parts.query) is None:
        return ""
    for one in parts.path.split("/"):
        if _SEGMENT.fullmatch(one) is None or set(unquote(one)) <= {".", "/", "\\"}:
            return ""
    return text
