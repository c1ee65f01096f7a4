"""The duration of a part: seconds in the suite, any time when run by hand."""

import sys
import time
from collections.abc import Iterator

PROGRESS_S = 15.0

Figures = dict[str, object]


def rounds(seconds: float, *, least: int) -> Iterator[int]:
    """Yield 0, 1, 2 and so on until the time is over, and ``least`` numbers at the least.

    The least is what proves something also on a machine so slow that the time is over before.
    """
    started = shown = time.perf_counter()
    number = 0
    while number < least or time.perf_counter() - started < seconds:
        yield number
        number += 1
        now = time.perf_counter()
        if now - shown > PROGRESS_S:
            shown = now
            print(f"  round {number}, {now - started:.0f} of {seconds:.0f} s", file=sys.stderr)
