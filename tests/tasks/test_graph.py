"""The rows of a batch, and the graphs that are refused before anything is stored."""

import json
from typing import Any

import pytest

from jobrunner.core.errors import InvalidBatch
from jobrunner.core.model import BatchEnqueue, Edge, Enqueue, NewBatch
from jobrunner.tasks.call import Call
from jobrunner.tasks.graph import NO_CALLBACKS, Callbacks, to_batch
from jobrunner.tasks.router import TaskRouter

NOW = 1_700_000_000_000_000

tasks = TaskRouter()


@tasks.task
async def charge(order: int) -> str:
    return str(order)


@tasks.task
async def ship(receipt: str) -> str:
    return receipt


@tasks.task
async def merge(receipts: list[str]) -> str:
    return "".join(receipts)


@tasks.task
async def tell(order: int) -> None: ...


def batch(
    calls: list[Call[Any]], callbacks: Callbacks = NO_CALLBACKS, into: NewBatch | str | None = None
) -> BatchEnqueue:
    def to_enqueue(call: Call[Any], id: str) -> Enqueue:
        return call.to_enqueue(id=id, now=NOW)

    new = NewBatch("b", None, NOW) if into is None else into
    return to_batch(new, calls, callbacks, now=NOW, to_enqueue=to_enqueue)


def refused(calls: list[Call[Any]], callbacks: Callbacks = NO_CALLBACKS) -> str:
    with pytest.raises(InvalidBatch) as caught:
        batch(calls, callbacks)
    return str(caught.value)


def test_members_are_in_the_order_of_the_calls() -> None:
    made = batch([charge.call(n) for n in range(5)])
    assert [member.args for member in made.members] == [f'{{"order":{n}}}' for n in range(5)]
    assert len({member.id for member in made.members}) == 5
    assert (made.edges, made.callbacks) == ([], [])


def test_diamond_has_an_edge_for_each_result_and_each_after() -> None:
    paid = charge.call(7)
    left, right = ship.call(paid.result), tell.call(7).after(paid, end="any")
    last = merge.call([left.result, paid.result]).after(right)
    made = batch([paid, left, right, last])
    p, a, b, z = (member.id for member in made.members)
    assert set(made.edges) == {
        Edge(a, p, "success"),
        Edge(b, p, "end"),
        Edge(z, a, "success"),
        Edge(z, p, "success"),
        Edge(z, b, "success"),
    }
    assert made.members[1].handed == json.dumps({"receipt": p})
    assert made.members[3].handed == json.dumps({"receipts": [a, p]})
    assert made.members[0].handed is made.members[2].handed is None


def test_a_call_may_stand_before_the_one_it_waits_for() -> None:
    paid = charge.call(7)
    made = batch([ship.call(paid.result), paid])
    assert made.edges == [Edge(made.members[0].id, made.members[1].id, "success")]


def test_callbacks_wait_for_the_batch_and_are_no_members() -> None:
    made = batch([charge.call(1)], Callbacks(tell.call(1), tell.call(2), tell.call(3)))
    assert len(made.members) == 1
    then, otherwise, at_end = (callback.id for callback in made.callbacks)
    assert made.edges == [
        Edge(then, "b", "success"),
        Edge(otherwise, "b", "failure"),
        Edge(at_end, "b", "end"),
    ]


def test_then_takes_results_of_members_without_an_edge_to_them() -> None:
    paid = charge.call(7)
    made = batch([paid], Callbacks(then=ship.call(paid.result)))
    (callback,) = made.callbacks
    assert callback.handed == json.dumps({"receipt": made.members[0].id})
    assert made.edges == [Edge(callback.id, "b", "success")]


def test_added_members_go_into_the_named_batch() -> None:
    assert batch([charge.call(1)], into="other").batch == "other"


def test_same_calls_make_other_jobs_in_another_batch() -> None:
    calls: list[Call[Any]] = [charge.call(1)]
    assert batch(calls).members[0].id != batch(calls).members[0].id


def test_empty_batch_may_have_callbacks() -> None:
    made = batch([], Callbacks(then=tell.call(1)))
    assert (len(made.members), len(made.callbacks)) == (0, 1)


# fault 34: a cycle or an unknown reference is refused


def test_fault_34_cycle_is_refused_with_the_calls_in_it() -> None:
    paid = charge.call(7)
    shipped = ship.call(paid.result)
    told = tell.call(7).after(shipped)
    paid.after(told)
    text = refused([tell.call(1), paid, shipped, told])
    assert "charge waits for tell waits for ship waits for charge" in text


def test_call_after_itself_is_refused() -> None:
    paid = charge.call(7)
    assert "charge waits for charge" in refused([paid.after(paid)])


def test_long_cycle_is_named_in_short() -> None:
    calls: list[Call[Any]] = [charge.call(n) for n in range(50)]
    for n, call in enumerate(calls):
        call.after(calls[n - 1])
    assert "charge waits for ... waits for charge" in refused(calls)


def test_calls_that_only_hang_on_a_cycle_are_not_named() -> None:
    first, second = charge.call(1), charge.call(2)
    first.after(second)
    second.after(first)
    text = refused([first, second, ship.call(second.result)])
    assert "charge waits for charge waits for charge" in text
    assert "ship" not in text


def test_fault_34_unknown_reference_is_refused() -> None:
    paid = charge.call(7)
    text = refused([charge.call(7), ship.call(paid.result)])
    assert "ship takes the result of a call of charge that is not in the batch" in text
    text = refused([tell.call(7).after(paid)])
    assert "tell waits for a call of charge that is not in the batch" in text
    text = refused([charge.call(7)], Callbacks(then=ship.call(paid.result)))
    assert "ship takes the result of a call of charge that is not in the batch" in text


def test_call_that_is_used_twice_is_refused() -> None:
    paid = charge.call(7)
    assert "<Call charge> is in the batch twice" in refused([paid, paid])
    assert "<Call charge> is in the batch twice" in refused([paid], Callbacks(at_end=paid))
    told = tell.call(1)
    assert "<Call tell> is in the batch twice" in refused([paid], Callbacks(told, told))


def test_callback_that_waits_for_a_call_is_refused() -> None:
    paid = charge.call(7)
    text = refused([paid], Callbacks(then=tell.call(7).after(paid)))
    assert "then=tell.call(...).after(...): a callback waits for the whole batch" in text


@pytest.mark.parametrize("name", ["otherwise", "at_end"])
def test_result_for_a_callback_of_a_failure_is_refused(name: str) -> None:
    paid = charge.call(7)
    text = refused([paid], NO_CALLBACKS._replace(**{name: ship.call(paid.result)}))
    assert f"{name}=ship.call(...) takes the result of charge" in text
    assert "then=ship.call(...)" in text


# limits


def test_ten_thousand_members_are_taken_and_one_more_is_refused() -> None:
    calls: list[Call[Any]] = [charge.call(n) for n in range(10_001)]
    assert len(batch(calls[1:]).members) == 10_000
    assert "10,000 calls at once, not 10,001" in refused(calls)


def test_thousand_needs_of_a_job_are_taken_and_one_more_is_refused() -> None:
    calls = [charge.call(n) for n in range(1_001)]
    assert len(batch([*calls[1:], merge.call([one.result for one in calls[1:]])]).edges) == 1_000
    text = refused([*calls, merge.call([one.result for one in calls])])
    assert "waits for 1,001 calls, and 1,000 are the most" in text
    assert "then=merge.call(...)" in text


def test_twenty_thousand_edges_are_taken_and_more_are_refused() -> None:
    calls = [charge.call(n) for n in range(1_000)]
    sinks = [merge.call([one.result for one in calls]) for _ in range(20)]
    assert len(batch([*calls, *sinks]).edges) == 20_000
    assert "more than 20,000 times" in refused([*calls, *sinks, tell.call(1).after(calls[0])])
