"""The benchmark's own arithmetic."""

import pytest

from tests.benchmarks.figures import Row, percentile, table


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.25, 1), (0.26, 2), (0.5, 2), (0.99, 4), (1.0, 4)]
)
def test_percentile_of_four_values_is_the_nearest_rank(share: float, expected: float) -> None:
    assert percentile([4, 2, 1, 3], share) == expected


def test_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="of nothing"):
        percentile([], 0.5)


def test_row_judged_by_ratio_compares_medians() -> None:
    row = Row(
        "a", "/s", [10, 30, 20], [100, 300, 100], judged="ratio", target=0.2, more_is_better=True
    )

    assert row.value == 0.2
    assert row.ok is True


def test_row_judged_by_itself_ignores_what_stands_beside() -> None:
    row = Row("a", "ms", [3, 5, 4], [1], target=3.9)

    assert row.value == 4
    assert row.ok is False


def test_row_without_target_is_not_judged() -> None:
    assert Row("a", "ms", [3]).ok is None


def test_table_of_rows_is_aligned() -> None:
    lines = table([Row("short", "ms", [3]), Row("a longer figure", "/s", [12_345])]).splitlines()

    assert len({len(line) for line in lines}) == 1
    assert "12,345/s" in lines[-1]
