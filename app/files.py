"""Writes small files that survive a power cut; every call blocks, so call it in a thread."""

import fcntl
import mmap
import os
import secrets
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file with new content, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def append_line_once(path: Path, line: bytes, *, mark: bytes) -> bool:
    """Append a line, unless the file has one with the same mark.

    Args:
        line: without its line end.
        mark: the end of this line and of no other; at the end, so that half a line does not count.

    Returns:
        True if this call wrote the line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        # Without it, others see the first pages of a long line and take it for half a line; closing lets go of it.
        fcntl.flock(fd, fcntl.LOCK_EX)
        size = os.fstat(fd).st_size
        record = line + b"\n"
        if size:
            with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as content:
                if content.rfind(mark + b"\n") >= 0:
                    return False
                # A full disk or a power cut can leave half a line: ours must not become its second half.
                if content[-len(mark) :] == mark:
                    record = b"\n"
                elif content[-1:] != b"\n":
                    record = b"\n" + record
        if os.write(fd, record) != len(record):
            raise OSError(f"{path}: the disk took only a part of the line")
        os.fsync(fd)
    finally:
        os.close(fd)
    if not size:
        _sync_directory(path.parent)
    return True


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
