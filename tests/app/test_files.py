"""Files that are there whole, and lines that are there once."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.audit import AuditEntry, AuditLog
from app.files import write_whole

ENTRY = AuditEntry(user_id=42, action="DELETE", resource="invoice:7")


def entries(path: Path) -> list[dict[str, object]]:
    """Read a JSON-lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_append_writes_one_json_line_with_what_was_done(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "new" / "audit.jsonl")

    assert log.append(ENTRY, job_id="job-1")

    assert entries(log.path) == [
        {
            "user_id": 42,
            "action": "DELETE",
            "resource": "invoice:7",
            "at": ENTRY.at.isoformat().replace("+00:00", "Z"),
            "job_id": "job-1",
        }
    ]


def test_append_by_the_same_job_again_writes_nothing(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    log.append(ENTRY, job_id="job-1")
    log.append(ENTRY, job_id="job-11")

    assert not log.append(ENTRY, job_id="job-1")

    assert [entry["job_id"] for entry in entries(log.path)] == ["job-1", "job-11"]


def test_append_after_half_a_line_of_the_same_job_writes_a_whole_one(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    log.append(ENTRY, job_id="job-1")
    whole = log.path.read_bytes()
    for cut in range(1, len(whole) - 1):
        log.path.write_bytes(whole[:cut])

        assert log.append(ENTRY, job_id="job-1")

        half, *rest = log.path.read_bytes().splitlines(keepends=True)
        assert rest == [whole]
        assert half == whole[:cut] + b"\n"


def test_append_after_a_line_that_lacks_only_its_end_completes_it(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    log.append(ENTRY, job_id="job-1")
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-1])

    log.append(ENTRY, job_id="job-1")

    assert log.path.read_bytes() == whole


@pytest.mark.parametrize("size", [10, 60_000], ids=["short", "many_pages"])
def test_append_from_many_threads_keeps_every_line_whole(tmp_path: Path, size: int) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    entry = ENTRY.model_copy(update={"resource": "x" * size})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: log.append(entry, job_id=f"job-{number}"), range(100)))

    assert sorted(str(entry["job_id"]) for entry in entries(log.path)) == sorted(
        f"job-{number}" for number in range(100)
    )


def test_write_whole_replaces_what_was_there(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "mail", b"one")
    write_whole(tmp_path / "a" / "mail", b"two")

    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == {"mail": b"two"}


def test_write_whole_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()

    with pytest.raises(OSError, match="mail"):
        write_whole(tmp_path / "mail", b"content")

    assert [path.name for path in tmp_path.iterdir()] == ["mail"]
