"""Access rights of a store's files and folder.

Only the owner can read the files, and a folder that others can write to is refused.
"""

import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobrunner import JobRunner
from jobrunner.core.errors import StoreFull, StoreUnavailable
from jobrunner.store.sqlite import SqliteStore
from jobrunner.store.sqlite.host.location import folder_of
from tests.cli.commands import jobrunner
from tests.support import scripts
from tests.support.children import echo, tasks
from tests.support.processes import CHECKOUT

STRANGER = 65533


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have the process make files for everybody, as most do, or for nobody else."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(path: Path) -> dict[str, int]:
    return {
        one.name.removeprefix(path.name): stat.S_IMODE(one.stat().st_mode)
        for one in path.parent.iterdir()
    }


async def opened_and_closed(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()


async def test_database_and_log_are_made_for_their_owner_alone(tmp_db: Path, umask: None) -> None:
    jobs = JobRunner(tmp_db)
    jobs.include(tasks)
    async with jobs.running():
        await (await jobs.enqueue(echo, "a")).result(timeout=15)
        assert modes(tmp_db) == {"": 0o600, "-wal": 0o600, "-shm": 0o600, "-jobrunner": 0o700}


async def test_existing_database_keeps_its_mode_and_gives_it_to_its_log(tmp_db: Path) -> None:
    tmp_db.touch()
    tmp_db.chmod(0o640)
    store = SqliteStore(tmp_db)
    await store.open()
    assert modes(tmp_db) == {"": 0o640, "-wal": 0o640, "-shm": 0o640, "-jobrunner": 0o700}
    await store.close()


async def test_database_is_made_where_the_system_keeps_mknod_to_root(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted", str(tmp_db))

    monkeypatch.setattr(os, "mknod", refuse)
    for _ in range(2):
        await opened_and_closed(tmp_db)
        assert stat.S_IMODE(tmp_db.stat().st_mode) == 0o600


async def test_database_that_cannot_be_made_is_told(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, kind in ((28, StoreFull), (13, StoreUnavailable)):

        def refuse(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number), str(tmp_db))

        monkeypatch.setattr(os, "mknod", refuse)
        with pytest.raises(kind, match=f"jobs.db: {os.strerror(number)}"):
            await SqliteStore(tmp_db).open()
    assert not tmp_db.exists()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722, 0o720, 0o1777], ids=oct)
async def test_folder_that_others_can_write_is_refused_with_the_line_to_write(
    tmp_db: Path, mode: int
) -> None:
    await opened_and_closed(tmp_db)
    folder = folder_of(tmp_db)
    folder.chmod(mode)
    with pytest.raises(StoreUnavailable, match=rf"write `chmod 700 {folder}`"):
        await SqliteStore(tmp_db).open()
    answer = await jobrunner("doctor", "--store", tmp_db)
    assert (answer.code, f"chmod 700 {folder}" in answer.out) == (8, True)
    assert f"chmod 700 {folder}" in (await jobrunner("status", "--store", tmp_db)).err
    folder.chmod(0o755)
    await opened_and_closed(tmp_db)


@pytest.mark.parametrize("trap", ["a link to a folder", "a link to nothing", "a file"])
async def test_folder_that_is_no_folder_is_refused_and_followed_nowhere(
    tmp_db: Path, tmp_path: Path, trap: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    folder = folder_of(tmp_db)
    match trap:
        case "a link to a folder":
            elsewhere.mkdir(mode=0o700)
            folder.symlink_to(elsewhere)
        case "a link to nothing":
            folder.symlink_to(elsewhere)
        case _:
            folder.touch()
    with pytest.raises(StoreUnavailable, match=r"not a folder but a .*: remove it"):
        await SqliteStore(tmp_db).open()
    assert not tmp_db.exists()
    assert not elsewhere.exists() or list(elsewhere.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_folder_of_another_user_is_refused_unless_the_database_is_theirs() -> None:
    """Root reads the store of a service with `jobrunner status`."""
    directory = Path(tempfile.mkdtemp(prefix="jobrunner-test-"))
    path = directory / "jobs.db"
    try:
        await opened_and_closed(path)
        os.chown(folder_of(path), STRANGER, STRANGER)
        with pytest.raises(StoreUnavailable, match=rf"belongs to user {STRANGER}.*`chown -R 0 "):
            await SqliteStore(path).open()
        os.chown(path, STRANGER, STRANGER)
        await opened_and_closed(path)
        # And a user whose database it is finds a folder that is root's.
        os.chown(folder_of(path), 0, 0)
        folder_of(path).chmod(0o755)
        directory.chmod(0o755)
        script = """
import os, sys
from jobrunner.store.sqlite.host.location import check_folder, folder_of
from pathlib import Path
os.setgroups([]); os.setgid(65533); os.setuid(65533)
path = Path(sys.argv[1])
try:
    check_folder(folder_of(path), path)
except Exception as error:
    print(error)
"""
        assert "belongs to user 0" in scripts.run(script, path)
    finally:
        shutil.rmtree(directory)


def test_unit_of_the_page_makes_files_for_its_user_alone() -> None:
    page = (CHECKOUT / "docs" / "deploy.md").read_text(encoding="utf-8")
    services = [
        block for block in page.split("```ini\n") if "[Service]" in block.partition("```")[0]
    ]
    assert len(services) == 2
    assert all("\nUMask=0077\n" in block.partition("```")[0] for block in services)


def test_folder_check_asks_the_system_for_nothing_that_opens_the_database(tmp_db: Path) -> None:
    script = """
import os, sys
from pathlib import Path
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
from jobrunner.store.sqlite.host.location import create, make_folder
path = Path(sys.argv[1])
make_folder(path)
create(path)
create(path)
print(opened.count(str(path)) + opened.count(path), oct(path.stat().st_mode & 0o777))
"""
    assert scripts.run(script, tmp_db) == "0 0o600"


AS_STRANGER = """
import asyncio, encodings.ascii, os, sys
from pathlib import Path
from jobrunner.store.sqlite import SqliteStore
from jobrunner.store.sqlite.maintenance import migrate
migrate.migrations()  # and all else of Python that is imported late: it may lie where only root can read
os.setgroups([]); os.setgid(65533); os.setuid(65533)

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    print(len((await store.workers.recover(now=2**62, thorough=True)).workers))
    await store.close()

asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_what_root_makes_beside_the_database_of_a_service_belongs_to_the_service() -> None:
    """Root runs a command before the service is started, and the command is killed."""
    directory = Path(tempfile.mkdtemp(prefix="jobrunner-test-"))
    path = directory / "jobs.db"
    try:
        await opened_and_closed(path)
        shutil.rmtree(folder_of(path))
        for one in (directory, path):
            os.chown(one, STRANGER, STRANGER)
        script = """
import asyncio, os, sys
from jobrunner import JobRunner
async def main():
    jobs = JobRunner(sys.argv[1])
    async with jobs.running():
        os.kill(os.getpid(), 9)
asyncio.run(main())
"""
        with scripts.start(script, path) as child:
            assert child.wait(timeout=scripts.PATIENCE_S) == -signal.SIGKILL
        left = [folder_of(path), *folder_of(path).iterdir()]
        assert len(left) >= 4
        assert {(one.stat().st_uid, one.stat().st_gid) for one in left} == {(STRANGER, STRANGER)}
        assert scripts.run(AS_STRANGER, path) == "1"
    finally:
        shutil.rmtree(directory)
