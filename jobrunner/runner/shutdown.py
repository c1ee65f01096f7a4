"""Handles shutdown signals at once, before the server has drained its connections."""

import asyncio
import contextlib
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, TypeVarTuple, Unpack

from jobrunner.core.clock import now_s

SIGNALS = (signal.SIGINT, signal.SIGTERM)

ECHO_S: Final = 0.3
"""The time after a signal in which the same one is an echo; nobody presses Ctrl-C twice so fast."""

Ts = TypeVarTuple("Ts")


def without_echo(handle: Callable[[int, Unpack[Ts]], None]) -> Callable[[int, Unpack[Ts]], None]:
    """Return a signal handler that ignores the echo of each signal.

    A single-file executable (PyInstaller) is two processes. A terminal's Ctrl-C reaches both, and so does a signal that
    a process manager sends to the whole group. The outer process also passes it on to the inner one, which would take
    it for the second signal, the one that ends the process at once. In other programs the handler is returned
    unchanged.
    """
    if not getattr(sys, "frozen", False):
        return handle
    handled_s: dict[int, float] = {}

    def handle_once(number: int, *args: *Ts) -> None:
        at_s = now_s()
        if at_s - handled_s.get(number, float("-inf")) >= ECHO_S:
            handled_s[number] = at_s
            handle(number, *args)

    return handle_once


_handling = False
"""True while the loop of this process handles the shutdown signals."""
_fork = threading.local()
"""During a fork, ``mask`` holds the signals that the forking thread had blocked before it."""


@contextlib.contextmanager
def handled(handle: Callable[[int], None]) -> Iterator[None]:
    """Call ``handle`` on the running loop at each shutdown signal inside the block."""
    global _handling  # noqa: PLW0603 - signals are the process's
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, handle, number)
    _handling = True
    try:
        yield
    finally:
        _handling = False
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def _block_signals() -> None:
    """Block the shutdown signals during a fork.

    None may reach the child before ``_reset_in_child``.
    """
    _fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS) if _handling else None


def _unblock_signals() -> None:
    if _fork.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)


def _reset_in_child() -> None:
    """Give a forked child the default signal handlers.

    The child shares the socket that wakes the parent's loop at a signal. Without the reset, a signal to the child, such
    as ``multiprocessing.Process.terminate()`` sends, would shut down the parent and would not end the child.
    """
    global _handling  # noqa: PLW0603 - as above
    if _handling:
        _handling = False
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _unblock_signals()


os.register_at_fork(
    before=_block_signals, after_in_parent=_unblock_signals, after_in_child=_reset_in_child
)


def chain(
    begin: Callable[[], object], hurry: Callable[[], object], signals: set[int]
) -> Callable[[], None]:
    """Install signal handlers that begin the shutdown and then call the previous handlers.

    The first signal begins the shutdown, and a later SIGINT hurries it. This works only in the main thread, and only if
    the previous handler is a function (a server's or Python's). Otherwise the shutdown begins with the end of the
    lifespan.

    Args:
        begin: Called in the signal handler at each signal.
        hurry: Called in the signal handler at a SIGINT that is not the first signal.
        signals: Gets the number of each signal that was received.

    Returns:
        A function that restores the previous handlers, unless other code has replaced ours.
    """
    if threading.current_thread() is not threading.main_thread():
        return _nothing

    def on_signal(number: int) -> None:
        if signals and number == signal.SIGINT:
            hurry()
        signals.add(number)
        begin()

    once = without_echo(on_signal)
    installed: list[tuple[signal.Signals, Any, Any]] = []
    for number in SIGNALS:
        before = signal.getsignal(number)
        if not callable(before):
            continue
        ours = _chained(once, before)
        signal.signal(number, ours)
        installed.append((number, ours, before))

    def restore() -> None:
        for number, ours, before in installed:
            if signal.getsignal(number) is ours:
                signal.signal(number, before)

    return restore


def _chained(
    on_signal: Callable[[int], object], before: Callable[[int, FrameType | None], Any]
) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:
        on_signal(number)
        before(number, frame)

    handle.__wrapped__ = before  # type: ignore[attr-defined]
    return handle


def is_reloading() -> bool:
    """Return whether the server is uvicorn with ``reload``.

    The answer comes from the server's signal handler, which uvicorn installs before it opens the lifespan. Neither the
    command line (``uvicorn.run(reload=True)``, ``fastapi dev``) nor the parent process shows it.
    """
    handler: Any = inspect.unwrap(signal.getsignal(signal.SIGTERM))  # type: ignore[arg-type]
    config = getattr(getattr(handler, "__self__", None), "config", None)
    return getattr(config, "reload", None) is True


def _nothing() -> None:
    """Do nothing, because no handler was installed."""
