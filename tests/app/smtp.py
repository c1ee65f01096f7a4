"""A real SMTP server in a thread, which answers as a test asks and keeps the mails."""

import email
import socket
import ssl
from asyncio import AbstractServer
from collections import deque
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.policy import default

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "shop", "correct horse"


class SmtpServer(Controller):
    """Accepts everything, but for the answers that wait in ``rcpt_answers`` and ``data_answers``."""

    def __init__(self, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.rcpt_answers: deque[str] = deque()
        self.data_answers: deque[str] = deque()
        self.login_answer: str | None = None
        """The answer to every login; by default it depends on the password."""
        self.offered: list[EmailMessage] = []
        """Every mail whose DATA came through, refused ones too."""
        self.accepted: list[EmailMessage] = []
        self.logins: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", port))
        hostname, bound = self._socket.getsockname()
        super().__init__(
            self,
            hostname=hostname,
            port=bound,
            tls_context=tls,
            require_starttls=tls is not None,
            authenticator=self._authenticate if tls else None,
            auth_required=tls is not None,
        )

    def _create_server(self) -> Awaitable[AbstractServer]:
        return self.loop.create_server(self._factory_invoker, sock=self._socket)

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append(data.login.decode())
        if self.login_answer:
            return AuthResult(success=False, handled=False, message=self.login_answer)
        good = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=good, handled=False)

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.rcpt_answers:
            return self.rcpt_answers.popleft()
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        message = email.message_from_bytes(envelope.content, policy=default)
        assert isinstance(message, EmailMessage)
        self.offered.append(message)
        if self.data_answers:
            return self.data_answers.popleft()
        self.accepted.append(message)
        return "250 OK"


@contextmanager
def smtp_server(*, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[SmtpServer]:
    """Run a server."""
    server = SmtpServer(port=port, tls=tls)
    server.start()
    try:
        yield server
    finally:
        server.stop()
