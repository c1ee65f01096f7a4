"""Clients that hang up before they have their answer."""

import asyncio
import socket
import struct
from pathlib import Path

from jobrunner.core.model import UNFINISHED
from tests.faults.test_shutdown_signals import jobs_in, served
from tests.support.engine import PATIENCE_S

CLIENTS = 60
REQUEST = b"POST /jobs/short HTTP/1.1\r\nHost: site\r\nContent-Length: 0\r\n\r\n"
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: the close is a reset, and an answer finds nobody."""


async def hang_up(port: int, after: int) -> None:
    """Send the first bytes of a request (all of them, mostly) and hang up at once."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.write(REQUEST[:after])
    await writer.drain()
    writer.transport.abort()


async def test_C4_client_that_hangs_up_during_enqueue_leaves_a_whole_job_or_none(
    tmp_db: Path,
) -> None:
    async with served(tmp_db) as site:
        port = site.client.base_url.port
        assert port is not None
        lengths = [len(REQUEST) if n % 4 else n for n in range(CLIENTS)]
        await asyncio.gather(*[hang_up(port, length) for length in lengths])
        # Whoever asks again is served, and what was stored runs.
        (id,) = await site.enqueue("short")
        async with asyncio.timeout(PATIENCE_S):
            while (await site.client.get(f"/state/{id}")).json() != "succeeded":
                pass
    stored = await jobs_in(tmp_db)
    whole_requests = sum(length == len(REQUEST) for length in lengths)
    assert 1 <= len(stored) <= whole_requests + 1
    assert all(job.state == "succeeded" or job.state in UNFINISHED for job in stored)
    assert {job.task for job in stored} == {"short"}
