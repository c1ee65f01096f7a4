"""``kill -9`` of a worker under a load of chains: each runs whole and in its order."""

import tempfile
from pathlib import Path

from tests.faults.test_chains import kill_between_links
from tests.soak.budget import Figures


async def run(seed: int, seconds: float) -> Figures:
    """Go on killing."""
    with tempfile.TemporaryDirectory(prefix="jobrunner-soak-") as directory:
        return await kill_between_links(Path(directory), seed=seed, seconds=seconds)
