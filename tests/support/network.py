"""Machines of a test: network namespaces on a switch that drops the packets of those that are cut off."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET


def can_make() -> bool:
    """Return whether this process may make networks."""
    return os.geteuid() == 0 and all(map(shutil.which, ("unshare", "nsenter", "ip", "setpriv")))


def enter(pid: int) -> None:
    """Move the calling process, which has no other thread, into the network of another."""
    with Path(f"/proc/{pid}/ns/net").open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _NEW_NETWORK) != 0:
            raise OSError(ctypes.get_errno(), "setns")


class Network:
    """Machines with the addresses 10.77.0.1, .2 and so on; ``pids[n]`` lives in the network of the n-th."""

    def __init__(self, machines: int) -> None:
        self._holders: list[subprocess.Popen[str]] = []
        self._switch = self._hold()
        self._in(self._switch, "link", "add", "switch", "type", "bridge")
        self._in(self._switch, "link", "set", "switch", "up")
        self.pids = [self._plug(number) for number in range(1, machines + 1)]

    def _hold(self) -> int:
        holder = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "echo ready; exec sleep infinity"],  # noqa: S607 - as in the PATH
            stdout=subprocess.PIPE,
            text=True,
        )
        self._holders.append(holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        return holder.pid

    def _plug(self, number: int) -> int:
        pid = self._hold()
        port = f"port{number}"
        there = ("peer", "name", "eth0", "netns", str(pid))
        self._in(self._switch, "link", "add", port, "type", "veth", *there)
        self._in(self._switch, "link", "set", port, "master", "switch", "up")
        self._in(pid, "link", "set", "lo", "up")
        self._in(pid, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
        self._in(pid, "link", "set", "eth0", "up")
        return pid

    @staticmethod
    def _in(pid: int, *words: str) -> None:
        subprocess.run(["nsenter", "-t", str(pid), "-n", "ip", *words], check=True)  # noqa: S607 - as in the PATH

    @staticmethod
    def address(number: int) -> str:
        """Return the address of a machine, the first being 1."""
        return f"10.77.0.{number}"

    def cut(self, number: int) -> None:
        """Drop all packets from and to a machine; neither side is informed."""
        self._in(self._switch, "link", "set", f"port{number}", "nomaster")

    def heal(self, number: int) -> None:
        """Pass its packets on again."""
        self._in(self._switch, "link", "set", f"port{number}", "master", "switch")

    def close(self) -> None:
        """Remove all machines."""
        for holder in self._holders:
            holder.kill()
            holder.wait()
            assert holder.stdout is not None
            holder.stdout.close()


@contextmanager
def network(machines: int) -> Iterator[Network]:
    """Make machines for a block."""
    one = Network(machines)
    try:
        yield one
    finally:
        one.close()
