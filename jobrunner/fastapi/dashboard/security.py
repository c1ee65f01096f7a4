"""Limits what a page may load and do, and refuses forms of other sites."""

from typing import Final

from starlette.requests import Request

from jobrunner.fastapi.api.problems import CROSS_ORIGIN, Refusal

POLICY: Final = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'",
    "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'",
))  # fmt: skip

HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    # Not `no-referrer`: browsers would then send `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
"""Headers of every response; a static file sets another ``cache-control``."""


def refuse_cross_site(request: Request) -> None:
    """Refuse a form that no page of this site has sent.

    Browsers send ``Sec-Fetch-Site`` to https and localhost, and ``Origin`` to the others.

    Raises:
        Refusal: The request comes from another site, or does not say where it comes from.
    """
    if request.method in {"GET", "HEAD"}:
        return
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site == "same-origin":
            return
        raise Refusal(CROSS_ORIGIN, "The form was sent by a page of another site.")
    origin = request.headers.get("origin")
    if origin is None:
        raise Refusal(
            CROSS_ORIGIN,
            "The request has neither Sec-Fetch-Site nor Origin, which every browser sends with a form. A program uses"
            " the JSON routes of jobs.router().",
        )
    if origin.partition("://")[2] != request.headers.get("host"):
        raise Refusal(
            CROSS_ORIGIN,
            "Its Origin is not the Host of the request. If a proxy stands between, let it pass the Host header on.",
        )
