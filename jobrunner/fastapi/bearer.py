"""Guards routes with one shared token, which is compared in constant time."""

import hashlib
import hmac

from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from jobrunner.core.errors import ConfigurationError


class BearerToken(HTTPBearer):
    """FastAPI's bearer scheme, with a token to compare.

    As a security scheme it appears in the OpenAPI document.
    """

    def __init__(self, token: bytes, scheme_name: str) -> None:
        super().__init__(
            scheme_name=scheme_name, description="The token that `bearer()` was given."
        )
        self._token = token

    async def __call__(self, request: HTTPConnection) -> HTTPAuthorizationCredentials:
        credentials = await super().__call__(request)
        # Starlette decodes headers as Latin-1, so encoding the value as Latin-1 returns the bytes that were sent.
        if credentials is None or not self.is_token(credentials.credentials.encode("latin-1")):
            raise self.make_not_authenticated_error()
        return credentials

    def is_token(self, given: bytes) -> bool:
        """Return whether these bytes are the token."""
        return hmac.compare_digest(given, self._token)

    def signature(self, text: str) -> str:
        """Return an HMAC of a text under a key made from the token."""
        key = hashlib.sha256(b"jobrunner sign-in\0" + self._token).digest()
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def bearer(token: str, *, scheme_name: str = "bearer") -> HTTPBearer:
    """Return a guard that answers 401 to requests without ``Authorization: Bearer <token>``.

    ::

        app.include_router(jobs.router(read=bearer(TOKEN)), prefix="/jobs")

    Other routes use it as ``Depends(bearer(TOKEN))``.

    Args:
        token: The token that the client must send. It must not be empty, contain control characters, or begin or end
            with white space.
        scheme_name: The name of the guard in the OpenAPI document. Two tokens, such as one for ``read`` and one for
            ``act``, need two names. Default: ``"bearer"``.

    Raises:
        ConfigurationError: The token is empty, not a string, or cannot be sent in a header.
    """
    if not isinstance(token, str):
        raise ConfigurationError(
            f"bearer() needs the token as a str, not {type(token).__name__}"
            " (an unset variable? a SecretStr? then write .get_secret_value())"
        )
    if not token:
        raise ConfigurationError(
            "bearer() got an empty token, which everyone could guess: make one with"
            ' python -c "import secrets; print(secrets.token_urlsafe())"'
        )
    if not token.isprintable() or token != token.strip():
        raise ConfigurationError(
            "bearer() got a token with a line break, a control character or white space around it,"
            " which no header can carry: write bearer(token.strip())"
        )
    return BearerToken(token.encode(), scheme_name)
