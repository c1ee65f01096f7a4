"""The command line: ``python -m tests.benchmarks [--json FILE] [--only NAME ...] [--runs N]``."""

import argparse
import json
import logging
import sys
import time
from pathlib import Path

from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, table
from tests.benchmarks.registry import MEASUREMENTS


def main() -> int:
    """Run the measurements that were asked for, print the table; return 1 if a target was missed."""
    asked = _arguments()
    logging.basicConfig(level=logging.ERROR)
    bench = Bench(asked.runs)
    machine = bench.machine()
    rows: list[Row] = []
    for name, measure in MEASUREMENTS.items():
        if asked.only and name not in asked.only:
            continue
        started = time.perf_counter()
        print(f"{name} …", end="", file=sys.stderr, flush=True)
        rows += measure(bench)
        print(f" {time.perf_counter() - started:.0f} s", file=sys.stderr)
    width = max(map(len, machine))
    print("\n".join(f"{name.ljust(width)}  {value}" for name, value in machine.items()))
    print()
    print(table(rows))
    if asked.json:
        found = {"machine": machine, "rows": [row.as_json() for row in rows]}
        asked.json.write_text(
            json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return int(any(row.ok is False for row in rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="just bench", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all samples there")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=MEASUREMENTS,
        metavar="NAME",
        help=f"some of: {', '.join(MEASUREMENTS)}",
    )
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs per figure (3)")
    asked = parser.parse_args()
    if asked.runs < 1:
        parser.error("--runs must be 1 or more")
    return asked


if __name__ == "__main__":
    sys.exit(main())
