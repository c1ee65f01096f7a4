"""Joined jobs behind a real server: the commit comes before the answer, and a client that goes tears nothing apart."""

import asyncio
import socket
import sqlite3
from pathlib import Path

from tests.faults.test_disconnects import RESET
from tests.faults.test_shutdown_signals import Site, served
from tests.support.engine import PATIENCE_S
from tests.support.sessions import make_table

APP = "tests.faults.joined_site:create_app"
ORDERS = 20
CLIENTS = 40


def tags_and_items(file: Path) -> tuple[list[str], list[str]]:
    """Return what a stranger sees: the tags of the jobs, and the items of the orders."""
    conn = sqlite3.connect(file)
    try:
        return (
            [tag for (tag,) in conn.execute("SELECT tag FROM jobrunner_jobs ORDER BY tag")],
            [item for (item,) in conn.execute("SELECT item FROM orders ORDER BY item")],
        )
    finally:
        conn.close()


async def test_answer_leaves_after_the_commit(tmp_db: Path) -> None:
    make_table(tmp_db)
    async with served(tmp_db, app=APP) as site:
        for number in range(ORDERS):
            (await site.client.post(f"/orders/{number}")).raise_for_status()
            tags, items = tags_and_items(tmp_db)
            assert str(number) in tags
            assert tags == items
        # The row is unique: the second order of an item is refused, and its job with it.
        assert (await site.client.post("/orders/0")).status_code == 500
        tags, items = tags_and_items(tmp_db)
        assert tags == items
        assert len(tags) == ORDERS


async def hang_up(site: Site, number: int) -> None:
    """Send a request, wait for as many turns of the loop as its number says, and go."""
    port = site.client.base_url.port
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.write(
        f"POST /orders/gone-{number} HTTP/1.1\r\nHost: site\r\nContent-Length: 0\r\n\r\n".encode()
    )
    await writer.drain()
    for _ in range(number):
        await asyncio.sleep(0)  # noqa: TID251 - turns of the loop
    writer.transport.abort()


async def test_C4_client_that_hangs_up_during_a_joined_enqueue_leaves_both_rows_or_none(
    tmp_db: Path,
) -> None:
    make_table(tmp_db)
    async with served(tmp_db, app=APP) as site:
        await asyncio.gather(*[hang_up(site, number) for number in range(CLIENTS)])
        async with asyncio.timeout(PATIENCE_S):
            while (await site.client.post("/orders/last")).status_code != 201:
                pass
    tags, items = tags_and_items(tmp_db)
    assert tags == items
    assert "last" in tags
