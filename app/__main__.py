"""``python -m app``: serve the shop."""

import argparse
from typing import get_args

import uvicorn
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app.main import create_app
from app.settings import LogFormat, Settings


def main(argv: list[str] | None = None) -> None:
    """Serve until a signal comes; options go before SHOP_ variables."""
    parser = argparse.ArgumentParser(
        prog="python -m app",
        description="Serve the shop. Everything else is set by SHOP_ variables, see app/settings.py.",
    )
    parser.add_argument("--host", help="where to listen (SHOP_HOST, 127.0.0.1)")
    parser.add_argument("--port", help="0 takes any free one (SHOP_PORT, 8000)")
    parser.add_argument("--log-format", choices=get_args(LogFormat), help="(SHOP_LOG_FORMAT, text)")
    options = {name: value for name, value in vars(parser.parse_args(argv)).items() if value}
    try:
        settings = Settings(**options)
    except ValidationError as error:
        parser.error("\n".join(_in_words(problem) for problem in error.errors()))
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        # Requests get as long as jobs; a client that keeps its connection open must not keep the process.
        timeout_graceful_shutdown=10,
    )


def _in_words(problem: ErrorDetails) -> str:
    name = "_".join(str(part) for part in ("shop", *problem["loc"]))
    return f"{name.upper()}: {problem['msg']}" if problem["loc"] else problem["msg"]


if __name__ == "__main__":
    main()
