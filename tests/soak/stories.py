"""Stories that Hypothesis generates, played on each store and on a model of plain dicts."""

import asyncio

from tests.conformance.rigs import STORES, maker
from tests.conformance.test_stateful import tell_stories
from tests.soak.budget import Figures
from tests.support import postgres


async def run(seed: int, seconds: float) -> Figures:
    """Play stories until the time is over, in a thread, since the machine runs another loop."""
    figures: Figures = {}
    postgres.reserve()
    try:
        for kind in STORES:
            make_rig = maker(kind, lambda: postgres.Databases(postgres.server()))
            told = await asyncio.to_thread(
                tell_stories, make_rig, seed=seed, seconds=seconds / len(STORES)
            )
            figures |= {f"{kind}: {figure}": value for figure, value in told.items()}
    finally:
        postgres.release()
    return figures
