"""Finding the deadlocked attempts among workers, and the attempt to refuse."""

from collections.abc import Iterable

import pytest

from jobrunner.core.wait_graph import WaitingAttempt, deadlocked, full_queues, victim_of

A, B, C = 1, 2, 3


def waiting(seq: int, queue: str, *waits: str | int, worker: int = A) -> WaitingAttempt:
    """Return an attempt that waits for jobs queued somewhere (a name) or running (a number)."""
    queues = tuple(wait for wait in waits if isinstance(wait, str))
    running = tuple(wait for wait in waits if isinstance(wait, int))
    return WaitingAttempt(worker, seq, 1, queue, (), queues, running)


def seqs(found: Iterable[WaitingAttempt]) -> set[int]:
    """Return which attempts these are."""
    return {one.seq for one in found}


ONE_EACH = {A: {"x": 1}, B: {"x": 1}}


def test_queue_is_full_if_all_slots_of_all_its_workers_are_waiting() -> None:
    slots = {A: {"x": 2, "y": 1}, B: {"x": 1}}
    one, two, three = waiting(1, "x"), waiting(2, "x"), waiting(3, "x", worker=B)
    assert full_queues([one, two, three], slots) == {"x"}
    assert full_queues([one, two], slots) == set()
    assert full_queues([one, three], slots) == set()
    assert full_queues([waiting(1, "y")], slots) == {"y"}


@pytest.mark.parametrize(
    ("attempts", "found"),
    [
        ([waiting(1, "x", "x"), waiting(2, "x", "x", worker=B)], {1, 2}),
        # A slot of B is free, or works.
        ([waiting(1, "x", "x")], set()),
        # One of them waits for something that runs elsewhere too.
        ([waiting(1, "x", "x", 9), waiting(2, "x", "x", worker=B)], set()),
        # Two that wait for each other while they run.
        ([waiting(1, "x", 2), waiting(2, "x", 1, worker=B)], {1, 2}),
        ([waiting(1, "x", 1), waiting(2, "x", 3, worker=B)], {1}),
        # A queue that nobody serves may be served soon.
        ([waiting(1, "x", "nowhere"), waiting(2, "x", "x", worker=B)], set()),
    ],
)
def test_attempts_are_deadlocked_if_none_of_them_can_go_on(
    attempts: list[WaitingAttempt], found: set[int]
) -> None:
    assert seqs(deadlocked(attempts, ONE_EACH)) == found


def test_youngest_of_the_circle_is_chosen_and_not_one_that_merely_waits_for_it() -> None:
    slots = {A: {"x": 1, "side": 1}, B: {"x": 1}, C: {"far": 2}}
    circle = [waiting(3, "x", "x"), waiting(4, "x", "x", worker=B)]
    waits = [waiting(8, "side", "x"), waiting(9, "far", 3, worker=C)]
    found = deadlocked([*circle, *waits], slots)
    assert seqs(found) == {3, 4, 8, 9}
    assert victim_of(found).seq == 4
    assert victim_of(circle).seq == 4


def test_of_two_circles_the_same_one_is_chosen_from_in_any_order() -> None:
    slots = {A: {"x": 1}, B: {"x": 1}, C: {"y": 1, "z": 1}}
    attempts = [waiting(1, "x", "x"), waiting(6, "x", "x", worker=B)]
    attempts += [waiting(2, "y", "z", worker=C), waiting(7, "z", "y", worker=C)]
    for order in (attempts, attempts[::-1]):
        assert victim_of(order).seq == 6
        assert seqs(deadlocked(order, slots)) == {1, 2, 6, 7}


def test_circle_through_several_queues_and_running_jobs_is_one() -> None:
    slots = {A: {"x": 1}, B: {"y": 1}, C: {"z": 1}}
    attempts = [
        waiting(1, "x", "y"),
        waiting(2, "y", 3, worker=B),
        waiting(3, "z", "x", worker=C),
    ]
    assert seqs(deadlocked(attempts, slots)) == {1, 2, 3}
    assert victim_of(attempts).seq == 3
