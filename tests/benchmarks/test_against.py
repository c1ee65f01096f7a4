"""``just bench --against REV``: real runs, and what is left behind after them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import against
from tests.benchmarks.bench import Bench
from tests.benchmarks.processes import CHECKOUT

QUICK = ("--only", "one-by-one", "--scale", "0.005", "--pairs", "7")
PATIENCE_S = 240

pytestmark = [
    pytest.mark.slow,
    pytest.mark.rest,
    pytest.mark.timeout(300),  # 16 processes after each other
    pytest.mark.skipif(
        not (CHECKOUT / ".git").exists(), reason="without git there is no revision to compare with"
    ),
]


def _worktrees() -> str:
    return subprocess.run(
        ["git", "worktree", "list", "--porcelain"],  # noqa: S607
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


async def _bench(place: Path, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks", *words),
        cwd=CHECKOUT,
        env=os.environ | {"TMPDIR": str(place)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


async def test_against_head_compares_in_pairs_and_removes_its_worktree(tmp_path: Path) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    found = tmp_path / "found.json"

    process = await _bench(place, "--against", "HEAD", *QUICK, "--json", str(found))
    said, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)

    assert process.returncode == 0, errors.decode()
    assert "above 1 this tree is faster" in said.decode()
    (compared,) = json.loads(found.read_text())["comparisons"]
    assert compared["program"] == "one-by-one"
    for measure in ("cpu", "wall"):
        samples = compared[measure]["before"] + compared[measure]["after"]
        assert len(samples) == 14
        assert min(samples) > 0
        low, high = compared[measure]["interval"]
        assert low <= compared[measure]["ratio"] <= high
    assert list(place.iterdir()) == []
    assert str(place) not in _worktrees()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_against_that_is_interrupted_removes_its_worktree(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = await _bench(tmp_path, "--against", "HEAD", *QUICK)
    assert process.stderr is not None
    await asyncio.wait_for(process.stderr.readuntil(b"one-by-one ."), PATIENCE_S)
    assert str(tmp_path) in _worktrees()

    os.killpg(process.pid, number)  # the whole group, as a terminal does
    await asyncio.wait_for(process.communicate(), PATIENCE_S)

    assert process.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in _worktrees()


async def test_against_a_revision_that_is_none_says_so(tmp_path: Path) -> None:
    process = await _bench(tmp_path, "--against", "no-such-revision")
    _, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)

    assert process.returncode == 1
    assert errors.decode().startswith(f"no revision 'no-such-revision' of {CHECKOUT}: ")
    assert list(tmp_path.iterdir()) == []


def test_program_that_the_older_revision_cannot_run_is_told_with_its_error(tmp_path: Path) -> None:
    package = tmp_path / "jobrunner"
    package.mkdir()
    (package / "__init__.py").write_text("class JobRunner: ...\n")

    (compared,) = against.compare(Bench(7), tmp_path, ["one-by-one"], scale=0.001)

    assert compared.failed_before.startswith("ImportError: cannot import name 'Task'")


def test_tree_whose_package_is_not_the_one_imported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(against.CannotCompare, match=r"jobrunner was imported from .* in place of"):
        against.run(Bench(7), tmp_path, "one-by-one", 0.001)
