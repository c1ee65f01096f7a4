"""Hearing a shutdown signal when it comes, and not only when the server has drained its connections."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def chain(on_signal: Callable[[], object]) -> Callable[[], None]:
    """Have ``on_signal`` called at each shutdown signal, before the handler that is there now.

    Only in the main thread, and only over a handler that is a function (a server's, or Python's own): elsewhere the end
    of the lifespan is the signal.

    Returns:
        A function that puts the old handlers back, where ours are still installed.
    """
    if threading.current_thread() is not threading.main_thread():
        return _nothing
    installed: list[tuple[signal.Signals, Any, Any]] = []
    for number in SIGNALS:
        before = signal.getsignal(number)
        if not callable(before):
            continue
        ours = _chained(on_signal, before)
        signal.signal(number, ours)
        installed.append((number, ours, before))

    def restore() -> None:
        for number, ours, before in installed:
            if signal.getsignal(number) is ours:
                signal.signal(number, before)

    return restore


def _chained(
    on_signal: Callable[[], object], before: Callable[[int, FrameType | None], Any]
) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:
        on_signal()
        before(number, frame)

    return handle


def _nothing() -> None:
    """There is nothing to put back."""
