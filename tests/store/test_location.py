"""The log names the path of the store at the start, and warns of a temporary place."""

import logging
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from jobrunner import ConfigurationError, JobRunner
from jobrunner.store.sqlite.host import identity
from jobrunner.store.sqlite.host.identity import container_layer
from jobrunner.store.sqlite.host.location import path_of


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
    monkeypatch.setattr(identity, "_MOUNTINFO", told)
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
    monkeypatch.setattr(identity, "_MOUNTINFO", told)
    assert container_layer(tmp_path / "jobs.db") is None
    assert container_layer(Path("/jobs.db")) == "overlay"


def test_layer_of_a_system_that_does_not_tell_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_MOUNTINFO", tmp_path / "no-such-file")
    assert container_layer(tmp_path / "jobs.db") is None


# -- what a store is named by ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says", "line"),
    [
        ("sqlite:///shop.db?mode=ro", "takes no options", "sqlite:///shop.db"),
        ("sqlite:////var/shop.db?timeout=5&x=y", "takes no options", "sqlite:////var/shop.db"),
        ("sqlite+aiosqlite:///shop.db?timeout=5", "takes no options", "sqlite:///shop.db"),
        ("file:shop.db", "a URI of SQLite's own", "sqlite:///shop.db"),
        ("file:shop.db?mode=ro", "a URI of SQLite's own", "sqlite:///shop.db"),
        ("file:/var/shop.db", "a URI of SQLite's own", "sqlite:////var/shop.db"),
        ("file:///var/a%20b.db?cache=shared", "a URI of SQLite's own", "sqlite:////var/a b.db"),
        ("file://localhost/var/shop.db", "a URI of SQLite's own", "sqlite:////var/shop.db"),
        ("sqlite:///file:shop.db?mode=ro&uri=true", "a URI of SQLite's", "sqlite:///shop.db"),
        ("sqlite:shop.db", "lacks slashes", "sqlite:///shop.db"),
        ("sqlite:/var/shop.db", "lacks slashes", "sqlite:////var/shop.db"),
        ("sqlite+aiosqlite:shop.db?timeout=5", "lacks slashes", "sqlite:///shop.db"),
        ("sqlite://shop.db", "lacks a slash", "sqlite:///shop.db"),
        ("sqlite://var/shop.db", "lacks a slash", "sqlite:///var/shop.db"),
        (
            "sqlite+pysqlcipher://:secret@/shop.db",
            "'sqlite\\+pysqlcipher'",
            "sqlite:///jobs.db",
        ),
        ("redis://localhost", "'redis'", "sqlite:///jobs.db"),
    ],
)
def test_store_named_by_a_wrong_url_is_refused_with_a_line_that_works(
    url: str, says: str, line: str
) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        path_of(url)
    assert f": write {line}" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert path_of(line) == Path.cwd() / line.removeprefix("sqlite:///")


@pytest.mark.parametrize(
    "url",
    [
        "",
        ":memory:",
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite+pysqlite:///:memory:",
        "file::memory:",
        "file:",
        "file:jobs?mode=memory&cache=shared",
        "sqlite:///file::memory:?cache=shared&uri=true",
        "sqlite:///file:jobs?mode=memory&uri=true",
    ],
)
def test_store_in_memory_is_refused_with_what_to_write_also_in_a_test(url: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"write sqlite:///jobs\.db.*JobRunner\(tmp_path /"
    ):
        path_of(url)


@pytest.mark.parametrize("store", [None, 5, b"jobs.db", make_url("sqlite:///jobs.db")])
def test_store_that_is_neither_text_nor_path_is_refused(store: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r'neither a URL nor a path: write JobRunner\("sqlite'
    ):
        JobRunner(store)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("sqlite:///shop.db", "{cwd}/shop.db"),
        ("sqlite:///data/shop.db", "{cwd}/data/shop.db"),
        ("sqlite:////var/shop.db", "/var/shop.db"),
        ("sqlite+aiosqlite:////var/shop.db", "/var/shop.db"),
        ("sqlite+pysqlite:///shop.db", "{cwd}/shop.db"),
        ("./a:b.db", "{cwd}/a:b.db"),
        ("data/what?.db", "{cwd}/data/what?.db"),
        ("sqlite3.db", "{cwd}/sqlite3.db"),
        ("shop.db", "{cwd}/shop.db"),
        ("/var/shop.db", "/var/shop.db"),
    ],
)
def test_store_named_by_url_or_path_lies_where_it_says(name: str, path: str) -> None:
    assert str(path_of(name)) == path.format(cwd=Path.cwd())
