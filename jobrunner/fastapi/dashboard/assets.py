"""Serves the style sheet and the script under names that change with their content."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jobrunner.fastapi.api.problems import Refusal
from jobrunner.fastapi.dashboard.errors import NO_PAGE

FOLDER: Final = Path(__file__).parent / "static"
TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}


class Assets:
    """The static files, read once."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._bodies: dict[str, tuple[bytes, str]] = {}
        self.names: Mapping[str, str] = {}
        names: dict[str, str] = {}
        for path in sorted(folder.iterdir()):
            body = path.read_bytes()
            hashed = f"{path.stem}.{hashlib.sha256(body).hexdigest()[:16]}{path.suffix}"
            names[path.name] = hashed
            self._bodies[hashed] = body, TYPES[path.suffix]
        self.names = names
        self.build = "-".join(names.values())
        """Changes with any of the files."""

    def response(self, name: str) -> Response:
        """Return a file by its hashed name.

        Raises:
            Refusal: There is no such file; it may be of another version.
        """
        if name not in self._bodies:
            raise Refusal(
                NO_PAGE, "There is no such file; a newer version may run. Load the page again."
            )
        body, media_type = self._bodies[name]
        return Response(
            body,
            media_type=media_type,
            headers={"cache-control": "public, max-age=31536000, immutable"},
        )


def add_assets(router: APIRouter, assets: Assets) -> None:
    """Add the route of the static files, which has no guard: the sign-in page needs them."""

    path = "/static/{name}"

    async def get_asset(request: Request) -> Response:
        return assets.response(request.path_params["name"])

    router.add_api_route(path, get_asset, name=path, response_model=None)
