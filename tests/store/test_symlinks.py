"""A store that is named by a symbolic link is the store that the link leads to, for everybody."""

from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from jobrunner import AlreadyRunning, JobRunner, StoreUnavailable
from jobrunner.sqlalchemy import attach
from jobrunner.store.sqlite import SqliteStore
from tests.cli.commands import jobrunner
from tests.support.children import echo, tasks
from tests.support.engine import worker_of
from tests.support.processes import child


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the path of a file in a new folder."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "target.db"


@pytest.fixture(params=["to the file", "to its folder", "by two links"])
def link(request: pytest.FixtureRequest, target: Path, tmp_path: Path) -> Path:
    """Make another name of the file, which need not be there yet."""
    match request.param:
        case "to the file":
            link = tmp_path / "shop.db"
            link.symlink_to("data/target.db")
        case "to its folder":
            (tmp_path / "current").symlink_to(target.parent)
            link = tmp_path / "current" / target.name
        case _:
            (tmp_path / "second.db").symlink_to(target)
            link = tmp_path / "shop.db"
            link.symlink_to("second.db")
    return link


def runner(path: Path) -> JobRunner:
    jobs = JobRunner(path)
    jobs.include(tasks)
    return jobs


async def test_store_behind_a_link_is_made_there_with_its_log_and_locks(
    target: Path, link: Path
) -> None:
    before = sorted(target.parent.parent.iterdir())
    jobs = runner(link)
    async with jobs.running():
        assert sorted(target.parent.iterdir()) == [
            target.with_name(f"target.db{ending}") for ending in ("", "-jobrunner", "-shm", "-wal")
        ]
        job = await jobs.enqueue(echo, "a")
        assert await job.result(timeout=15) == "a"
    assert sorted(target.parent.parent.iterdir()) == before
    async with runner(target).running() as jobs:
        assert (await jobs.get(job.id)).state == "succeeded"


async def test_link_and_target_are_one_store_in_a_process(target: Path, link: Path) -> None:
    for first, second in ((link, target), (target, link)):
        async with runner(first).running():
            with pytest.raises(AlreadyRunning, match="open already in this process"):
                async with runner(second).running():
                    pytest.fail("it was opened twice")


async def test_processes_that_come_by_both_names_see_each_others_locks(
    target: Path, link: Path
) -> None:
    async with child("work", link) as worker:
        await worker.heard("open")
        jobs = runner(target)
        async with jobs.running(work=False):
            (row,) = (await jobs.health()).workers
            assert row.pid == worker.pid
            # By its lock, which lies where this process looks for it: it is not taken for dead.
            await worker_of(jobs).maintenance.recovery.recover(thorough=True)
            job = await jobs.enqueue(echo, "a")
            assert await job.result(timeout=15) == "a"
            assert [row.pid for row in (await jobs.health()).workers] == [worker.pid]
            assert [one.worker for one in (await job.refresh()).history] == [row.id]


async def test_commands_and_doctor_name_the_file_behind_the_link(target: Path, link: Path) -> None:
    async with child("work", link) as worker:
        await worker.heard("open")
        for named in (link, target):
            answer = await jobrunner("doctor", "--store", named, "--json")
            said = answer.json
            assert (answer.code, said["store"], said["healthy"]) == (0, str(target), True)
            (found,) = [one["what"] for one in said["findings"] if one["about"] == "worker"]
            assert found.startswith(f"pid {worker.pid} ")
            (log,) = [one["what"] for one in said["findings"] if one["about"] == "log"]
            assert log.endswith("MiB")
            assert (await jobrunner("status", "--store", named, "--json")).json["store"] == str(
                target
            )


async def test_engine_on_the_link_joins_the_store_of_its_target(target: Path, link: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{link}")
    attach(engine)
    jobs = runner(target)
    async with jobs.running():
        async with AsyncSession(engine) as session:
            job = await jobs.enqueue(echo.options(session=session), "a")
            await session.commit()
        assert await job.result(timeout=15) == "a"
    await engine.dispose()


async def test_link_that_leads_to_itself_or_nowhere_is_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    loop, lost = tmp_path / "loop.db", tmp_path / "lost.db"
    loop.symlink_to("loop.db")
    lost.symlink_to(tmp_path / "nowhere" / "target.db")
    with pytest.raises(StoreUnavailable, match=r"loop\.db is a link that leads back to itself"):
        await SqliteStore(loop).open()
    with pytest.raises(StoreUnavailable, match=r"nowhere is not a directory; make it first"):
        await SqliteStore(lost).open()
    assert sorted(tmp_path.iterdir()) == [loop, lost]
