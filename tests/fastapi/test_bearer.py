"""The token that guards routes."""

import os

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from pydantic import SecretStr
from starlette.requests import HTTPConnection

from jobrunner import ConfigurationError
from jobrunner.fastapi import bearer

TOKEN = "s3cret-token"  # noqa: S105 - of these tests alone


def guarded(token: str = TOKEN) -> TestClient:
    """Return a client of an app whose one route, at /, is guarded."""
    app = FastAPI()

    @app.get("/", dependencies=[Depends(bearer(token))])
    async def enter() -> str:
        return "in"

    return TestClient(app)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_ask_with_the_token_enters(scheme: str) -> None:
    assert guarded().get("/", headers={"Authorization": f"{scheme} {TOKEN}"}).json() == "in"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        f"Token {TOKEN}",
        TOKEN,
        f"Bearer{TOKEN}",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer x{TOKEN}",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN} {TOKEN}",
        f"Bearer {TOKEN},{TOKEN}",
        "Bearer .*",
        "Bearer null",
        f"Bearer {'x' * 8000}",
        "Bearer s3cret-t\u00f6ken",
        b"Bearer \xff\xfe",
    ],
)
def test_T2_ask_with_anything_else_is_unauthorized(header: str | bytes | None) -> None:
    # As bytes: a client need not be polite.
    raw = header.encode() if isinstance(header, str) else header
    answer = guarded().get("/", headers={} if raw is None else {b"Authorization": raw})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json() == {"detail": "Not authenticated"}


@pytest.mark.parametrize(
    ("sent", "enters"),
    [("schl\u00fcssel".encode(), True), (b"schl\xfcssel", False), (b"schl\xc3ssel", False)],
)
async def test_ask_with_a_token_outside_ascii_compares_its_bytes(sent: bytes, enters: bool) -> None:
    # Not through TestClient, which sends every header as UTF-8.
    request = HTTPConnection({"type": "http", "headers": [(b"authorization", b"Bearer " + sent)]})
    guard = bearer("schl\u00fcssel")
    if enters:
        assert await guard(request)
    else:
        with pytest.raises(HTTPException):
            await guard(request)


@pytest.mark.parametrize("token", ["", " ", f"{TOKEN}\n", f" {TOKEN}", "a\x00b", "a\r\nb"])
def test_bearer_with_a_token_that_nobody_could_send_is_refused(token: str) -> None:
    with pytest.raises(ConfigurationError, match=r"bearer\(\)") as caught:
        bearer(token)
    assert TOKEN not in str(caught.value)


def test_bearer_with_something_that_is_no_str_is_refused_with_a_hint() -> None:
    for token in (os.environ.get("NO_SUCH_VARIABLE"), SecretStr(TOKEN), TOKEN.encode()):
        with pytest.raises(ConfigurationError, match="as a str") as caught:
            bearer(token)  # type: ignore[arg-type]
        assert TOKEN not in str(caught.value)


def test_bearer_does_not_show_its_token() -> None:
    assert TOKEN not in repr(bearer(TOKEN))


def test_bearer_is_documented_as_a_guard() -> None:
    app = FastAPI()
    reader, actor = bearer("reader", scheme_name="reader"), bearer("actor", scheme_name="actor")

    @app.get("/read", dependencies=[Depends(reader)])
    async def read() -> None: ...

    @app.get("/act", dependencies=[Depends(actor)])
    async def act() -> None: ...

    page = app.openapi()
    schemes = page["components"]["securitySchemes"]
    assert {name: scheme["scheme"] for name, scheme in schemes.items()} == {
        "reader": "bearer",
        "actor": "bearer",
    }
    assert page["paths"]["/read"]["get"]["security"] == [{"reader": []}]
