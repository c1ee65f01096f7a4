"""The parts of ``just soak`` that are tests of nothing else, for seconds; and the command itself."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from jobrunner import JobRunner
from tests.soak import pages, rates, requests
from tests.soak.__main__ import Part, parts, table
from tests.soak.budget import rounds
from tests.support.processes import CHECKOUT

pytestmark = pytest.mark.slow


def test_requests_of_any_kind_are_answered_as_the_page_says(
    tmp_path: Path, seed: int, seconds: float
) -> None:
    requests.ask_anything(tmp_path, seed=seed, seconds=seconds)


async def test_jobs_at_a_steady_rate_are_run_once_and_leave_log_and_memory_small(
    seed: int, seconds: float
) -> None:
    await rates.run(seed, seconds)


@pytest.mark.rest
async def test_every_page_is_answered_from_a_file_with_a_past(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pages, "PAIRS", 1)
    monkeypatch.setattr(pages, "DRAINED", 200)
    figures = await pages.run(2_000)
    assert len(figures) == 4 + 3 * len(pages.PAGES)


def test_every_page_of_the_dashboard_is_among_them() -> None:
    router = JobRunner("never-opened.db").dashboard(insecure=True)
    shown = [
        route.path
        for route in router.routes
        if isinstance(route, APIRoute)
        and "GET" in (route.methods or ())
        and "rest" not in route.path
    ]
    asked = {_any_id(path.partition("?")[0]) for path in pages.PAGES.values()}
    # The root without a slash leads to the overview.
    assert {_any_id(path) for path in shown} - {"", "/static/{}"} == asked


def _any_id(path: str) -> str:
    return re.sub(r"{\w+}", "{}", path)


def test_rounds_end_with_the_time_but_not_before_the_least() -> None:
    assert list(rounds(0, least=3)) == [0, 1, 2]
    assert len(list(rounds(0.05, least=0))) > 3


async def test_part_is_handed_what_its_function_names() -> None:
    async def run(rows: int, seconds: float) -> dict[str, object]:
        return {"rows": rows, "seconds": seconds}

    assert await Part("", run).play(seed=1, rows=2, seconds=3) == {"rows": 2, "seconds": 3}


def test_every_part_says_in_a_line_what_it_does() -> None:
    known = parts()
    assert {"chains", "exactly-once", "kill", "rates", "requests", "shop", "stories"} <= set(known)
    for name, part in known.items():
        assert part.does.endswith("."), name


def test_table_of_figures_names_each_part_once() -> None:
    assert table({"kill": {"kills": 1234, "lost": 0}, "rates": {"p99 ms": 2.5}}) == (
        "kill   kills   1,234\n       lost    0\nrates  p99 ms  2.5"
    )


@pytest.mark.rest
async def test_soak_says_its_seed_and_its_figures(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.soak", "--part", "requests", "--seconds", "0.1"),
        *("--seed", "7", "--json", str(found)),
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said, errors = await process.communicate()

    assert process.returncode == 0, errors.decode()
    assert errors.decode().startswith("seed 7\n")
    assert "answered 422" in said.decode()
    figures = json.loads(found.read_text())
    assert figures["seed"] == 7
    assert figures["parts"]["requests"]["requests"] >= requests.REQUESTS
