"""The rules of limits by themselves: buckets, and the state of a lane after a claim."""

import pytest

from jobrunner.core.limits import Limit, RateLimit, task_of_lane
from jobrunner.store.limits import GRAIN_US, NO_ROOM_LIMIT, SLACK_US, Bucket, after_claim
from tests.support.factories import HOUR, NOW, SECOND


def test_bucket_that_was_never_used_holds_its_burst() -> None:
    assert Bucket(RateLimit(1, SECOND, 5), None, NOW).tokens == 5


def test_bucket_gives_a_token_each_interval_whatever_the_steps() -> None:
    rate = RateLimit(3, SECOND)
    full_at: int | None = None
    taken = 0
    for now in range(NOW, NOW + 10 * SECOND, 7_001):
        bucket = Bucket(rate, full_at, now)
        if tokens := bucket.tokens:
            bucket.take(tokens)
            taken += tokens
            full_at = bucket.full_at
    assert 30 <= taken <= 31


@pytest.mark.parametrize("starts", [1, 7, 100, 1_000, 50_000])
def test_bucket_says_when_it_is_worth_another_claim(starts: int) -> None:
    bucket = Bucket(RateLimit(starts, SECOND), None, NOW)
    bucket.take(bucket.tokens)
    assert bucket.tokens == 0
    then = Bucket(RateLimit(starts, SECOND), bucket.full_at, bucket.next_at)
    assert then.tokens >= max(1, starts * GRAIN_US // SECOND)
    assert bucket.next_at % GRAIN_US == 0
    assert bucket.next_at <= NOW + SECOND // starts + 3 * GRAIN_US


def test_bucket_of_a_clock_that_was_set_back_is_clamped_and_must_be_stored() -> None:
    rate = RateLimit(1, SECOND, 3)
    bucket = Bucket(rate, NOW + HOUR, NOW)
    assert bucket.changed
    assert (bucket.tokens, bucket.full_at) == (0, NOW + 3 * SECOND + SLACK_US)
    assert not Bucket(rate, bucket.full_at, NOW).changed


def test_rounds_that_are_written_out_of_order_gain_no_token() -> None:
    rate = RateLimit(50, SECOND)
    full_at: int | None = None
    taken = 0
    for step in range(100):
        now = NOW + step * SECOND // 100 - (step % 3) * SECOND // 20
        bucket = Bucket(rate, full_at, now)
        bucket.take(bucket.tokens)
        taken += (bucket.full_at - max(full_at or 0, now)) * 50 // SECOND
        full_at = bucket.full_at
    assert 45 <= taken <= 53


def test_bucket_of_a_lowered_burst_gives_no_more_than_the_new_one() -> None:
    assert Bucket(RateLimit(1, SECOND, 2), NOW - HOUR, NOW).tokens == 2


@pytest.mark.parametrize(
    ("room", "tokens", "state"),
    [
        (1, NO_ROOM_LIMIT, "open"),
        (0, NO_ROOM_LIMIT, "full"),
        (-1, NO_ROOM_LIMIT, "full"),
        (1, 0, "empty"),
        (0, 0, "full"),
    ],
)
def test_lane_waits_for_what_holds_it(room: int, tokens: int, state: str) -> None:
    assert after_claim(room=room, tokens=tokens, blocked=False) == state
    assert after_claim(room=room, tokens=tokens, blocked=True) == "full"


def test_limit_is_overridden_number_by_number() -> None:
    rate, faster = RateLimit(1, SECOND), RateLimit(9, SECOND, 2)
    assert Limit(3, rate).overridden(Limit(5)) == Limit(5, rate)
    assert Limit(3, rate, 10).overridden(Limit(rate=faster)) == Limit(3, faster, 10)


def test_task_of_a_lane_is_what_stands_before_the_bracket() -> None:
    assert task_of_lane('mail.send["a[b]@c"]') == "mail.send"
