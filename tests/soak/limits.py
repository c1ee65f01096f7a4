"""``kill -9`` of workers that hold places under limits: none is leaked or doubled, no order broken."""

import tempfile
from pathlib import Path

from tests.faults.test_limits import kill_holders
from tests.soak.budget import Figures


async def run(seed: int, seconds: float) -> Figures:
    """Go on killing."""
    with tempfile.TemporaryDirectory(prefix="jobrunner-soak-") as directory:
        return await kill_holders(Path(directory) / "jobs.db", seed=seed, seconds=seconds)
