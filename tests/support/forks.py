"""Starts processes: forked by ``tests.support.fork_server``, which costs a fraction, or else new ones.

A test of the start itself (of imports, options of Python or its variables) uses ``subprocess`` or ``scripts``.
"""

import asyncio
import atexit
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

READ_AT_START: Final = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC")
"""Beginnings of the variables that are read before the first import."""
READ_LATER: Final = {"PYTHONPATH", "PYTHONUNBUFFERED"}
"""The ones that the fork server reads for a forked process."""


def can_fork(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Return whether a forked process does the same as a new one."""
    changed = {one for one in env.keys() | os.environ.keys() if env.get(one) != os.environ.get(one)}
    return (
        hasattr(os, "pidfd_open")
        and command[0] in ("-m", "-c")
        and not any(name.startswith(READ_AT_START) for name in changed - READ_LATER)
    )


@cache
def server() -> socket.socket:
    """Start the fork server of this process, which ends with it; return the socket for requests."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())],
            cwd=Path(__file__).parents[2],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def fork(
    command: Sequence[str],
    streams: Sequence[int],
    *,
    env: Mapping[str, str],
    cwd: Path,
    session: bool = False,
    is_command: bool = False,
) -> tuple[int, socket.socket]:
    """Start ``python COMMAND`` as a forked process.

    Args:
        command: ``-m MODULE ...`` or ``-c SCRIPT ...``.
        streams: descriptors of its standard input, output and error.
        env: its whole environment.
        cwd: its working directory.
        session: True to start a new session.
        is_command: True if it has closed all that it opened when it calls ``sys.exit``.

    Returns:
        Its process id, and a socket that receives its exit code.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    request = {
        "command": command,
        "env": dict(env),
        "cwd": str(cwd),
        "session": session,
        "is_command": is_command,
    }
    with theirs:
        socket.send_fds(server(), [json.dumps(request).encode()], [*streams, theirs.fileno()])
    pid = ours.recv(64)
    assert pid, "the fork server has ended; its errors are above"
    return int(pid), ours


class Forked:
    """A forked process, with what the tests use of ``asyncio.subprocess.Process``."""

    def __init__(self, pid: int, answer: socket.socket) -> None:
        self.pid = pid
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._code: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(answer, self._on_end)

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        stdin: int,
        stderr: Any,
        session: bool = False,
        is_command: bool = False,
    ) -> Self:
        """Start it with a pipe for its output; ``stdin`` and ``stderr`` are as for ``Popen``."""
        with ExitStack() as theirs:

            def end_of(given: Any, inherited: int, *, written_here: bool) -> tuple[int, int | None]:
                """Return the descriptor for the process, and our end of the pipe."""
                if given == subprocess.PIPE:
                    read, write = os.pipe()
                    its, ours = (read, write) if written_here else (write, read)
                    theirs.callback(os.close, its)
                    return its, ours
                if given == subprocess.DEVNULL:
                    nothing = os.open(os.devnull, os.O_RDWR)
                    theirs.callback(os.close, nothing)
                    return nothing, None
                return inherited if given is None else given.fileno(), None

            into, write = end_of(stdin, 0, written_here=True)
            out, read = end_of(subprocess.PIPE, 1, written_here=False)
            err, read_errors = end_of(stderr, 2, written_here=False)
            self = cls(
                *fork(
                    command,
                    [into, out, err],
                    env=env,
                    cwd=cwd,
                    session=session,
                    is_command=is_command,
                )
            )
        self.stdin = None if write is None else await self._writer(write)
        self.stdout = None if read is None else await self._reader(read)
        self.stderr = None if read_errors is None else await self._reader(read_errors)
        return self

    async def _reader(self, fd: int) -> asyncio.StreamReader:
        reader = asyncio.StreamReader()
        await self._loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0)
        )
        return reader

    async def _writer(self, fd: int) -> asyncio.StreamWriter:
        transport, protocol = await self._loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(fd, "wb", 0)
        )
        return asyncio.StreamWriter(transport, protocol, None, self._loop)

    def _on_end(self) -> None:
        self._loop.remove_reader(self._answer)
        with self._answer:
            self._code.set_result(int(self._answer.recv(64)))

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it lives."""
        return self._code.result() if self._code.done() else None

    async def wait(self) -> int:
        """Wait for its end."""
        return await asyncio.shield(self._code)

    async def communicate(self) -> tuple[bytes, bytes]:
        """Close its input, read its output to the end, and wait for its own."""
        if self.stdin is not None:
            self.stdin.close()
        read = [one.read() for one in (self.stdout, self.stderr) if one is not None]
        out, *errors = await asyncio.gather(*read)
        await self.wait()
        return out, b"".join(errors)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        if self.returncode is None:
            _kill(self.pid)


def _kill(pid: int) -> None:
    # The server may have waited for its end already, and the exit code is on its way.
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


Started = Forked | asyncio.subprocess.Process


async def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    stdin: int = subprocess.PIPE,
    stderr: Any = None,
    session: bool = False,
    is_command: bool = False,
) -> Started:
    """Start ``python COMMAND`` with a pipe for its output.

    Args:
        command: the arguments after ``python``.
        env: its whole environment.
        cwd: its working directory.
        stdin: ``PIPE`` or ``DEVNULL``.
        stderr: ``PIPE``, a file, or None for that of the test.
        session: True to start a new session.
        is_command: see ``fork``.
    """
    if can_fork(command, env):
        return await Forked.start(
            command,
            env=env,
            cwd=cwd,
            stdin=stdin,
            stderr=stderr,
            session=session,
            is_command=is_command,
        )
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        cwd=cwd,
        env=dict(env),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=session,
    )


class BlockingForked:
    """A forked process, with what the tests use of ``subprocess.Popen``."""

    def __init__(self, pid: int, answer: socket.socket) -> None:
        self.pid = pid
        self._answer = answer
        self._code: int | None = None

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        if self._code is None:
            _kill(self.pid)

    def wait(self, timeout: float) -> int:
        """Wait for its end; return its exit code."""
        if self._code is None:
            with self._answer:
                self._answer.settimeout(timeout)
                self._code = int(self._answer.recv(64))
        return self._code


def start_blocking(
    command: Sequence[str], stdin: int, stdout: int = 1, *, env: Mapping[str, str], cwd: Path
) -> "BlockingForked | subprocess.Popen[bytes]":
    """Start ``python COMMAND`` on the given descriptors, outside of an event loop.

    Args:
        command: the arguments after ``python``.
        stdin: the descriptor of its standard input.
        stdout: that of its standard output; by default that of the test.
        env: its whole environment.
        cwd: its working directory.
    """
    if can_fork(command, env):
        return BlockingForked(*fork(command, [stdin, stdout, 2], env=env, cwd=cwd))
    return subprocess.Popen(
        [sys.executable, *command], stdin=stdin, stdout=stdout, cwd=cwd, env=dict(env)
    )
