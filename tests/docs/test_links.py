"""Links of the pages lead to files and headings that exist, and the site's navigation has every page."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.docs.tables import DOCS
from tests.support.processes import CHECKOUT

PAGES: Final = sorted(
    [
        *(
            page
            for page in CHECKOUT.glob("*.md")
            if page.name in {"README.md", "CHANGELOG.md", "CONTRIBUTING.md"}
        ),
        *DOCS.rglob("*.md"),
    ]
)

_CODE: Final = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,}).*?^(?P=indent)(?P=fence)[ \t]*$|^<!--.*?-->",
    re.MULTILINE | re.DOTALL,
)
_SPAN: Final = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
_LINK: Final = re.compile(
    r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE
)
_HEADING: Final = re.compile(r"^#{1,6} +(.*?)(?:\s*\{#([\w.-]+)\})?\s*#*$", re.MULTILINE)
_ELSEWHERE: Final = re.compile(r"[a-z]+:")


def links(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the targets of a page's links, with their lines."""
    text = _blanked(_SPAN, _blanked(_CODE, page.read_text(encoding="utf-8")))
    for link in _LINK.finditer(text):
        yield text.count("\n", 0, link.start()) + 1, link[1] or link[2]


def _blanked(pattern: re.Pattern[str], text: str) -> str:
    """Return a text in which only the line ends are left of what the pattern finds."""
    return pattern.sub(lambda found: re.sub(r"[^\n]", "", found[0]), text)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as the site and code hosts make them."""
    text = page.read_text(encoding="utf-8")
    found: set[str] = set()
    for heading, id in _HEADING.findall(_blanked(_CODE, text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = id or re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
        number = 0
        while (numbered := f"{slug}_{number}" if number else slug) in found:
            number += 1
        found.add(numbered)
    return found


def wrong_link(page: Path, target: str) -> str | None:
    """Return what is wrong with a link of a page, or None."""
    if _ELSEWHERE.match(target):
        return None
    path, _, anchor = target.partition("#")
    file = page if not path else page.parent / path
    if not file.exists():
        return "there is no such file"
    if page.is_relative_to(DOCS) and not file.resolve().is_relative_to(DOCS):
        return "the site holds the files of docs/ alone"
    # The site's build checks the anchors that mkdocstrings makes.
    if anchor and not anchor.startswith("jobrunner.") and anchor not in anchors(file):
        return "there is no such heading"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    wrong = [
        f"{page.relative_to(CHECKOUT)}:{line}: {target}: {why}"
        for line, target in links(page)
        if (why := wrong_link(page, target)) is not None
    ]
    assert wrong == []


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text(
        "# A `b` [c](https://example.org)\n\n## Twice\n\n## Twice\n\n"
        "[1](a.md#a-b-c) [2](#twice_1) [3](#twic) [4](b.md) `[5](c.md)`\n\n```md\n[6](d.md)\n```\n\n[7]: e.md\n"
    )
    found = [(line, target, wrong_link(page, target)) for line, target in links(page)]
    assert [(line, target) for line, target, why in found if why] == [
        (7, "#twic"),
        (7, "b.md"),
        (13, "e.md"),
    ]


def pages_of(nav: list[Any]) -> Iterator[str]:
    """Yield the pages of a navigation, in its order."""
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values():
                yield from pages_of(below if isinstance(below, list) else [below])


def test_navigation_has_every_page_once() -> None:
    site = tomllib.loads((CHECKOUT / "zensical.toml").read_text(encoding="utf-8"))
    shown = list(pages_of(site["project"]["nav"]))
    # The index of the decisions, which tables.py makes, has each of them.
    there = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    there -= {f"decisions/{page.name}" for page in (DOCS / "decisions").glob("[0-9]*.md")}

    assert len(shown) == len(set(shown))
    assert set(shown) - there == set(), "zensical.toml names pages that do not exist"
    assert there - set(shown) == set(), "pages to be added to the nav of zensical.toml"
