"""``kill -9`` of the served shop under clients: rows, jobs, audit entries and stock counts stay one."""

import tempfile
from pathlib import Path

from tests.app.test_kill9 import kill_while_it_takes_orders
from tests.soak.budget import Figures


async def run(seed: int, seconds: float) -> Figures:
    """Go on killing."""
    with tempfile.TemporaryDirectory(prefix="jobrunner-soak-") as directory:
        return kill_while_it_takes_orders(Path(directory), seed=seed, seconds=seconds)
