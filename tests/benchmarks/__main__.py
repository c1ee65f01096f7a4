"""The command line: ``python -m tests.benchmarks [--against REV] [--json FILE] [--only NAME ...]``."""

import argparse
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import against, figures, pairs
from tests.benchmarks.bench import Bench
from tests.benchmarks.programs import PROGRAMS
from tests.benchmarks.registry import MEASUREMENTS

RUNS = 3


def main() -> int:
    """Run what was asked for and print the table; return 1 if a target was missed or nothing could be compared."""
    asked = _arguments()
    logging.basicConfig(level=logging.ERROR)
    try:
        return _against(asked) if asked.against else _measure(asked)
    except against.CannotCompare as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _measure(asked: argparse.Namespace) -> int:
    bench = Bench(asked.runs)
    machine = bench.machine()
    rows: list[figures.Row] = []
    for name, measure in MEASUREMENTS.items():
        if asked.only and name not in asked.only:
            continue
        started = time.perf_counter()
        print(f"{name} …", end="", file=sys.stderr, flush=True)
        rows += measure(bench)
        print(f" {time.perf_counter() - started:.0f} s", file=sys.stderr)
    _show(asked, machine, figures.table(rows), {"rows": [row.as_json() for row in rows]})
    return int(any(row.ok is False for row in rows))


def _against(asked: argparse.Namespace) -> int:
    bench = Bench(asked.pairs)
    programs = [name for name in PROGRAMS if not asked.only or name in asked.only]
    with against.worktree(asked.against) as tree:
        before, after = against.names(asked.against)
        facts = {
            "before": before,
            "after": f"{after} (this tree; + means: changed since)",
            "ratio": f"before / after over {asked.pairs} pairs: above 1 this tree is faster",
        }
        found = list(against.compare(bench, tree, programs, scale=asked.scale))
    machine = {name: fact for name, fact in bench.machine().items() if name != "runs"}
    comparisons = [each.as_json() for each in found]
    _show(asked, machine | facts, pairs.table(found), {"comparisons": comparisons})
    return 0


def _show(
    asked: argparse.Namespace, facts: dict[str, str], table: str, found: dict[str, Any]
) -> None:
    width = max(map(len, facts))
    print("\n".join(f"{name.ljust(width)}  {value}" for name, value in facts.items()))
    print()
    print(table)
    if asked.json:
        asked.json.write_text(
            json.dumps({"machine": facts} | found, indent=2, ensure_ascii=False) + "\n",
            encoding="utf-8",
        )


def _arguments() -> argparse.Namespace:
    width = max(map(len, PROGRAMS))
    programs = "\n".join(
        f"  {name.ljust(width)}  {does}" for name, (does, _, _) in PROGRAMS.items()
    )
    parser = argparse.ArgumentParser(
        prog="just bench",
        description="How fast jobrunner is: beside raw sqlite3, or beside an older revision of itself.",
        epilog=against.HOW + programs,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--against", metavar="REV", help="compare with a revision, in turns: see below"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all samples there")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help=f"some of: {', '.join(MEASUREMENTS)}; with --against some of the programs below",
    )
    parser.add_argument("--runs", type=int, metavar="N", help=f"runs per figure ({RUNS})")
    parser.add_argument(
        "--pairs",
        type=int,
        metavar="N",
        help=f"with --against: pairs per program, {against.LEAST_PAIRS} at least ({against.PAIRS})",
    )
    parser.add_argument(
        "--scale",
        type=float,
        metavar="X",
        help="with --against: X times the jobs, such as 0.1 for a quick look (1)",
    )
    asked = parser.parse_args()
    _check(parser, asked)
    return asked


def _check(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> None:
    """Refuse what does not fit together; fill in what was left out."""
    if asked.against and asked.runs is not None:
        parser.error("--runs goes without --against; with it write --pairs")
    if not asked.against and (asked.pairs is not None or asked.scale is not None):
        parser.error("--pairs and --scale go with --against REV")
    known = PROGRAMS if asked.against else MEASUREMENTS
    if unknown := [name for name in asked.only or () if name not in known]:
        parser.error(f"no {', '.join(unknown)}; choose from {', '.join(known)}")
    asked.runs = RUNS if asked.runs is None else asked.runs
    asked.pairs = against.PAIRS if asked.pairs is None else asked.pairs
    asked.scale = 1.0 if asked.scale is None else asked.scale
    if asked.runs < 1:
        parser.error("--runs must be 1 or more")
    if asked.pairs < against.LEAST_PAIRS:
        parser.error(f"--pairs must be {against.LEAST_PAIRS} or more")
    if not asked.scale > 0:
        parser.error("--scale must be above 0")


if __name__ == "__main__":
    sys.exit(main())
