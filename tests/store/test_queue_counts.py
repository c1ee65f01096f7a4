"""The number of waiting jobs in measurements: short queues each time, long ones in turns."""

from collections.abc import Mapping

import pytest

from jobrunner.core.model import Filter
from jobrunner.store.sqlite import SqliteStore
from jobrunner.store.sqlite.sql import queues
from tests.support.factories import HOUR, NOW, enqueue, new

LONG = ("a", "b", "c", "d", "e")


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "SHORT", 3)
    monkeypatch.setattr(queues, "COUNT_CAP", 8)


def measured(store: SqliteStore) -> Mapping[str, int]:
    return {one.name: one.queued + one.scheduled for one in store.statistics.measure().queues}


async def add(store: SqliteStore, queue: str, number: int) -> None:
    await enqueue(store, *(new(queue=queue) for _ in range(number)))


async def test_first_measurement_counts_long_queues_up_to_the_cap(store: SqliteStore) -> None:
    await add(store, "a", 2)
    await add(store, "b", 5)
    await add(store, "c", 9)
    assert measured(store) == {"a": 2, "b": 5, "c": 8}
    found = {one.name: one.complete for one in store.statistics.measure().queues}
    assert found == {"a": True, "b": True, "c": False}


async def test_long_queues_are_counted_again_in_turns_and_never_jump_to_a_cap(
    store: SqliteStore,
) -> None:
    for queue in LONG:
        await add(store, queue, 5)
    await add(store, "short", 1)
    assert measured(store) == dict.fromkeys(LONG, 5) | {"short": 1}
    for queue in (*LONG, "short"):
        await add(store, queue, 1)
    assert measured(store) == {"a": 6, "b": 6, "c": 5, "d": 5, "e": 5, "short": 2}
    assert measured(store) == {"a": 6, "b": 6, "c": 6, "d": 6, "e": 5, "short": 2}
    await add(store, "a", 1)
    assert measured(store) == {"a": 7, "b": 6, "c": 6, "d": 6, "e": 6, "short": 2}


async def test_queue_that_is_short_now_is_exact_at_once(store: SqliteStore) -> None:
    for queue in LONG:
        await add(store, queue, 5)
    measured(store)
    await store.jobs.cancel_all(Filter(queue="e"), before=None, now=NOW, limit=3)
    assert measured(store)["e"] == 2
    # And when it is long again, nothing of before is left.
    await add(store, "e", 4)
    assert measured(store)["e"] == 6


async def test_more_new_long_queues_than_a_measurement_counts_are_at_least_so_long(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "FIRST_LONG", 2)
    for queue in LONG:
        await add(store, queue, 5)
    assert measured(store) == {"a": 5, "b": 5, "c": 3, "d": 3, "e": 3}
    assert measured(store) == {"a": 5, "b": 5, "c": 5, "d": 5, "e": 3}
    assert measured(store) == dict.fromkeys(LONG, 5)


async def test_old_counts_are_forgotten(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for queue in LONG:
        await add(store, queue, 5)
    measured(store)
    for queue in LONG:
        await add(store, queue, 1)
    monkeypatch.setattr(queues, "REMEMBERED_S", -1.0)
    assert measured(store) == dict.fromkeys(LONG, 6)


async def test_scheduled_jobs_of_all_queues_take_a_turn_together(store: SqliteStore) -> None:
    later = [new(queue=queue, run_at=NOW + HOUR) for queue in ("a", "b") for _ in range(2)]
    await enqueue(store, *later)
    for queue in ("c", "d"):
        await add(store, queue, 5)
    assert measured(store) == {"a": 2, "b": 2, "c": 5, "d": 5}
    await enqueue(store, new(queue="a", run_at=NOW + HOUR))
    assert [measured(store)["a"] for _ in range(2)] == [2, 3]


async def test_a_list_of_queues_is_always_of_now(store: SqliteStore) -> None:
    await add(store, "a", 5)
    measured(store)
    await add(store, "a", 1)
    assert [one.queued for one in await store.jobs.queues()] == [6]
