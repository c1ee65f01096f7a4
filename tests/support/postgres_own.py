"""A PostgreSQL server of one test, which the test stops, kills, restarts and copies."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import CalledProcessError
from typing import Final

from tests.support.ports import free_port
from tests.support.postgres import binaries, launch, make_directory, run_program

# With fsync off a server that is killed recovers all the same: the kernel has what it has written.
_SETTINGS: Final = ("fsync=off", "shared_buffers=32MB", "wal_level=replica", "max_wal_senders=4")


class OwnServer:
    """A server in a directory.

    Args:
        directory: an existing directory, which the server's user may pass.
        address: where it listens.
        port: its port.
        settings: more settings, as ``name=value``.
        network: see ``postgres.launch``.
    """

    def __init__(
        self,
        directory: Path,
        *,
        address: str = "127.0.0.1",
        port: int | None = None,
        settings: Sequence[str] = (),
        network: int | None = None,
    ) -> None:
        self.programs = binaries()
        self.data = directory / "data"
        self._port = port or free_port()
        self._address = address
        self._network = network
        self._settings = (
            f"port={self._port}",
            f"listen_addresses={address}",
            *_SETTINGS,
            *settings,
        )
        self.place = f"{address}:{self._port}"
        self.url = f"postgresql://jobrunner@{self.place}/postgres"

    def make(self) -> None:
        """Make an empty database cluster."""
        make_directory(self.data)
        run_program(
            *(self.programs / "initdb", "-D", self.data, "-U", "jobrunner", "-A", "trust"),
            *("-E", "UTF8", "--no-sync", "--no-instructions"),
        )
        with (self.data / "pg_hba.conf").open("a") as file:
            file.write(
                "host all,replication all 10.77.0.0/24 trust\nhost replication all 127.0.0.1/32 trust\n"
            )

    def start(self) -> None:
        """Start it; return once it takes connections."""
        launch(self.programs, self.data, self._settings, self._network)

    def stop(self, how: str = "immediate") -> None:
        """Stop it: ``immediate`` as a crash does, or ``fast``."""
        self._control("stop", "-m", how)

    def promote(self) -> None:
        """Make a standby the primary."""
        self._control("promote")

    def _control(self, *words: str) -> None:
        run_program(self.programs / "pg_ctl", *words, "-s", "-w", "-D", self.data)

    def standby(
        self, directory: Path, *, address: str = "127.0.0.1", network: int | None = None
    ) -> "OwnServer":
        """Make and start a standby that follows it asynchronously."""
        quick = ("wal_retrieve_retry_interval=200ms",)
        other = OwnServer(directory, address=address, settings=quick, network=network)
        make_directory(other.data)
        run_program(
            *(self.programs / "pg_basebackup", "-d", self.url, "-D", other.data),
            *("-R", "-X", "stream", "-c", "fast"),
            network=network,
        )
        other.start()
        return other

    def remove(self) -> None:
        """Stop it if it runs, and remove its files."""
        with suppress(CalledProcessError):
            self.stop()
        shutil.rmtree(self.data.parent, ignore_errors=True)


@contextmanager
def own_server(
    directory: Path,
    *,
    address: str = "127.0.0.1",
    settings: Sequence[str] = (),
    network: int | None = None,
) -> Iterator[OwnServer]:
    """Start a server in a new directory for a block."""
    directory.mkdir(mode=0o755)
    one = OwnServer(directory, address=address, settings=settings, network=network)
    try:
        one.make()
        one.start()
        yield one
    finally:
        one.remove()
