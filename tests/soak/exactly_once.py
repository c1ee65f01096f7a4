"""``kill -9`` before and after each commit: what a job writes along with its end is there once."""

import tempfile
from pathlib import Path

from tests.faults.mortal import FORMS
from tests.faults.test_exactly_once import kill_at_commits
from tests.soak.budget import Figures


async def run(seconds: float) -> Figures:
    """Go on killing, with each form of writing rows for a third of the time."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="jobrunner-soak-") as directory:
        for form in FORMS:
            file = Path(directory, f"{form}.db")
            found = await kill_at_commits(file, form, seconds=seconds / len(FORMS))
            figures |= {f"{form}: {figure}": value for figure, value in found.items()}
    return figures
