"""Tests the links from the page of a job to logs and traces."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from jobrunner import JobRunner
from jobrunner.core.errors import ConfigurationError
from tests.fastapi.dashboard.conftest import Board, tags_of

LINKS = {
    "Logs": "https://logs.example:8443/q?id={id}&task={task}&queue={queue}&n={attempt}#{{all}}",
    "By key": "/own/{key}",
    "Since": "http://[::1]/?from={started_at}&to={finished_at}",
    "Runbook": "https://wiki.example",
}


def links_of(board: Board, id: str) -> list[str]:
    """Return the addresses of the links that lead away from the dashboard."""
    tags = tags_of(board.get(f"jobs/{id}"))
    return [a["href"] or "" for tag, a in tags if tag == "a" and "noopener" in (a.get("rel") or "")]


def test_page_of_a_job_has_its_links_with_escaped_values(tmp_db: Path) -> None:
    board = Board(tmp_db, insecure=True, links=LINKS)
    key = "a/../&b=c#d ü{id}"
    with board.client:
        waiting, done = board.waiting(key=key), board.finished()
        logs = "https://logs.example:8443/q?id={}&task=greet&queue=default&n={}#{{all}}"
        assert links_of(board, waiting) == [
            logs.format(waiting, 0),
            f"/own/{quote(key, safe='')}",
            "https://wiki.example",
        ]
        first, since, _ = links_of(board, done)
        assert first == logs.format(done, 1)
        assert since.startswith("http://[::1]/?from=20")
        assert "%2B00%3A00&to=20" in since


def test_dashboard_without_links_has_none(board: Board) -> None:
    assert links_of(board, board.waiting()) == []


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("https://logs.example/?q={ids}", "no placeholder {ids}"),
        ("https://logs.example/?q={}", "no placeholder {}"),
        ("https://logs.example/?q={id.hex}", "no placeholder {id.hex}"),
        ("https://logs.example/?q={id!r}", "no placeholder {id!r}"),
        ("https://logs.example/?q={attempt:03}", "no placeholder {attempt:03}"),
        ("https://logs.example/\ud800{id}", "no address of http"),
        ("https://logs.example/?q={id", "expected '}'"),
        ("javascript:alert({id})", "no address of http"),
        ("ftp://logs.example/{id}", "no address of http"),
        ("//logs.example/{id}", "no address of http"),
        ("/\\logs.example/{id}", "no address of http"),
        ("https://{task}.logs.example/", "no address of http"),
        ("https://logs.example{id}", "no address of http"),
        ("https://user@logs.example/{id}", "no address of http"),
        ("https://logs.example/a b{id}", "no address of http"),
        ("{id}", "no address of http"),
        ("", "no address of http"),
    ],
)
def test_invalid_link_is_refused_with_the_line_to_write(
    tmp_db: Path, template: str, said: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        JobRunner(tmp_db).dashboard(insecure=True, links={"Logs": template})
    assert said in str(refused.value)
    assert 'links={"Logs": "https://logs.example/?q={id}"}' in str(refused.value)


@pytest.mark.parametrize(
    ("links", "said"),
    [
        ({"Logs": 7}, "no name with an address"),
        ({7: "/logs"}, "no name with an address"),
        ({"\ud800": "/logs"}, "no name with an address"),
        ([("Logs", "/logs")], "takes addresses by name"),
        ("/logs", "takes addresses by name"),
    ],
)
def test_links_of_other_types_are_refused(tmp_db: Path, links: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        JobRunner(tmp_db).dashboard(insecure=True, links=links)
