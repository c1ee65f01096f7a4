"""Handles shutdown signals when they come, not only after the server has drained its connections."""

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
"""How long after a signal the same one is an echo; nobody presses Ctrl-C twice so fast."""

Ts = TypeVarTuple("Ts")


def without_echo(handle: Callable[[int, Unpack[Ts]], None]) -> Callable[[int, Unpack[Ts]], None]:
    """Return a handler of signals that ignores the echo of each.

    A single-file executable (PyInstaller) is two processes: a terminal's Ctrl-C reaches both, as does a supervisor's
    signal to all of them, and the one passes it on to the other, which would take that for the second one that ends it
    at once. In other programs the handler is returned as it is.
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
"""Whether the loop of this process handles the shutdown signals."""
_fork = threading.local()
"""``mask``: the signals that the thread had blocked before its fork that is under way."""


@contextlib.contextmanager
def handled(handle: Callable[[int], None]) -> Iterator[None]:
    """Have the running loop call ``handle`` at each shutdown signal inside the block."""
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
    """Block the shutdown signals around a fork: none may reach the child before ``_reset_in_child``."""
    _fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS) if _handling else None


def _unblock_signals() -> None:
    if _fork.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)


def _reset_in_child() -> None:
    """Give a forked child the default handlers.

    It shares the socket by which the loop learns of signals: the parent would take one to the child, as of
    ``multiprocessing.Process.terminate()``, for its own and shut down, and the child would not end at it.
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
    """Let the first signal begin the shutdown and a later SIGINT hurry it, then call the present handler.

    Only in the main thread, and only over a handler that is a function (a server's, or Python's own): elsewhere the end
    of the lifespan is the signal.

    Args:
        begin: called in the signal's handler.
        hurry: the same.
        signals: gets the numbers of the signals that have come.

    Returns:
        A function that puts the old handlers back, where ours are still installed.
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

    Known by the server's own handler of signals, which it installs before it opens the lifespan: neither the command
    line (``uvicorn.run(reload=True)``, ``fastapi dev``) nor the parent process tells.
    """
    handler: Any = inspect.unwrap(signal.getsignal(signal.SIGTERM))  # type: ignore[arg-type]
    config = getattr(getattr(handler, "__self__", None), "config", None)
    return getattr(config, "reload", None) is True


def _nothing() -> None:
    """Restore nothing: no handler was installed."""
