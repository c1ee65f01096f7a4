"""Measures how slow this machine is at present, to scale the few time limits of tests."""

import subprocess
import sys
import time
from functools import cache

NORMAL_S = 0.1
"""The start time of a Python that imports asyncio, on the machine of the chosen limits, with a margin."""


@cache
def pace() -> float:
    """Return by what factor a bound is stretched: 1 on a machine as fast as was assumed, more on a slower one.

    Asked once per process, so that the suite does not start a hundred of them; the slowest of three counts.
    """
    took = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import asyncio"], check=True)
        took.append(time.perf_counter() - started)
    return max(1.0, *(one / NORMAL_S for one in took))
