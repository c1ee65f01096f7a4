"""Lets people sign in with the token of ``bearer()``; a cookie remembers it.

The cookie holds no token, only *passes*: the time at which each ends, and an HMAC under a key that is made from the
token.  A changed token makes them worthless.
"""

import hmac
from collections.abc import Iterable, Iterator
from typing import Final

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.fastapi.bearer import BearerToken

COOKIE: Final = "jobrunner_pass"
PASS_S: Final = 12 * 3600
MOST_PASSES: Final = 4
"""A dashboard has at most three tokens; a cookie that holds more is cut."""


def has_pass(connection: HTTPConnection, opened_by: Iterable[BearerToken]) -> bool:
    """Return whether a request has a valid pass of one of the tokens."""
    passes = list(_passes(connection))
    return any(_is_of(one, token) for one in passes for token in opened_by)


def token_of(given: str, tokens: Iterable[BearerToken]) -> BearerToken | None:
    """Return the token that a person has typed; None if it is none of them."""
    typed = given.strip().encode(errors="surrogatepass")
    # All are compared, so that the time does not tell which one it is.
    found = [token for token in tokens if token.is_token(typed)]
    return found[0] if found else None


def sign_in(
    response: Response, request: Request, token: BearerToken, tokens: Iterable[BearerToken]
) -> None:
    """Add a pass of the token to the valid passes in the cookie."""
    others = [one for one in tokens if one is not token]
    kept = [one for one in _passes(request) if any(_is_of(one, other) for other in others)]
    ends = str(now_us() // SECOND_US + PASS_S)
    passes = [f"{ends}.{token.signature(ends)}", *kept][:MOST_PASSES]
    _set_cookie(response, request, "~".join(passes), PASS_S)


def sign_out(response: Response, request: Request) -> None:
    """Delete the cookie."""
    _set_cookie(response, request, "", 0)


def _passes(connection: HTTPConnection) -> Iterator[str]:
    yield from connection.cookies.get(COOKIE, "").split("~")[:MOST_PASSES]


def _is_of(one: str, token: BearerToken) -> bool:
    ends, _, signature = one.partition(".")
    if not (ends.isascii() and ends.isdigit()) or not signature.isascii():
        return False
    if not hmac.compare_digest(signature, token.signature(ends)):
        return False
    return int(ends) > now_us() // SECOND_US


def _set_cookie(response: Response, request: Request, value: str, age_s: int) -> None:
    """Set the cookie.

    It names no path: the browser then binds it to the folder of the form's address, which is the dashboard, also behind
    a proxy that changes the path.
    """
    # A proxy may have taken the TLS away; the browser's own word is in Origin.
    is_secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith(
        "https://"
    )
    response.headers.append(
        "set-cookie",
        f"{COOKIE}={value}; Max-Age={age_s}; HttpOnly; SameSite=Strict{'; Secure' if is_secure else ''}",
    )
