"""The result of a call that has not run: what may be done with it, and what is refused with the line to write."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from jobrunner.core.errors import InvalidArguments, InvalidBatch, InvalidOptions
from jobrunner.tasks.limits import Concurrency
from jobrunner.tasks.placeholder import Placeholder, source_of
from jobrunner.tasks.router import TaskRouter

tasks = TaskRouter(prefix="shop.")


class Receipt(BaseModel):
    id: str
    extra: Any = None


@dataclass
class Parcel:
    content: Any


@tasks.task
async def charge(order: int) -> Receipt:
    return Receipt(id=str(order))


@tasks.task
async def ship(receipt: Receipt, *, express: bool = False) -> None: ...


@tasks.task
async def merge(receipts: list[Receipt], title: str = "") -> str:
    return title


@tasks.task
async def pack(receipts: tuple[Receipt, ...]) -> None: ...


@tasks.task
async def take(anything: Any = None, by_name: dict[str, Any] | None = None) -> None: ...


def placeholder() -> Any:
    return charge.call(7).result


# what may be done


def test_result_as_an_argument_is_kept_apart_from_the_stored_ones() -> None:
    paid = charge.call(7)
    shipped = ship.call(paid.result, express=True)
    assert shipped.args == '{"express":true}'
    assert shipped.sources == [paid]
    assert shipped.needs == {paid: "success"}


def test_result_by_name_is_the_same_as_by_position() -> None:
    paid = charge.call(7)
    by_name, by_position = ship.call(receipt=paid.result), ship.call(paid.result)
    assert (by_name.args, by_name.sources) == (by_position.args, by_position.sources)


def test_list_and_tuple_of_results_keep_their_order() -> None:
    parts = [charge.call(n) for n in range(3)]
    assert merge.call([part.result for part in parts], title="x").sources == parts
    assert pack.call(tuple(part.result for part in reversed(parts))).sources == parts[::-1]
    assert merge.call([parts[0].result, parts[0].result]).needs == {parts[0]: "success"}


def test_empty_list_is_a_plain_argument() -> None:
    assert merge.call([]).args == '{"receipts":[]}'
    assert merge.call([]).handed is None


def test_other_arguments_beside_a_result_are_validated_at_the_call() -> None:
    title: Any = 3
    with pytest.raises(InvalidArguments, match="title: Input should be a valid string"):
        merge.call([charge.call(1).result], title=title)
    with pytest.raises(InvalidArguments, match="unexpected keyword"):
        ship.call(charge.call(1).result, colour="red")  # type: ignore[call-arg]
    with pytest.raises(InvalidArguments, match="missing a required argument: 'receipts'"):
        merge.call(title=charge.call(1).result)  # type: ignore[call-arg, arg-type]


def test_placeholder_shows_itself_in_messages() -> None:
    assert repr(placeholder()) == "<the result of charge, which has not run>"
    assert isinstance(placeholder(), Placeholder)
    assert source_of(placeholder()).spec is charge.spec
    with pytest.raises(ValueError, match="<the result of charge, which has not run>"):
        Receipt(id=placeholder())


# what is refused

USES: dict[str, Callable[[Any], object]] = {
    "attribute": lambda value: value.id,
    "private attribute": lambda value: value._id,
    "method": lambda value: value.model_dump(),
    "item": lambda value: value["id"],
    "assignment": lambda value: setattr(value, "id", "x"),
    "f-string": lambda value: f"receipt {value}",
    "str": str,
    "format": "{:>3}".format,
    "percent": lambda value: "%s" % value,  # noqa: UP031 - what is tested
    "plus": lambda value: value + 1,
    "plus behind": lambda value: 1 + value,
    "join": lambda value: "x" + value,
    "comparison": lambda value: value < 3,
    "equality": lambda value: value == 3,
    "inequality": lambda value: value != 3,
    "truth": lambda value: "yes" if value else "no",
    "not": lambda value: not value,
    "int": int,
    "float": float,
    "round": round,
    "index": lambda value: [1, 2][value],
    "len": len,
    "loop": list,
    "in": lambda value: 3 in value,
    "key": lambda value: {value: 1},
    "set": lambda value: {value},
    "call": lambda value: value(),
    "context": lambda value: value.__enter__(),
    "bytes": bytes,
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "pickle": pickle.dumps,
}


@pytest.mark.parametrize("use", USES)
def test_use_of_a_result_as_a_value_says_what_to_write(use: str) -> None:
    with pytest.raises(TypeError, match=r"`paid = charge\.call\(\.\.\.\)` and `task\.call\(paid"):
        USES[use](placeholder())


async def test_await_of_a_result_says_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"`paid = charge\.call\(\.\.\.\)`"):
        await placeholder()


INSIDE: dict[str, Callable[[Any], object]] = {
    "anything": lambda value: take.call([1, [value]]),
    "dict": lambda value: take.call(by_name={"receipt": value}),
    "dict for a model": lambda value: ship.call({"id": value}),  # type: ignore[arg-type]
    "model": lambda value: ship.call(Receipt(id="x", extra=value)),
    "deep in a model": lambda value: ship.call(Receipt(id="x", extra={"a": [{"b": value}]})),
    "model without validation": lambda value: ship.call(Receipt.model_construct(id=value)),
    "dataclass": lambda value: take.call(Parcel(value)),
    "list in a list": lambda value: take.call([[value]]),
    "second parameter": lambda value: take.call(1, {"x": value}),
}


@pytest.mark.parametrize("place", INSIDE)
def test_result_inside_another_value_is_refused_with_the_line_to_write(place: str) -> None:
    task: Any = INSIDE[place]
    with pytest.raises(TypeError, match=r"part of another value: hand it on as a whole, `paid = c"):
        task(placeholder())


@pytest.mark.parametrize("first", [True, False])
def test_list_of_results_and_plain_values_is_refused(*, first: bool) -> None:
    mixed = [Receipt(id="x"), placeholder()]
    with pytest.raises(TypeError, match="takes results of other calls, or plain values, not both"):
        merge.call(mixed if first else mixed[::-1])


def test_value_that_refers_to_itself_is_searched_once() -> None:
    circle: list[Any] = [lambda: None]
    circle.append(circle)
    with pytest.raises(InvalidArguments):
        take.call(circle)


# after


def test_after_changes_the_call_and_returns_it() -> None:
    first, second = charge.call(1), charge.call(2)
    call = merge.call([])
    assert call.after(first).after(second, end="any") is call
    assert call.needs == {first: "success", second: "end"}


def test_need_of_success_is_the_stronger_one() -> None:
    first = charge.call(1)
    assert merge.call([]).after(first).after(first, end="any").needs == {first: "success"}
    assert merge.call([]).after(first, end="any").after(first).needs == {first: "success"}
    assert ship.call(first.result).after(first, end="any").needs == {first: "success"}


def test_after_refuses_what_is_no_call() -> None:
    call, first = merge.call([]), charge.call(1)
    anything: Any = first.result
    with pytest.raises(
        TypeError, match=r"write `paid = charge.call\(\.\.\.\)` and `.after\(paid\)`"
    ):
        call.after(anything)
    anything = [first]
    with pytest.raises(TypeError, match=r"write `.after\(\*calls\)`"):
        call.after(anything)
    anything = "id"
    with pytest.raises(TypeError, match=r"takes calls of the same batch, not 'id'"):
        call.after(anything)
    anything = "failure"
    with pytest.raises(InvalidOptions, match='"success" and "any"'):
        call.after(first, end=anything)
    assert call.needs == {}


# limits


@tasks.task(concurrency=Concurrency(1, by="receipt.id"))
async def count_by(receipt: Receipt, times: int) -> None: ...


@tasks.task(concurrency=Concurrency(1, by="account"))
async def sync(account: int, receipt: Receipt) -> None: ...


def test_limit_by_a_result_is_refused_since_its_value_comes_too_late() -> None:
    with pytest.raises(InvalidBatch, match="receipt is the result of another job"):
        count_by.call(charge.call(1).result, 3).to_enqueue(id="a", now=1)


def test_limit_by_a_plain_value_beside_a_result_counts_it() -> None:
    row = sync.call(7, charge.call(1).result).to_enqueue(id="a", now=1)
    assert row.lane == "shop.sync[7]"
