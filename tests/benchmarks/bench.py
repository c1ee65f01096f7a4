"""Describes one run of the benchmark: its repetitions, directory and machine."""

import os
import platform
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

IN_MEMORY = frozenset({"tmpfs", "ramfs"})


class Bench:
    """The number of runs and new paths for files, passed to every measurement."""

    def __init__(self, runs: int) -> None:
        self.runs = runs
        self.root = Path(tempfile.gettempdir())
        if file_system(self.root) in IN_MEMORY:
            self.root = Path.cwd()  # a commit to memory costs nothing, and would say nothing

    @contextmanager
    def place(self) -> Iterator[Path]:
        """Make an empty directory and remove it, with all that is in it, at the end."""
        path = Path(tempfile.mkdtemp(prefix="jobrunner-bench-", dir=self.root))
        try:
            yield path
        finally:
            shutil.rmtree(path)

    def machine(self) -> dict[str, str]:
        """Return what the figures depend on."""
        names = ("fastapi-jobrunner", "aiosqlite", "fastapi", "pydantic", "uvicorn")
        return {
            "cpu": f"{_cpu()}, {_cores()} cores",
            "system": f"{platform.system()} {platform.release()}",
            "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
            "sqlite": sqlite3.sqlite_version,
            "versions": ", ".join(f"{name} {_version(name)}" for name in names),
            "files": f"in {self.root} on {file_system(self.root)}",
            "runs": f"{self.runs}, medians shown; durability full, raw sqlite3 with WAL and synchronous=FULL",
        }


def file_system(path: Path) -> str:
    """Return the type of the file system of a directory, if the kernel reports it."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "an unknown file system"
    mounts = [line.split()[1:3] for line in lines]
    resolved = path.resolve()
    under = [(mount, kind) for mount, kind in mounts if resolved.is_relative_to(mount)]
    return max(under, key=lambda pair: len(pair[0]), default=("", "an unknown file system"))[1]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "as checked out"


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()
