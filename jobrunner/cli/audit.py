"""Records the acts of commands in the audit log."""

import getpass
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from jobrunner.cli.session import StoreSession
    from jobrunner.core.audit import Action
    from jobrunner.queue.audit import Act


def with_reason(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option for the reason of an act to a command."""
    return click.option(
        "--audit-reason", metavar="TEXT", help="The reason, for the audit log; 500 characters."
    )(command)


def audited(
    session: "StoreSession",
    action: "Action",
    *,
    target: str | None = None,
    filter: Mapping[str, object] | None = None,
    reason: str | None,
) -> "AbstractAsyncContextManager[Act]":
    """Record the act inside the block; see ``jobrunner.queue.audit.audited``."""
    from jobrunner.queue import audit

    return audit.audited(
        session.queue.audit, user_at_host(), action, target=target, filter=filter, reason=reason
    )


def user_at_host() -> str:
    """Return the name of the user and of the machine, as in ``ada@shop-1``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that no name belongs to; Python before 3.13 raises a KeyError.
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
