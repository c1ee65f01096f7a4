"""Long runs by hand, with a table of figures: ``python -m tests.soak [--part NAME ...] [--seconds S] [--seed N]``.

A part is a module of this package with ``async def run(...)``, which is handed those of ``seed``, ``seconds`` and
``rows`` that it has as parameters, and returns its figures.  The suite runs the same code for seconds.
"""

import argparse
import asyncio
import importlib
import inspect
import json
import logging
import pkgutil
import random
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tests.soak
from tests.soak.budget import Figures

SECONDS = 300.0
ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """A module with a function ``run``."""

    does: str
    """The first line of the module's docstring."""
    run: Callable[..., Awaitable[Figures]]

    async def play(self, **words: float) -> Figures:
        """Run it with those of the words that it knows."""
        known = inspect.signature(self.run).parameters
        return await self.run(**{word: words[word] for word in words if word in known})


def parts() -> dict[str, Part]:
    """Return every part by its name."""
    found = {}
    for module in pkgutil.iter_modules(tests.soak.__path__):
        if module.name.startswith(("_", "test_")):
            continue
        loaded = importlib.import_module(f"tests.soak.{module.name}")
        if run := getattr(loaded, "run", None):
            first_line = (inspect.getdoc(loaded) or "").partition("\n")[0]
            found[module.name.replace("_", "-")] = Part(first_line, run)
    return found


def main() -> int:
    """Run the parts that were asked for; return 1 if one of them has failed."""
    known = parts()
    asked = _arguments(known)
    logging.basicConfig(level=logging.CRITICAL)
    print(f"seed {asked.seed}", file=sys.stderr)
    found: dict[str, Figures] = {}
    failed: list[str] = []
    for name in asked.part or known:
        print(f"{name} …", file=sys.stderr, flush=True)
        started = time.perf_counter()
        try:
            figures = asyncio.run(
                known[name].play(seed=asked.seed, seconds=asked.seconds, rows=asked.rows)
            )
        except KeyboardInterrupt:
            failed.append(name)
            break
        except Exception:  # noqa: BLE001 - the next part is run all the same, and the status tells
            traceback.print_exc()
            failed.append(name)
            figures = {"FAILED": f"just soak --part {name} --seed {asked.seed}"}
        found[name] = figures | {"seconds": round(time.perf_counter() - started, 1)}
    print(table(found))
    if asked.json:
        said = json.dumps({"seed": asked.seed, "parts": found}, indent=2, ensure_ascii=False)
        asked.json.write_text(said + "\n", encoding="utf-8")
    return int(bool(failed))


def table(found: dict[str, Figures]) -> str:
    """Return the figures of all parts as one aligned table."""
    lines = [
        (name if first == 0 else "", figure, f"{value:,}" if isinstance(value, int) else str(value))
        for name, figures in found.items()
        for first, (figure, value) in enumerate(figures.items())
    ]
    names, words = (max((len(line[column]) for line in lines), default=0) for column in (0, 1))
    return "\n".join(f"{a.ljust(names)}  {b.ljust(words)}  {c}" for a, b, c in lines)


def _arguments(known: dict[str, Part]) -> argparse.Namespace:
    width = max(map(len, known))
    parser = argparse.ArgumentParser(
        prog="just soak",
        description="Long runs of what the suite runs for seconds.",
        epilog="parts:\n"
        + "\n".join(f"  {name.ljust(width)}  {part.does}" for name, part in known.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add: Any = parser.add_argument
    add("--part", nargs="+", choices=known, metavar="NAME", help="some of the parts below (all)")
    add(
        "--seconds",
        type=float,
        default=SECONDS,
        metavar="S",
        help=f"for which a part goes on with its rounds ({SECONDS:.0f})",
    )
    add("--rows", type=int, default=ROWS, metavar="N", help=f"of large files ({ROWS:,})")
    add(
        "--seed",
        type=int,
        default=random.randrange(2**32),
        metavar="N",
        help="of all that is drawn; when a process dies stays a matter of its speed",
    )
    add("--json", type=Path, metavar="FILE", help="also write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
