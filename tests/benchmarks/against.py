"""This tree and an older revision, in turns: ``just bench --against REV``."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tests.benchmarks.bench import Bench
from tests.benchmarks.pairs import Comparison, Cost
from tests.benchmarks.processes import CHECKOUT
from tests.benchmarks.programs import PROGRAMS

LEAST_PAIRS = 7
PAIRS = 9
"""Their interval leaves out the smallest and the largest ratio; that of seven or eight is the whole range."""

SCRIPT = Path(__file__).with_name("programs.py")

HOW = f"""\
--against REV: the same programs, which use the public names of jobrunner alone, run on the package of this tree, as
it lies there, and on that of a worktree of REV, with the dependencies of this Python. Each run is a process and a
file of its own; a first pair warms up and does not count; then {LEAST_PAIRS} pairs or more, in the order A B, B A, A B,
so that what drifts on the machine hits both. Shown are the medians of processor time (user and system, all threads)
and of wall time, and the median of the ratios before / after, pair by pair: ABOVE 1 THIS TREE IS FASTER. In brackets
stands the interval between order statistics of these ratios that holds their true median with 95 % confidence
(binomial, no assumption about the distribution): the whole range of 7 or 8 pairs, without the smallest and the largest
of 9 to 11, and so on. "faster" or "SLOWER" is said if the interval leaves out 1. Programs:
"""


class CannotCompare(Exception):
    """The revision, or this tree, cannot be measured; the message says why."""


class CannotRun(Exception):
    """A program has ended with an error; the message is its last line."""


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """Check a revision out into a temporary directory, and remove it at the end, also at Ctrl-C, SIGTERM or SIGHUP.

    Raises:
        CannotCompare: this is no git repository, or there is no such revision.
    """
    try:
        commit = _git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise CannotCompare(f"no revision {revision!r} of {CHECKOUT}: {said.strip()}") from error
    with _ending_at_signals():
        directory = Path(tempfile.mkdtemp(prefix="jobrunner-against-"))
        tree = directory / "tree"
        try:
            _git("worktree", "add", "--detach", str(tree), commit)
            yield tree
        finally:
            with _undisturbed():
                # One that was interrupted while git made it is none yet: git then says so, and it is removed below.
                _git("worktree", "remove", "--force", str(tree), check=False)
                shutil.rmtree(directory, ignore_errors=True)


def names(revision: str) -> tuple[str, str]:
    """Return what the two sides are called: the revision's commit, and this tree's, with a + if it was changed."""
    form = ("log", "-1", "--format=%h %s")
    changed = "+" if _git("status", "--porcelain", "--", "jobrunner") else ""
    short, _, subject = _git(*form).partition(" ")
    return _git(*form, revision), f"{short}{changed} {subject}"


def compare(
    bench: Bench, before: Path, programs: Iterable[str], *, scale: float
) -> Iterator[Comparison]:
    """Run each program in turns on the package of ``before`` and on this tree's, and say how far it is on stderr.

    Raises:
        CannotCompare: this tree cannot run a program.
    """
    for name in programs:
        started = time.perf_counter()
        print(f"{name} ", end="", file=sys.stderr, flush=True)
        found = _compare_one(bench, before, name, scale)
        print(f" {time.perf_counter() - started:.0f} s", file=sys.stderr)
        yield found


def _compare_one(bench: Bench, before: Path, name: str, scale: float) -> Comparison:
    does = PROGRAMS[name][0]
    try:
        run(bench, CHECKOUT, name, scale)
    except CannotRun as error:
        raise CannotCompare(f"{name}: this tree cannot run it: {error}") from error
    try:
        run(bench, before, name, scale)
    except CannotRun as error:
        return Comparison(name, does, failed_before=str(error))
    costs: dict[Path, list[Cost]] = {before: [], CHECKOUT: []}
    for pair in range(bench.runs):
        for tree in (before, CHECKOUT) if pair % 2 == 0 else (CHECKOUT, before):
            try:
                costs[tree].append(run(bench, tree, name, scale))
            except CannotRun as error:
                raise CannotCompare(
                    f"{name}: it ran in {tree}, and then did not: {error}"
                ) from error
        print(".", end="", file=sys.stderr, flush=True)
    return Comparison(name, does, costs[before], costs[CHECKOUT])


def run(bench: Bench, tree: Path, name: str, scale: float) -> Cost:
    """Run a program once, in a new process and directory, with the package of a tree.

    Raises:
        CannotRun: The program ended with an error.
    """
    with bench.place() as place:
        done = subprocess.run(
            # -P: the program's own directory is no place to import from, or this tree's `tests` would be.
            [sys.executable, "-P", str(SCRIPT), name, str(place / "jobs.sqlite"), str(scale)],
            cwd=place,
            env=os.environ | {"PYTHONPATH": str(tree)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise CannotRun(lines[-1].strip() if lines else f"it ended with {done.returncode}")
    said = json.loads(done.stdout)
    if not Path(said["package"]).is_relative_to(tree):
        raise CannotCompare(f"jobrunner was imported from {said['package']} in place of {tree}")
    return Cost(said["cpu"], said["wall"])


def _git(*words: str, check: bool = True) -> str:
    done = subprocess.run(
        ["git", "-c", "core.hooksPath=/dev/null", *words],  # noqa: S607 - the one on the PATH
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=check,
    )
    return done.stdout.strip()


@contextmanager
def _ending_at_signals() -> Iterator[None]:
    """Unwind at SIGTERM and SIGHUP as Python does at SIGINT, so that what stands in ``finally`` is done."""

    def unwind(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore the signals that end a program, also in the processes started meanwhile: a second Ctrl-C."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
