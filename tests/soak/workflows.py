"""``kill -9`` of two workers under a load of batches, graphs and durable jobs: none stuck, each called back once."""

import tempfile
from pathlib import Path

from tests.faults.test_batch_kills import kill_workflows
from tests.soak.budget import Figures


async def run(seed: int, seconds: float) -> Figures:
    """Go on killing."""
    with tempfile.TemporaryDirectory(prefix="jobrunner-soak-") as directory:
        place = Path(directory)
        return await kill_workflows(
            str(place / "jobs.db"), place / "ledger", seed=seed, seconds=seconds
        )
