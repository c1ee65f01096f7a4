"""``kill -9`` of two workers on one file, in turns and at once, with a ledger outside."""

import tempfile
from pathlib import Path

from tests.faults.test_kill9 import kill_under_load
from tests.soak.budget import Figures


async def run(seed: int, seconds: float) -> Figures:
    """Go on killing."""
    with tempfile.TemporaryDirectory(prefix="jobrunner-soak-") as directory:
        return await kill_under_load(Path(directory), seed=seed, seconds=seconds)
