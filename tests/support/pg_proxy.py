"""A proxy before a PostgreSQL server, which can lose the answer to one message and keep its session waiting."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """Passes bytes on; ``url`` is the database behind it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._server = (parts.hostname, parts.port)
        self._parts = parts
        self._wanted: bytes | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._clients: list[tuple[asyncio.StreamWriter, asyncio.Event]] = []
        self.lost = asyncio.Event()
        """Set when the message has been passed on, and its answer is not."""
        self.refuses = False
        """True to refuse new connections."""
        self._listener: asyncio.Server

    async def open(self) -> None:
        """Begin to listen."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._listener.sockets[0].getsockname()[1]
        self.url = urlunsplit(self._parts._replace(netloc=f"jobrunner@127.0.0.1:{port}"))

    async def close(self) -> None:
        """Cut every connection."""
        self._listener.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def lose_answer_to(self, message: bytes) -> None:
        """Cut the connection on which a client next sends this, once the server has received it."""
        self.lost.clear()
        self._wanted = message

    def leave_ghosts(self) -> None:
        """Cut all clients, and let the server believe that they are still there."""
        for client, is_lost in self._clients:
            is_lost.set()
            client.transport.abort()
        self._clients.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.close()
            return
        server_reader, server_writer = await asyncio.open_connection(*self._server)
        is_lost = asyncio.Event()
        self._clients.append((writer, is_lost))
        for pump in (
            self._to_server(reader, server_writer, writer, is_lost),
            self._to_client(server_reader, server_writer, writer, is_lost),
        ):
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _to_server(
        self,
        reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
        is_lost: asyncio.Event,
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                found = self._wanted is not None and self._wanted in data
                if found:
                    self._wanted = None
                    is_lost.set()
                server.write(data)
                await server.drain()
                if found:
                    # The server has it; its session lives on until it has answered.
                    self.lost.set()
                    client.transport.abort()
                    return
        if not is_lost.is_set():
            server.close()

    async def _to_client(
        self,
        reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
        is_lost: asyncio.Event,
    ) -> None:
        try:
            while data := await reader.read(65_536):
                if not is_lost.is_set():
                    client.write(data)
                    await client.drain()
        except ConnectionError:
            pass
        finally:
            client.transport.abort()
            server.transport.abort()


@asynccontextmanager
async def proxy(url: str) -> AsyncIterator[Proxy]:
    """Open a proxy before a database."""
    one = Proxy(url)
    await one.open()
    try:
        yield one
    finally:
        await one.close()
