"""Locks a router without a guard to local hosts, against DNS rebinding.

A page of another site lets its own name point to 127.0.0.1 once it is loaded.  Its requests then reach a server that
listens on this machine alone, and the browser takes them for same-origin; but they name the page's own host in
``Host``.
"""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from fastapi import Depends
from starlette.requests import HTTPConnection

from jobrunner.fastapi.api.problems import HOST_NOT_LOCAL, Refusal

_PORT: Final = re.compile(r":[0-9]*\Z")
_LOCAL_NAME: Final = re.compile(r"[a-z0-9_-]+|(?:[a-z0-9_-]+\.)+localhost")
_MOST_SHOWN: Final = 100


def is_local(host: str) -> bool:
    """Return whether a ``Host`` header names no site of the web.

    Local is an IP literal, ``localhost`` or a name below it, or a name without a dot: ``testserver``, a service of
    a compose file.
    """
    name = _PORT.sub("", host).lower().removesuffix(".")
    if name.startswith("[") and name.endswith("]"):
        return _is(IPv6Address, name[1:-1])
    return _LOCAL_NAME.fullmatch(name) is not None or _is(IPv4Address, name)


def _is(literal: type[IPv4Address] | type[IPv6Address], text: str) -> bool:
    try:
        literal(text)
    except ValueError:
        return False
    return True


async def refuse_other_hosts(connection: HTTPConnection) -> None:
    """Refuse a request that names a host which is not local.

    One without a name passes: every browser sends it. ``X-Forwarded-Host`` and ``Forwarded`` do not count: a page can
    send them too.

    Raises:
        Refusal: the request names another host.
    """
    for host in connection.headers.getlist("host"):
        if not is_local(host):
            raise Refusal(
                HOST_NOT_LOCAL,
                f"jobs.router(insecure=True) has no lock, so it answers on this machine alone and not as"
                f" {host[:_MOST_SHOWN]!r}: open it as http://127.0.0.1 with its port, or write"
                " jobs.router(read=bearer(TOKEN)), or read=... with a dependency of your own",
            )


ONLY_LOCAL: Final = Depends(refuse_other_hosts)
