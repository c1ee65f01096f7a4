"""Runs ``python -m app`` and the single-file executable: serves the shop and manages its jobs."""

import os
from typing import TYPE_CHECKING

import click

from jobrunner.cli import main, run_server

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

APP = "app.main:create_app"


@click.command()
@click.option("--host", help="Where to listen (SHOP_HOST, 127.0.0.1).")
@click.option("--port", help="0 takes any free one (SHOP_PORT, 8000).")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="(SHOP_LOG_FORMAT, text)")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes; with more than one, set SHOP_ADMIN_TOKEN.",
)
def serve(*, workers: int, **options: str | None) -> None:
    """Serve the shop and run its jobs; everything else is set by SHOP_ variables."""
    # In the environment, since reloaded and additional processes read it there.
    os.environ |= {f"SHOP_{name.upper()}": value for name, value in options.items() if value}
    # Here and not above: `--help` answers without the application.
    from pydantic import ValidationError  # noqa: PLC0415

    from app.settings import Settings  # noqa: PLC0415

    try:
        settings = Settings()
    except ValidationError as error:
        raise click.UsageError("\n".join(map(_in_words, error.errors()))) from error
    run_server(APP, factory=True, workers=workers, host=settings.host, port=settings.port)


def _in_words(problem: "ErrorDetails") -> str:
    name = "_".join(str(part) for part in ("shop", *problem["loc"]))
    return f"{name.upper()}: {problem['msg']}" if problem["loc"] else problem["msg"]


if __name__ == "__main__":
    main(APP, factory=True, own=[serve])
