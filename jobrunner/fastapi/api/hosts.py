"""Limits a router without a guard to local host names, against DNS rebinding.

In this attack a web page changes the DNS entry of the host that it came from to 127.0.0.1.  Its requests then reach a
server that listens only on this machine, and the browser treats them as same-origin.  Their ``Host`` header still
names the host of the page.
"""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from fastapi import Depends, params
from starlette.requests import HTTPConnection

from jobrunner.fastapi.api.problems import HOST_NOT_LOCAL, Refusal

_PORT: Final = re.compile(r":[0-9]*\Z")
_LOCAL_NAME: Final = re.compile(r"[a-z0-9_-]+|(?:[a-z0-9_-]+\.)+localhost")
_MOST_SHOWN: Final = 100


def is_local(host: str) -> bool:
    """Return whether a ``Host`` header names a local host.

    Local hosts are IP literals, ``localhost`` and names below it, and names without a dot such as ``testserver`` or a
    service of a compose file.
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


def only_local(call: str) -> params.Depends:
    """Return a dependency that refuses requests which name a host that is not local.

    The ``Host`` header decides, and the dependency raises ``Refusal``.  A request without the header passes: every
    browser sends one.  ``X-Forwarded-Host`` and ``Forwarded`` are ignored, since a page can set them.

    Args:
        call: The call that made the routes, for the error, such as ``jobs.router``.
    """

    async def refuse_other_hosts(connection: HTTPConnection) -> None:
        for host in connection.headers.getlist("host"):
            if not is_local(host):
                raise Refusal(
                    HOST_NOT_LOCAL,
                    f"{call}(insecure=True) has no guard, so it answers on this machine alone and not as"
                    f" {host[:_MOST_SHOWN]!r}: open it as http://127.0.0.1 with its port, or write"
                    f" {call}(read=bearer(TOKEN)), or read=... with a dependency of your own",
                )

    made: params.Depends = Depends(refuse_other_hosts)
    return made


ONLY_LOCAL: Final = only_local("jobs.router")
