"""A ledger outside the database: what processes say that they did, in one order for all."""

import os


class Ledger:
    """A file outside the database where processes write what has happened, in one order for all."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, what: str, id: str, *, sync: bool = False) -> None:
        """Add a line; with ``sync`` it is on the disk when this returns."""
        os.write(self._file, f"{what} {id}\n".encode())
        if sync:
            os.fdatasync(self._file)
