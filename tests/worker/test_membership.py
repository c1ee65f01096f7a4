"""The place of a worker on its store, step by step: a store that says what its session has become."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from jobrunner.core.errors import StoreError
from jobrunner.core.model import WorkerRow
from jobrunner.store.protocol import Standing
from jobrunner.worker.membership import Membership
from tests.support.engine import soon


class Workers:
    """Lets workers join, and says during each join after the first what the session has become."""

    def __init__(self, *during: Standing | None) -> None:
        self.during = [None, *during]
        self.joined: list[int] = []
        self.say: Callable[[Standing], None] = lambda _: None

    async def join(
        self, row: WorkerRow, _on_notify: object, on_standing: Callable[[Standing], None]
    ) -> None:
        self.joined.append(row.worker)
        self.say = on_standing
        said = self.during.pop(0)
        await asyncio.sleep(0)  # noqa: TID251 - as a real join, it lets others run
        if said is not None:
            on_standing(said)


class Rig:
    """A membership on such a store, which has joined."""

    def __init__(self, *during: Standing | None) -> None:
        self.workers = Workers(*during)
        self.lost: list[int] = []
        self.fatal: list[StoreError] = []
        self.times = 0
        self.again = asyncio.Event()
        store: Any = SimpleNamespace(workers=self.workers)
        self.membership = Membership(
            store,
            on_lost=self.lost.append,
            on_joined_again=self._joined_again,
            on_fatal=self.fatal.append,
        )

    async def _joined_again(self) -> None:
        self.times += 1
        self.again.set()

    async def join(self) -> None:
        """Join for the first time."""
        await self.membership.join(WorkerRow(0, 1, "host", 0, 0, None, {}, {}), lambda: None)


async def test_lost_worker_is_held_again_under_another_number() -> None:
    rig = Rig(None)
    await rig.join()
    rig.workers.say("lost")
    assert "found dead" in (rig.membership.problem() or "")
    await soon(rig.again.wait())
    assert rig.membership.standing == "held"
    assert rig.membership.problem() is None
    assert rig.lost == rig.workers.joined[:1]
    assert rig.workers.joined[1:] == [rig.membership.number] != rig.lost


async def test_session_in_doubt_during_the_join_is_not_held_before_the_store_says_so() -> None:
    rig = Rig("doubtful")
    await rig.join()
    rig.workers.say("lost")
    await soon(rig.again.wait())
    assert rig.membership.standing == "doubtful"
    assert rig.membership.problem() is not None
    rig.workers.say("held")
    assert (rig.membership.standing, rig.membership.problem()) == ("held", None)


async def test_worker_that_is_lost_during_the_join_joins_under_the_next_number_alone() -> None:
    rig = Rig("lost", None)
    await rig.join()
    rig.workers.say("lost")
    await soon(rig.again.wait())
    first, second, third = rig.workers.joined
    assert rig.lost == [first, second]
    assert (rig.membership.number, rig.membership.standing) == (third, "held")
    assert (rig.times, rig.fatal) == (1, [])
