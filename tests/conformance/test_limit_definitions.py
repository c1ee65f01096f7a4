"""Definitions of limits: what code declares, what is set, and the list."""

from jobrunner.core.limits import Limit, LimitName, RateLimit
from jobrunner.store.protocol import Store
from tests.support.factories import NOW, SECOND
from tests.support.lanes import limit

NAMES = [LimitName("queue", "default"), LimitName("task", "work"), LimitName("lanes", "sync")]


async def test_declare_stores_what_the_newest_revision_says(store: Store) -> None:
    two = {name: Limit(2) for name in NAMES}
    three = {name: Limit(3) for name in NAMES}
    assert list(await store.limits.declare(two, revision=5)) == NAMES
    assert list(await store.limits.declare(two, revision=5)) == []
    assert list(await store.limits.declare(three, revision=4)) == []
    rows = await store.limits.list(after=None, limit=9)
    assert [(row.declared, row.revision) for row in rows] == [(Limit(2), 5)] * 3
    assert list(await store.limits.declare(three, revision=5)) == NAMES
    assert list(await store.limits.declare(three, revision=6)) == []
    assert list(await store.limits.declare(two, revision=5)) == []


async def test_declare_removes_what_the_code_does_not_limit_any_longer(store: Store) -> None:
    await store.limits.declare({NAMES[0]: Limit(2), NAMES[1]: Limit(3)}, revision=1)
    assert list(await store.limits.declare({NAMES[0]: Limit()}, revision=1)) == [NAMES[0]]
    assert [row.name for row in await store.limits.list(after=None, limit=9)] == [NAMES[1]]


async def test_numbers_that_were_set_count_until_reset(store: Store) -> None:
    name = NAMES[2]
    rate = RateLimit(5, SECOND, 2)
    await store.limits.declare({name: Limit(2, rate)}, revision=1)
    row = await store.limits.set(name, Limit(7), now=NOW)
    assert (row.limit, row.declared, row.set, row.set_at) == (
        Limit(7, rate),
        Limit(2, rate),
        Limit(7),
        NOW,
    )
    faster = RateLimit(9, SECOND, 1)
    row = await store.limits.set(name, Limit(rate=faster), now=NOW + 1)
    assert row.limit == Limit(7, faster)
    assert await store.limits.get(name) == row
    await store.limits.declare({name: Limit(3, rate)}, revision=2)
    found = await store.limits.get(name)
    assert found is not None
    assert found.limit == Limit(7, faster)
    assert await store.limits.reset(name)
    assert not await store.limits.reset(name)
    found = await store.limits.get(name)
    assert found is not None
    assert (found.limit, found.set_at) == (Limit(3, rate), None)


async def test_reset_of_a_limit_that_no_code_declares_removes_it(store: Store) -> None:
    await limit(store, "lane", "sync[1]", 3)
    assert await store.limits.reset(LimitName("lane", "sync[1]"))
    assert await store.limits.get(LimitName("lane", "sync[1]")) is None


async def test_list_gives_pages_with_single_lanes_last(store: Store) -> None:
    names = [*NAMES, *(LimitName("lane", f"sync[{n}]") for n in range(4))]
    for name in reversed(names):
        await store.limits.set(name, Limit(1), now=NOW)
    found: list[LimitName] = []
    while page := await store.limits.list(after=found[-1] if found else None, limit=2):
        found += [row.name for row in page]
    assert found == [names[2], names[0], names[1], *names[3:]]
