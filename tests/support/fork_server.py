"""Forks Python processes from one that has imported the libraries: ``python -m tests.support.fork_server FD``.

A process that starts anew spends most of a second of a core on its imports, and the suite starts hundreds.  A forked
one is a process as any other: it has its own locks, signals and exit, and runs the interpreter to its end.  Only a
command, which has closed all that it opened when it exits, leaves out the last part.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import socket
import sys
import threading
import types
from pathlib import Path
from typing import Any, Final

LIBRARIES: Final = (
    *("aiosqlite", "fastapi", "httpx2", "sqlalchemy.ext.asyncio", "uvicorn", "uvicorn.lifespan.on"),
    *("uvicorn.loops.auto", "uvicorn.protocols.http.auto", "uvicorn.protocols.websockets.auto"),
    *("jobrunner", "jobrunner.cli.main", "jobrunner.fastapi", "jobrunner.runner.runner"),
    *("jobrunner.fastapi.api.router", "jobrunner.store.sqlite", "jobrunner.sqlalchemy"),
)
"""Imported before the first fork; nothing of the tests, whose modules read their environment."""

REQUEST_BYTES: Final = 1 << 20


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork a process for each request, until the other end of ``control`` is closed.

    Returns:
        In a forked process its request; None at the end of the server.
    """
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is not control:
                selector.unregister(key.fileobj)
                pid, reply = key.data
                _tell_end(pid, reply, key.fd)
                continue
            data, fds, _, _ = socket.recv_fds(control, REQUEST_BYTES, 4)
            if not data:
                return None
            request: dict[str, Any] = json.loads(data)
            *streams, answer = fds
            pid = os.fork()
            if pid == 0:
                os.close(answer)
                for registered in selector.get_map().values():
                    if registered.fileobj is not control:
                        os.close(registered.fd)
                        registered.data[1].close()
                selector.close()
                control.close()
                _become(request, streams)
                return request
            for fd in streams:
                os.close(fd)
            reply = socket.socket(fileno=answer)
            reply.send(str(pid).encode())
            selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, reply))


def _tell_end(pid: int, reply: socket.socket, pidfd: int) -> None:
    """Send the exit code of a process that has ended to the one that asked for it."""
    os.close(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with reply, contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
        reply.send(str(code).encode())


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """Give this process the streams, environment and directory of its request."""
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
        os.close(fd)
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    at_once = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = _text(0, "r", sys.stdin, at_once=False)
    sys.stdout = _text(1, "w", sys.stdout, at_once=at_once)
    sys.stderr = _text(2, "w", sys.stderr, at_once=at_once)


def _text(fd: int, mode: str, like: Any, *, at_once: bool) -> Any:
    """Return a text stream on a descriptor, as Python makes its standard streams."""
    stream: Any = open(fd, mode, encoding=like.encoding, errors=like.errors, closefd=False)  # noqa: SIM115 - it stays open
    stream.reconfigure(line_buffering=fd == 2 or stream.isatty(), write_through=at_once)
    return stream


def run(request: dict[str, Any]) -> None:
    """Run the command line of a request, as ``python`` would."""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    option, what, *args = request["command"]
    sys.path[0] = str(Path.cwd()) if option == "-m" else ""
    sys.path[1:1] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if option == "-m":
        sys.argv = ["-m", *args]
        # What `python -m` itself calls.
        runpy._run_module_as_main(what)  # type: ignore[attr-defined]
    else:
        sys.argv = ["-c", *args]
        exec(compile(what, "<string>", "exec"), vars(main))  # noqa: S102


def leave_at_once(code: int) -> None:
    """End this process as the interpreter does, without taking its modules apart, which copies all their memory."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.collect()
    gc.freeze()
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    if asked is not None:
        try:
            run(asked)
        except SystemExit as end:
            if asked["is_command"] and isinstance(end.code, int):
                leave_at_once(end.code)
            raise
