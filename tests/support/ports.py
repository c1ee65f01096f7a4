"""Ports for the servers of tests.

The kernel hands out the ports of its range again as soon as they are free: to connections and to servers that ask for
any port, also in the test beside.  So a port that is free now may be somebody else's before the server has it.  These
lie below that range, and no two processes of a run have the same.
"""

import itertools
import os
import socket
from typing import Final

_FIRST: Final = 20_000
_END: Final = 32_768
_EACH: Final = 600
"""Ports of a process: a run has about twenty at most."""

_offsets: Final = itertools.count(os.getpid() * 7)


def free_port() -> int:
    """Return a port on which nobody listens, and which no other process of the run returns."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw20").removeprefix("gw"))
    first = _FIRST + worker * _EACH % (_END - _FIRST - _EACH)
    for offset in itertools.islice(_offsets, _EACH):
        port = first + offset % _EACH
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no port from {first} to {first + _EACH} is free")
