"""Stories that Hypothesis generates, played on each store and on a model of plain dicts."""

import asyncio

from tests.conformance.rigs import RIGS
from tests.conformance.test_stateful import tell_stories
from tests.soak.budget import Figures


async def run(seed: int, seconds: float) -> Figures:
    """Play stories until the time is over, in a thread, since the machine runs another loop."""
    figures: Figures = {}
    for kind in sorted(RIGS):
        told = await asyncio.to_thread(tell_stories, kind, seed=seed, seconds=seconds / len(RIGS))
        figures |= {f"{kind}: {figure}": value for figure, value in told.items()}
    return figures
