"""Which attempts stand still among workers, and which one is refused."""

from collections.abc import Iterable

import pytest

from jobrunner.core.wait_graph import Held, chosen, full, standing

A, B, C = 1, 2, 3


def held(seq: int, queue: str, *waits: str | int, worker: int = A) -> Held:
    """Return an attempt that waits for jobs queued somewhere (a name) or running (a number)."""
    queues = tuple(wait for wait in waits if isinstance(wait, str))
    running = tuple(wait for wait in waits if isinstance(wait, int))
    return Held(worker, seq, 1, queue, (), queues, running)


def seqs(found: Iterable[Held]) -> set[int]:
    """Return which attempts these are."""
    return {one.seq for one in found}


ONE_EACH = {A: {"x": 1}, B: {"x": 1}}


def test_queue_is_full_if_all_slots_of_all_its_workers_are_held() -> None:
    slots = {A: {"x": 2, "y": 1}, B: {"x": 1}}
    one, two, three = held(1, "x"), held(2, "x"), held(3, "x", worker=B)
    assert full([one, two, three], slots) == {"x"}
    assert full([one, two], slots) == set()
    assert full([one, three], slots) == set()
    assert full([held(1, "y")], slots) == {"y"}


@pytest.mark.parametrize(
    ("attempts", "found"),
    [
        ([held(1, "x", "x"), held(2, "x", "x", worker=B)], {1, 2}),
        # A slot of B is free, or works.
        ([held(1, "x", "x")], set()),
        # One of them waits for something that runs elsewhere too.
        ([held(1, "x", "x", 9), held(2, "x", "x", worker=B)], set()),
        # Two that wait for each other while they run.
        ([held(1, "x", 2), held(2, "x", 1, worker=B)], {1, 2}),
        ([held(1, "x", 1), held(2, "x", 3, worker=B)], {1}),
        # A queue that nobody serves may be served soon.
        ([held(1, "x", "nowhere"), held(2, "x", "x", worker=B)], set()),
    ],
)
def test_attempts_stand_still_if_none_of_them_can_go_on(
    attempts: list[Held], found: set[int]
) -> None:
    assert seqs(standing(attempts, ONE_EACH)) == found


def test_youngest_of_the_circle_is_chosen_and_not_one_that_merely_waits_for_it() -> None:
    slots = {A: {"x": 1, "side": 1}, B: {"x": 1}, C: {"far": 2}}
    circle = [held(3, "x", "x"), held(4, "x", "x", worker=B)]
    waits = [held(8, "side", "x"), held(9, "far", 3, worker=C)]
    found = standing([*circle, *waits], slots)
    assert seqs(found) == {3, 4, 8, 9}
    assert chosen(found).seq == 4
    assert chosen(circle).seq == 4


def test_of_two_circles_the_same_one_is_chosen_from_in_any_order() -> None:
    slots = {A: {"x": 1}, B: {"x": 1}, C: {"y": 1, "z": 1}}
    attempts = [held(1, "x", "x"), held(6, "x", "x", worker=B)]
    attempts += [held(2, "y", "z", worker=C), held(7, "z", "y", worker=C)]
    for order in (attempts, attempts[::-1]):
        assert chosen(order).seq == 6
        assert seqs(standing(order, slots)) == {1, 2, 6, 7}


def test_circle_through_several_queues_and_running_jobs_is_one() -> None:
    slots = {A: {"x": 1}, B: {"y": 1}, C: {"z": 1}}
    attempts = [
        held(1, "x", "y"),
        held(2, "y", 3, worker=B),
        held(3, "z", "x", worker=C),
    ]
    assert seqs(standing(attempts, slots)) == {1, 2, 3}
    assert chosen(attempts).seq == 3
