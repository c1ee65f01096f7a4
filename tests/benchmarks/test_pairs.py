"""The arithmetic of comparisons."""

import random
from collections.abc import Sequence

import pytest

from tests.benchmarks.pairs import Comparison, Cost, Ratio, median_interval, table


@pytest.mark.parametrize(
    ("count", "left_out", "coverage"),
    [
        (6, 0, 1 - 2 / 64),
        (7, 0, 1 - 2 / 128),
        (8, 0, 1 - 2 / 256),
        (9, 1, 1 - 2 * (1 + 9) / 512),
        (11, 1, 1 - 2 * (1 + 11) / 2048),
        (12, 2, 1 - 2 * (1 + 12 + 66) / 4096),
    ],
)
def test_interval_of_a_median_leaves_out_what_the_binomial_allows(
    count: int, left_out: int, coverage: float
) -> None:
    values = [float(number) for number in range(count)]
    random.Random(count).shuffle(values)

    interval = median_interval(values)

    assert (interval.low, interval.high) == (left_out, count - 1 - left_out)
    assert interval.coverage == pytest.approx(coverage)


def test_interval_of_five_values_is_refused() -> None:
    with pytest.raises(ValueError, match="5 values are too few for an interval of 95%"):
        median_interval([1, 2, 3, 4, 5])


@pytest.mark.parametrize("count", [7, 9, 15])
def test_interval_holds_the_true_median_as_often_as_it_says(count: int) -> None:
    dice = random.Random(8)
    held = 0
    for _ in range(2_000):
        # Skewed, as times are: its median is 1, its mean is not.
        low, high, _ = median_interval([dice.lognormvariate(0, 1) for _ in range(count)])
        held += low <= 1 <= high

    assert 0.95 <= held / 2_000 < 0.995


def _costs(values: Sequence[float]) -> list[Cost]:
    return [Cost(cpu=value, wall=2.0) for value in values]


def test_ratio_above_one_says_that_this_tree_is_faster() -> None:
    before, after = _costs([2.0, 2.2, 1.9, 2.1, 2.0, 2.3, 2.0]), _costs([1.0] * 7)

    compared = Comparison("drain", "drain it", before, after)

    assert compared.ratio("cpu").median == 2
    assert compared.ratio("cpu").interval[:2] == (1.9, 2.3)
    assert compared.ratio("cpu").verdict == "faster"
    assert compared.ratio("wall").verdict == "–"
    assert Comparison("drain", "drain it", after, before).ratio("cpu").verdict == "SLOWER"


def test_ratio_is_of_pairs_so_that_a_slow_spell_of_the_machine_cancels() -> None:
    spells = [1, 1, 5, 9, 5, 1, 1, 2, 1]

    ratio = Ratio.of([1.1 * spell for spell in spells], [1.0 * spell for spell in spells])

    assert ratio.median == pytest.approx(1.1)
    assert list(ratio.interval[:2]) == pytest.approx([1.1, 1.1])


def test_table_says_what_the_older_revision_cannot_run() -> None:
    shown = table(
        [
            Comparison("drain", "drain it", _costs([2.0] * 7), _costs([1.0] * 7)),
            Comparison("new", "what is new", failed_before="AttributeError: no new"),
        ]
    ).splitlines()

    assert "2.000 → 1.000" in shown[2]
    assert "2.000× [2.000, 2.000]  faster" in shown[2]
    assert shown[-1] == "new: the older revision cannot run it: AttributeError: no new"


def test_json_of_a_comparison_keeps_all_samples() -> None:
    compared = Comparison("drain", "drain it", _costs([2.0] * 7), _costs([1.0] * 7)).as_json()

    assert compared["cpu"] == {
        "ratio": 2,
        "interval": [2, 2],
        "coverage": 1 - 2 / 128,
        "before": [2.0] * 7,
        "after": [1.0] * 7,
    }
