"""A real SMTP server on a free loopback port, which fails on request."""

import asyncio
import email
import socket
from collections.abc import Awaitable
from dataclasses import dataclass
from email.policy import default
from typing import Literal

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

Mood = Literal["down", "stuck", "up"]


@dataclass(frozen=True, slots=True)
class Received:
    """A mail that the server accepted."""

    to: str
    message_id: str
    text: str


class MailServer:
    """The server; it runs in a thread from ``start`` to ``stop``."""

    def __init__(self) -> None:
        self.mood: Mood = "down"
        self.full_mailboxes: frozenset[str] = frozenset()
        self.received: list[Received] = []
        self._controller = _OnFreePort(self)
        self.port = self._controller.port

    def start(self) -> None:
        """Start to listen."""
        self._controller.start()

    def stop(self) -> None:
        """Hang up and stop listening."""
        self._controller.stop(no_assert=True)

    # Called by aiosmtpd, by these names.

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Answer RCPT TO."""
        if self.mood == "down":
            return "451 4.3.0 try again later"
        if address in self.full_mailboxes:
            return "452 4.2.2 mailbox full"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Answer the end of DATA."""
        if self.mood == "stuck":
            await asyncio.Event().wait()  # until the client has gone: aiosmtpd then cancels this
        content = envelope.content
        raw = content if isinstance(content, bytes) else str(content).encode()
        message = email.message_from_bytes(raw, policy=default)
        for to in envelope.rcpt_tos:
            self.received.append(Received(to, str(message["Message-ID"]), raw.decode()))
        return "250 OK"


class _OnFreePort(Controller):
    """Listens on any free port; aiosmtpd itself needs a number."""

    def __init__(self, handler: MailServer) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        hostname, port = self._socket.getsockname()
        super().__init__(handler, hostname=hostname, port=port)

    def _create_server(self) -> Awaitable[asyncio.AbstractServer]:
        return self.loop.create_server(self._factory_invoker, sock=self._socket)
