"""Both parts of a divided run have every test between them."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import division


class Item:
    """A test, as far as the division asks for it."""

    def __init__(self, nodeid: str, *fixtures: str, rest: bool = False) -> None:
        self.nodeid = nodeid
        self.fixturenames = fixtures
        self._rest = rest

    def get_closest_marker(self, name: str) -> pytest.MarkDecorator | None:
        return pytest.mark.rest if self._rest and name == "rest" else None


ITEMS = [
    *(Item(f"a.py::test_a[{number}]") for number in range(10)),
    *(Item(f"a.py::test_b[{number}]") for number in range(3)),
    Item("a.py::test_c"),
    *(Item(f"a.py::test_d[{number}]", rest=True) for number in range(2)),
    Item("a.py::test_e", "seconds"),
]


def part(cases: int, *, rest: bool) -> list[str]:
    """Return the names of the tests of a part; the others must have been deselected."""
    left_out: list[Item] = []

    def deselected(items: list[Item]) -> None:
        left_out.extend(items)

    config: Any = SimpleNamespace(
        option=SimpleNamespace(cases=cases, rest=rest),
        hook=SimpleNamespace(pytest_deselected=deselected),
    )
    items: list[Any] = list(ITEMS)
    division.divide(config, items)
    assert {*items, *left_out} == {*ITEMS}
    assert len(items) + len(left_out) == len(ITEMS)
    return [item.nodeid.removeprefix("a.py::test_") for item in items]


@pytest.mark.parametrize("cases", [1, 2, 3, 4, 20])
def test_each_test_is_in_one_part_and_in_both_only_if_it_has_rounds(cases: int) -> None:
    first, rest = part(cases, rest=False), part(cases, rest=True)

    assert {*first, *rest} == {item.nodeid.removeprefix("a.py::test_") for item in ITEMS}
    assert {*first} & {*rest} == {"e"}
    most = Counter(name.partition("[")[0] for name in first)
    assert max(most.values()) <= cases
    assert "d" not in most


def test_first_part_has_cases_from_all_over_a_test() -> None:
    assert part(3, rest=False) == ["a[0]", "a[3]", "a[6]", "b[0]", "b[1]", "b[2]", "c", "e"]
    assert part(3, rest=True)[-3:] == ["d[0]", "d[1]", "e"]
