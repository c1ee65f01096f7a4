"""Histograms: percentiles close to the true ones, and bytes that keep every count."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner.core.histogram import LANES, Histogram, bounds, lane_of

DAYS_US = 400 * 24 * 3600 * 1_000_000
ROUNDED = 0.5
"""Percentiles are whole µs."""
LONGEST_US = (1 << 63) - 1

durations = st.one_of(
    st.integers(0, 200),
    st.integers(0, DAYS_US).map(lambda us: us >> 20),
    st.integers(0, LONGEST_US),
)
many = st.one_of(st.lists(durations, max_size=200), st.lists(durations, min_size=65, max_size=200))
counts = st.dictionaries(st.integers(0, LANES - 1), st.integers(1, (1 << 63) - 1), max_size=LANES)


def test_lanes_lie_one_behind_the_other_without_gaps() -> None:
    assert bounds(0) == (0, 0)
    behind = 1
    for lane in range(1, LANES):
        shortest, longest = bounds(lane)
        assert shortest == behind
        behind = longest + 1
        assert {lane_of(one) for one in (shortest, longest) if shortest <= longest} <= {lane}
    assert behind == LONGEST_US + 1


def test_each_power_of_two_has_four_lanes() -> None:
    for power in range(63):
        assert lane_of(1 << power) == 4 * power + 1
    # 100 ms and its next lanes, whose bounds grow by the fourth root of two.
    assert [lane_of(us) for us in (100_000, 120_000, 140_000, 170_000, 200_000)] == [
        *(67, 68, 69, 70, 71)
    ]


@pytest.mark.parametrize("number", [1, 100])
def test_negative_durations_count_as_zero_and_the_longest_in_the_last_lane(number: int) -> None:
    # The clock was set back between due and started.
    histogram = Histogram([-1, -DAYS_US, LONGEST_US, LONGEST_US] * number)
    assert histogram.counts == {0: 2 * number, LANES - 1: 2 * number}
    assert lane_of(-1) == 0


@given(many)
def test_histogram_counts_each_duration_in_its_lane(values: list[int]) -> None:
    expected: dict[int, int] = {}
    for value in values:
        expected[lane_of(value)] = expected.get(lane_of(value), 0) + 1
    assert Histogram(values).counts == expected
    assert Histogram(values).total == len(values)


@given(
    st.lists(durations, min_size=1, max_size=200),
    st.lists(st.floats(0.01, 1), min_size=1, max_size=4).map(sorted),
)
def test_percentiles_are_at_most_a_tenth_off(values: list[int], shares: list[float]) -> None:
    for share, found in zip(shares, Histogram(values).percentiles(*shares), strict=True):
        true = sorted(values)[math.ceil(share * len(values)) - 1]
        assert found is not None
        assert abs(found - true) <= true / 10 + ROUNDED


def test_middle_of_each_lane_is_at_most_a_tenth_from_its_bounds() -> None:
    for lane in range(LANES):
        for duration in bounds(lane):
            (found,) = Histogram([duration]).percentiles(1)
            assert found is not None
            assert abs(found - duration) <= duration / 10 + ROUNDED


def test_percentiles_of_nothing_are_none() -> None:
    assert Histogram().percentiles(0.5, 0.95) == [None, None]


@given(counts)
def test_encoded_histogram_is_decoded_as_it_was(found: dict[int, int]) -> None:
    assert Histogram.decode(Histogram.of_counts(found).encode()).counts == found


@given(many, many)
def test_sum_is_the_histogram_of_all(some: list[int], others: list[int]) -> None:
    both = Histogram(some)
    both.add(Histogram(others))
    assert both == Histogram(some + others)
    again = Histogram.decode(Histogram(some).encode())
    again.add_encoded(Histogram(others).encode())
    assert again == both


def test_usual_histograms_take_few_bytes() -> None:
    assert Histogram().encode() == b""
    minute = Histogram(range(2_000, 20_000, 100))
    assert len(minute.counts) <= len(minute.encode()) <= 20
    # One that waited for an hour among many that did not.
    assert len(Histogram([5_000] * 100 + [3_600_000_000]).encode()) == 80


@given(many)
def test_counts_by_power_are_those_of_the_bit_lengths(durations: list[int]) -> None:
    expected = Counter(max(one, 0).bit_length() for one in durations)
    assert dict(Histogram(durations).by_power()) == dict(expected)
