"""The pictures of the pages are small, and the README fits on few screens."""

import struct

import pytest

from tests.docs.tables import DOCS
from tests.support.processes import CHECKOUT

MOST_BYTES = 120_000
MOST_LINES = 130
PICTURES = sorted((DOCS / "assets").glob("*.png"))


@pytest.mark.parametrize("name", [picture.name for picture in PICTURES])
def test_picture_is_small_has_a_palette_and_stands_on_a_page(name: str) -> None:
    data = (DOCS / "assets" / name).read_bytes()
    depth, kind = struct.unpack_from(">BB", data, 24)
    assert (depth, kind) == (8, 3)
    assert len(data) < MOST_BYTES
    pages = [CHECKOUT / "README.md", *DOCS.rglob("*.md")]
    assert any(f"assets/{name})" in page.read_text(encoding="utf-8") for page in pages)


def test_readme_has_at_most_130_lines() -> None:
    lines = (CHECKOUT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MOST_LINES
