"""Limits of tasks: checked at import, computed at the call."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from jobrunner import (
    Concurrency,
    InvalidArguments,
    InvalidOptions,
    InvalidTask,
    JobContext,
    Rate,
    Task,
    TaskRouter,
)
from jobrunner.core.limits import Limit, RateLimit
from jobrunner.core.model import Enqueue
from jobrunner.tasks.limits import lane_name


class Customer(BaseModel):
    id: int = 5
    region: str | None = Field(default=None, alias="Region")


@dataclass
class Line:
    sku: str


class Box(TypedDict):
    weight: int


class Order(BaseModel):
    customer: Customer = Customer()
    line: Line | None = None
    box: Box = {"weight": 1}


ORDER = Order()


def region(order: Order) -> str | None:
    return order.customer.region


def first(account_id: int | None, at: str) -> list[object]:
    return [account_id, at[0]]


async def slow(at: str) -> str:
    return at


def wrong_type(at: int) -> int:
    return at


def wrong_name(order: Order, town: str) -> str:
    return town


def many(*at: str) -> str:
    return at[0]


def task_with(**options: Any) -> Task[..., Any]:
    async def sync(
        job: JobContext,
        account_id: int | None = 7,
        order: Order = ORDER,
        at: str = "x",
    ) -> None: ...

    return TaskRouter().task(**options)(sync)


def row(task: Task[..., Any], *args: object, **kwargs: object) -> Enqueue:
    return task.call(*args, **kwargs).to_enqueue(id="id", now=1)


@pytest.mark.parametrize(
    ("by", "args", "lane"),
    [
        ("account_id", {"account_id": 42}, "sync[42]"),
        ("account_id", {}, "sync[7]"),
        ("account_id", {"account_id": None}, "sync[null]"),
        ("at", {"at": 'a]["@\0'}, r'sync["a][\"@\u0000"]'),
        (("account_id", "at"), {"account_id": 1, "at": "b"}, 'sync[1,"b"]'),
        ("order.customer.id", {"order": Order()}, "sync[5]"),
        ("order.customer.id", {}, "sync[5]"),
        ("order.customer.region", {"order": Order(customer=Customer(Region="eu"))}, 'sync["eu"]'),
        ("order.line.sku", {"order": Order(line=Line("s"))}, 'sync["s"]'),
        ("order.line.sku", {"order": Order()}, "sync[null]"),
        ("order.box.weight", {"order": Order(box={"weight": 9})}, "sync[9]"),
        (region, {"order": Order(customer=Customer(Region="eu"))}, 'sync["eu"]'),
        (region, {}, "sync[null]"),
        (first, {"account_id": 3, "at": "yz"}, 'sync[[3,"y"]]'),
        (("account_id", region), {}, "sync[7,null]"),
    ],
)
def test_lane_is_named_by_the_validated_values(by: Any, args: dict[str, Any], lane: str) -> None:
    job = row(task_with(concurrency=Concurrency(2, by=by)), **args)
    assert (job.lane, job.ordered) == (lane, None)


def test_arguments_are_validated_before_the_lane_is_computed() -> None:
    job = row(task_with(fair="account_id"), account_id="42")
    assert job.lane == "sync[42]"


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=600),
    st.uuids(),
    st.datetimes(timezones=st.just(UTC)),
    st.tuples(st.integers(), st.text()),
)


@given(st.lists(VALUES, min_size=1, max_size=3), st.lists(VALUES, min_size=1, max_size=3))
def test_no_two_values_share_a_lane(one: list[Any], other: list[Any]) -> None:
    def plain(values: list[Any]) -> str:
        return json.dumps(values, default=_plain)

    assert (lane_name("sync", one) == lane_name("sync", other)) == (plain(one) == plain(other))


def _plain(value: object) -> str:
    assert isinstance(value, UUID | datetime)
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


def test_a_function_that_fails_refuses_the_arguments() -> None:
    with pytest.raises(InvalidArguments, match=r"by=first gives no value .*IndexError"):
        row(task_with(fair=first), at="")


def test_a_long_value_has_a_short_lane_of_its_own() -> None:
    lanes = {lane_name("sync", ["x" * 600 + end]) for end in ("a", "b")}
    assert len(lanes) == 2
    assert max(map(len, lanes)) < 100


def test_task_without_by_lies_in_no_lane() -> None:
    task = task_with(concurrency=3, rate_limit=Rate(100, per=timedelta(minutes=1), burst=5))
    assert row(task).lane is None
    assert task.spec.limits is not None
    assert task.spec.limits.own == Limit(3, RateLimit(100, 60_000_000, 5))
    assert task.spec.limits.lane == Limit()


def test_limits_of_the_task_and_of_each_value_stand_side_by_side() -> None:
    task = task_with(
        concurrency=[Concurrency(20), Concurrency(2, by="account_id")],
        rate_limit=[Rate(9), Rate(4, by="account_id")],
        fair="account_id",
    )
    limits = task.spec.limits
    assert limits is not None
    assert limits.own == Limit(20, RateLimit(9, 1_000_000))
    assert limits.lane == Limit(2, RateLimit(4, 1_000_000))


def test_order_without_by_is_of_the_whole_task() -> None:
    job = row(task_with(concurrency=Concurrency(1, ordered=True)))
    assert (job.lane, job.ordered) == ("sync[]", True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"concurrency": 0}, "concurrency=Concurrency(1)"),
        ({"concurrency": -1}, "await jobs.queues.pause"),
        ({"concurrency": True}, "concurrency=Concurrency(1)"),
        ({"concurrency": "3"}, "concurrency=Concurrency(10)"),
        ({"rate_limit": 5}, "rate_limit=Rate(10)"),
        ({"fair": "acount_id"}, "write by='account_id'"),
        ({"fair": "order.custmer.id"}, "write by='order.customer.id'"),
        ({"fair": "order.customer.name"}, "Customer has no field 'name'"),
        ({"fair": "account_id.x"}, "int has no declared fields"),
        ({"fair": "job"}, "no parameter 'job'"),
        ({"fair": []}, 'by="account_id"'),
        ({"fair": ()}, 'by="account_id"'),
        ({"fair": 5}, 'by="account_id"'),
        ({"fair": slow}, "write `def slow`"),
        ({"fair": wrong_type}, "`at: str = 'x'`, and the function `at: int`"),
        ({"fair": wrong_name}, "its parameter `town: str` is none of the task"),
        ({"fair": many}, "its parameter `*at: str` is none"),
        ({"concurrency": Concurrency(1, by=region), "fair": first}, "by first and region"),
        ({"concurrency": [Concurrency(1), Concurrency(2)]}, "two limits for the same jobs"),
        ({"concurrency": Concurrency(1, by="at"), "fair": "order"}, "the same by="),
        ({"concurrency": Concurrency(1, by="at", ordered=True), "priority": 3}, "leave priority="),
    ],
)
def test_wrong_limits_are_refused_with_the_line_to_write(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidTask) as caught:
        task_with(**options)
    assert said in str(caught.value)
    assert "sync" in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Concurrency(2, ordered=True),
        lambda: Concurrency(1_000_001),
        lambda: Concurrency(1.5),  # type: ignore[arg-type]
        lambda: Rate(0),
        lambda: Rate(1, per=0),
        lambda: Rate(1, per=-1),
        lambda: Rate(1, per=float("nan")),
        lambda: Rate(1, burst=0),
        lambda: Rate(1, per=timedelta(days=9_999), burst=1_000_000),
    ],
)
def test_wrong_numbers_are_refused(make: Any) -> None:
    with pytest.raises(InvalidTask, match="write"):
        make()


@pytest.mark.parametrize(
    "options", [{"delay": 5}, {"priority": 1}, {"run_at": datetime(2030, 1, 1, tzinfo=UTC)}]
)
def test_ordered_job_takes_no_option_that_would_move_it(options: dict[str, Any]) -> None:
    task = task_with(concurrency=Concurrency(1, by="at", ordered=True))
    (word,) = options
    with pytest.raises(InvalidOptions, match=f"without {word}="):
        row(task.options(**options))
