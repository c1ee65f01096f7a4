"""Locks routes with one shared token, which is compared in constant time."""

import hmac

from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from jobrunner.core.errors import ConfigurationError


class _Bearer(HTTPBearer):
    """FastAPI's bearer scheme, which the docs page shows, with a token to compare."""

    def __init__(self, token: bytes, scheme_name: str) -> None:
        super().__init__(
            scheme_name=scheme_name, description="The token that `bearer()` was given."
        )
        self._token = token

    async def __call__(self, request: HTTPConnection) -> HTTPAuthorizationCredentials:
        credentials = await super().__call__(request)
        # Starlette reads headers as Latin-1: encoding them so gives back the bytes that were sent.
        if credentials is None or not hmac.compare_digest(
            credentials.credentials.encode("latin-1"), self._token
        ):
            raise self.make_not_authenticated_error()
        return credentials


def bearer(token: str, *, scheme_name: str = "bearer") -> HTTPBearer:
    """Return a lock that answers 401 without ``Authorization: Bearer <token>``.

    For ``jobs.router(read=bearer(TOKEN))``, and in other routes as ``Depends(bearer(TOKEN))``.

    Args:
        token: what the client must send, in characters that a header can carry.
        scheme_name: the lock's name in OpenAPI; two tokens (one to read, one to act) need two names.

    Raises:
        ConfigurationError: the token is empty, not a string, or could never be sent.
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
    return _Bearer(token.encode(), scheme_name)
