"""Where a store lies is told at the start, with a warning if the place will not last."""

import logging
from pathlib import Path

import pytest

from jobrunner import JobRunner
from jobrunner.store.sqlite import files
from jobrunner.store.sqlite.files import container_layer


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        ("overlay", True),
        ("aufs", True),
        ("fuse.fuse-overlayfs", True),
        ("ext4", False),
        ("xfs", False),
        ("tmpfs", False),
        ("nfs4", False),
    ],
)
async def test_start_tells_the_absolute_path_and_warns_on_a_container_s_layer(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    layer: bool,
) -> None:
    told = tmp_path / "mountinfo"
    told.write_text(f"1 1 0:1 / / rw - {kind} none rw\n2 1 0:2 / /other rw - ext4 none rw\n")
    monkeypatch.setattr(files, "_MOUNTINFO", told)
    monkeypatch.chdir(tmp_path)
    if kind == "nfs4":
        assert container_layer(tmp_path / "jobs.db") is None
        return
    with caplog.at_level(logging.INFO, "jobrunner"):
        async with JobRunner("sqlite:///jobs.db").running():
            pass
    (line,) = [one for one in caplog.messages if one.startswith("jobs are stored in")]
    assert str(tmp_path / "jobs.db") in line
    warned = [one.message for one in caplog.records if one.levelno == logging.WARNING]
    assert [("mount a volume" in one) for one in warned] == ([True] if layer else [])


def test_volume_mounted_into_a_container_is_no_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "mountinfo"
    told.write_text(
        f"1 1 0:1 / / rw - overlay overlay rw\n2 1 8:1 / {tmp_path} rw - ext4 /dev/vda rw\n"
    )
    monkeypatch.setattr(files, "_MOUNTINFO", told)
    assert container_layer(tmp_path / "jobs.db") is None
    assert container_layer(Path("/jobs.db")) == "overlay"


def test_layer_of_a_system_that_does_not_tell_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MOUNTINFO", tmp_path / "no-such-file")
    assert container_layer(tmp_path / "jobs.db") is None
