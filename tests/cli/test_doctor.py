"""``doctor``: what is wrong, and what to do."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from jobrunner import Concurrency, JobRunner
from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.store.findings import Finding
from jobrunner.store.sqlite.host import identity
from jobrunner.store.sqlite.host.location import folder_of
from jobrunner.store.sqlite.host.turnstile import Turnstile
from jobrunner.store.sqlite.maintenance import doctor
from jobrunner.store.sqlite.maintenance.doctor import diagnose
from jobrunner.store.sqlite.sql import workers
from tests.cli import service
from tests.cli.commands import jobrunner, worker
from tests.cli.conftest import Stored
from tests.store.test_migrations import FIXTURES, written_by
from tests.support.factories import NOW
from tests.support.processes import CHECKOUT


def found(path: Path, about: str, *, now: int | None = None, deep: bool = False) -> list[Finding]:
    """Return what is found about something."""
    return [
        one
        for one in diagnose(path, now=now_us if now is None else lambda: now, deep=deep)
        if one.about == about
    ]


def problems(path: Path) -> list[str]:
    """Return what is found to be wrong with a store, whatever the library that this Python has."""
    return [
        one.about
        for one in diagnose(path, now=now_us, deep=True)
        if one.level != "ok" and one.about != "SQLite"
    ]


def change(path: Path, statement: str, *values: int) -> None:
    """Change a file that nobody has open."""
    with closing(sqlite3.connect(path)) as db:
        db.execute(statement, values)
        db.commit()


@contextmanager
def stopped_holder(path: Path) -> Iterator[None]:
    """Have a process stop while it holds the turnstile."""
    pid = os.fork()
    if pid == 0:
        Turnstile(folder_of(path)).acquire(5)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    try:
        os.waitpid(pid, os.WUNTRACED)
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture
def bytes_of(stored: Stored) -> Iterator[None]:
    """Assert that the check does not change the file."""
    before = stored.path.read_bytes()
    yield
    assert stored.path.read_bytes() == before


async def test_doctor_of_a_sound_store_finds_nothing_and_says_what_it_looked_at(
    stored: Stored,
) -> None:
    answer = await jobrunner("doctor", "--deep", "--store", stored.path, "--json")
    assert (answer.code, answer.json["healthy"]) == (0, True)
    looked = {one["about"] for one in answer.json["findings"]}
    assert looked >= {
        "SQLite",
        "file",
        "disk",
        "open in",
        "tables",
        "pragmas",
        "log",
        "pages",
        "worker",
        "clock",
        "locks",
    }


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ((3, 36, 0), "problem"),
        ((3, 40, 1), "warning"),
        ((3, 44, 5), "warning"),
        ((3, 44, 6), "ok"),
        ((3, 45, 3), "warning"),
        ((3, 50, 6), "warning"),
        ((3, 50, 7), "ok"),
        ((3, 51, 2), "warning"),
        ((3, 51, 3), "ok"),
        ((3, 53, 0), "ok"),
        ((4, 0, 0), "ok"),
    ],
)
def test_doctor_warns_of_an_sqlite_whose_file_a_foreign_writer_can_damage(
    stored: Stored, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], level: str
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    monkeypatch.setattr(sqlite3, "sqlite_version", ".".join(map(str, version)))
    (finding,) = found(stored.path, "SQLite")
    assert finding.level == level
    assert finding.what.startswith(".".join(map(str, version)))
    assert (finding.do is None) == (level == "ok")
    if level == "warning":
        assert "a foreign program that writes while jobs run can damage the file" in finding.what
        assert "stop the application before another program writes" in str(finding.do)


async def test_doctor_with_warnings_alone_ends_with_0(stored: Stored) -> None:
    change(
        stored.path,
        "INSERT INTO jobrunner_workers SELECT 1, 1, 'here', now, now, NULL, '{}', '[]', NULL, NULL"
        " FROM (SELECT ? now)",
        now_us(),
    )
    answer = await jobrunner("doctor", "--store", stored.path, "--json")
    levels = {one["about"]: one["level"] for one in answer.json["findings"]}
    assert levels["orphans"] == "warning"
    assert (answer.code, answer.json["healthy"]) == (0, True)


@pytest.mark.parametrize("version", FIXTURES)
def test_doctor_reads_a_file_that_is_not_migrated_yet(new_db: Path, version: int) -> None:
    findings = list(diagnose(written_by(version, new_db), now=lambda: NOW, deep=False))
    (tables,) = (one for one in findings if one.about == "tables")
    assert f"version {version}; the next start migrates them" in tables.what
    # All but how the file was written here.
    assert [one.about for one in findings if one.level == "problem"] == ["pragmas"]


async def test_doctor_of_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    answer = await jobrunner("doctor", "--store", tmp_path / "no.db")
    assert answer.code == 8
    assert "there is no file" in answer.out
    assert not list(tmp_path.iterdir())


def test_doctor_names_a_layer_and_a_network(
    stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "mountinfo"
    monkeypatch.setattr(identity, "_MOUNTINFO", told)
    told.write_text("1 1 0:1 / / rw - overlay none rw\n")
    assert problems(stored.path) == ["place"]
    told.write_text("1 1 0:1 / / rw - nfs4 none rw\n")
    assert "network file system (nfs4)" in found(stored.path, "place")[0].what


def test_doctor_names_a_hard_link_and_a_full_disk(
    stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.link(stored.path, tmp_path / "other.db")
    monkeypatch.setattr(doctor, "LITTLE_ROOM", 2**60)
    assert {"file", "disk"} <= set(problems(stored.path))


def test_doctor_of_a_file_of_somebody_else_says_that_alone_and_leaves_its_lock(
    tmp_path: Path,
) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as db:
        db.execute("CREATE TABLE mine (x)")
    assert problems(tmp_path / "other.db") == ["tables"]
    assert found(tmp_path / "other.db", "locks") == []


def test_doctor_names_a_log_that_this_user_may_not_write_to(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Path(f"{stored.path}-wal")
    monkeypatch.setattr(os, "access", lambda path, _mode: path != log)
    assert found(stored.path, "rights") == []
    log.touch()
    (finding,) = found(stored.path, "rights")
    assert str(log) in finding.what


def test_doctor_names_a_clock_that_was_set_back(stored: Stored, bytes_of: None) -> None:
    (finding,) = found(stored.path, "clock", now=now_us() - 3600 * SECOND_US)
    assert (finding.level, "set back by 3,600 s" in finding.what) == ("problem", True)


def test_doctor_names_another_journal_mode(stored: Stored) -> None:
    change(stored.path, "PRAGMA journal_mode = DELETE")
    (finding,) = found(stored.path, "pragmas")
    assert finding.level == "problem"


def test_doctor_names_damage(stored: Stored) -> None:
    content = bytearray(stored.path.read_bytes())
    for page in range(4096 * 2, len(content), 4096):
        content[page : page + 64] = b"\xff" * 64
    stored.path.write_bytes(content)
    assert set(problems(stored.path)) & {"pages", "file"}


def test_doctor_names_who_holds_the_write_lock(stored: Stored) -> None:
    with closing(sqlite3.connect(stored.path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        (finding,) = found(stored.path, "locks")
        assert (finding.level, "write lock" in finding.what) == ("problem", True)
        assert finding.do is not None
        db.execute("ROLLBACK")
    # Any other error is none of a process that holds something.
    assert doctor._try_to_write(stored.path / "none").do is None


async def test_doctor_names_a_stopped_process_that_holds_the_turnstile(stored: Stored) -> None:
    with stopped_holder(stored.path):
        (finding,) = found(stored.path, "locks")
        assert (finding.level, "has held the write lock" in finding.what) == ("problem", True)
    assert found(stored.path, "locks")[0].level == "ok"


async def test_doctor_names_orphans_and_who_has_the_file_open(tmp_db: Path) -> None:
    runner = JobRunner(tmp_db, queues={"default": 1, "mail": 1})
    runner.include(service.tasks)
    async with worker(tmp_db) as running:
        async with runner.running(work=False):
            await runner.enqueue(service.hold)
        await running.heard("held")
        (holder,) = found(tmp_db, "open in")
        assert f"pid {running.pid} (" in holder.what
        assert found(tmp_db, "worker")[0].what.endswith("1 job(s) running")
        stale = found(tmp_db, "worker", now=now_us() + 60 * SECOND_US)
        assert "its loop has not turned" in stale[0].what
        await running.kill()
    (orphan,) = found(tmp_db, "orphans")
    assert (orphan.level, "held 1 running job(s)" in orphan.what) == ("warning", True)
    assert found(tmp_db, "orphans") == [orphan], "looking has changed nothing"


def test_doctor_names_a_large_log_and_empty_pages(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "LARGE_LOG", -1)
    with closing(sqlite3.connect(stored.path)) as db:
        db.execute("SELECT 1 FROM jobrunner_jobs").fetchone()
        (finding,) = found(stored.path, "log")
    assert finding.level == "warning"
    monkeypatch.setattr(doctor, "MUCH_EMPTY", -1)
    assert found(stored.path, "room")


async def test_doctor_of_a_killed_process_s_file_leaves_the_log_as_it_is(
    tmp_db: Path, tmp_path: Path
) -> None:
    (tmp_path / "with_engine.py").write_text(WITH_ENGINES.format(rest="bad = create_engine(url)\n"))
    env = {"SERVICE_STORE": str(tmp_db), "PYTHONPATH": f"{tmp_path}{os.pathsep}{CHECKOUT}"}
    runner = JobRunner(tmp_db, queues={"default": 1, "mail": 1})
    runner.include(service.tasks)
    async with worker(tmp_db) as running:
        async with runner.running(work=False):
            await runner.enqueue(service.hold)
        await running.heard("held")
        await running.kill()
    log = tmp_db.with_name(f"{tmp_db.name}-wal")
    before = tmp_db.read_bytes(), log.read_bytes()
    answer = await jobrunner("doctor", "--app", "with_engine:jobs", "--json", env=env)
    assert {one["about"] for one in answer.json["findings"]} >= {"engine", "locks"}
    assert (tmp_db.read_bytes(), log.read_bytes()) == before


def test_doctor_says_of_a_file_that_was_closed_well_that_it_has_no_log(stored: Stored) -> None:
    (finding,) = found(stored.path, "log")
    assert finding.what.startswith("none: nobody has the file open")


def test_doctor_that_takes_long_does_not_take_a_new_job_for_a_wrong_clock(stored: Stored) -> None:
    later = now_us() + 60 * SECOND_US
    clock = iter((later,))
    looked = []
    for finding in diagnose(stored.path, now=lambda: next(clock), deep=True):
        looked.append(finding)
        if finding.about == "pragmas":
            change(stored.path, "UPDATE jobrunner_jobs SET created_at = ?", later)
    assert [one.level for one in looked if one.about == "clock"] == ["ok"]


async def test_doctor_names_a_job_that_is_blocked_for_ever(stored: Stored) -> None:
    runner = JobRunner(stored.path, queues={"default": 1, "mail": 1})
    runner.include(service.tasks)
    async with runner.running(work=False):
        chain = await runner.enqueue_chain(
            [service.hold.options(delay=3600).call(), service.hold.call()]
        )
    assert found(stored.path, "chains") == []
    change(stored.path, "UPDATE jobrunner_jobs SET state = 'succeeded' WHERE state = 'scheduled'")
    (finding,) = found(stored.path, "chains")
    assert (finding.level, chain[1].id in finding.what) == ("problem", True)


LEAVES = "DELETE FROM jobrunner_workers"
CLAIMS = (
    "UPDATE jobrunner_jobs SET state = 'running', worker = 7, lease = 1 WHERE state = 'scheduled'"
)


@pytest.mark.parametrize("statement", [LEAVES, CLAIMS], ids=["leaves", "claims"])
def test_worker_that_leaves_or_claims_while_the_doctor_looks_is_no_orphan(
    stored: Stored, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    rows = workers.rows
    change(
        stored.path,
        "INSERT INTO jobrunner_workers SELECT 1, 1, 'here', now, now, NULL, '{}', '[]', NULL, NULL"
        " FROM (SELECT ? now)",
        now_us(),
    )
    if statement == CLAIMS:
        change(stored.path, LEAVES)

    def then(conn: sqlite3.Connection) -> object:
        seen = rows(conn)
        change(stored.path, statement)
        return seen

    monkeypatch.setattr(workers, "rows", then)
    assert found(stored.path, "orphans") == []


WITH_ENGINES = """\
import os
from sqlalchemy import create_engine, event
from jobrunner import JobRunner
from jobrunner.sqlalchemy import attach

def moves_no_log(connection, entry):
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA mmap_size = 0")

def moves_the_log(connection, entry):
    connection.execute("PRAGMA wal_autocheckpoint = 1000")

url = "sqlite:///" + os.environ["SERVICE_STORE"]
jobs = JobRunner(os.environ["SERVICE_STORE"])
{rest}"""


@pytest.mark.parametrize(
    ("rest", "level", "what", "do"),
    [
        ("e = create_engine(url)", "problem", "is not attached and opens", "write attach(engine)"),
        (
            "e = create_engine(url.replace('///', '///file:') + '?uri=true')",
            "problem",
            "is not attached and opens",
            "write attach(engine)",
        ),
        ("e = create_engine(url)\nattach(e)", "ok", 'is attached, with durability="full"', None),
        (
            "e = create_engine(url)\nevent.listen(e, 'connect', moves_no_log)",
            "ok",
            "it is not attached",
            None,
        ),
        (
            "e = create_engine(url)\nattach(e)\nevent.listen(e, 'connect', moves_the_log)",
            "problem",
            "is attached, but then set to wal_autocheckpoint=1000",
            "remove these pragmas",
        ),
    ],
    ids=["unattached", "unattached by URI", "attached", "by hand", "undone"],
)
async def test_doctor_with_the_app_looks_at_its_engines(
    stored: Stored, tmp_path: Path, rest: str, level: str, what: str, do: str | None
) -> None:
    module = WITH_ENGINES.format(rest=f"{rest}\nelsewhere = create_engine('sqlite:///other.db')\n")
    (tmp_path / "with_engines.py").write_text(module)
    env = {**stored.env, "PYTHONPATH": f"{tmp_path}{os.pathsep}{CHECKOUT}"}
    answer = await jobrunner("doctor", "--app", "with_engines:jobs", "--json", env=env)
    (engine,) = [one for one in answer.json["findings"] if one["about"] == "engine"]
    assert (engine["level"], what in engine["what"]) == (level, True), engine
    assert engine["do"] is None if do is None else do in engine["do"]
    assert answer.code == (8 if level == "problem" else 0)


async def test_doctor_looks_at_a_store_whose_application_cannot_be_loaded(stored: Stored) -> None:
    app = ("--app", "tests.cli.service:break_down", "--factory")
    assert (await jobrunner("doctor", *app)).code == 7
    answer = await jobrunner("doctor", *app, "--store", stored.path, "--json")
    problems = [one["about"] for one in answer.json["findings"] if one["level"] == "problem"]
    assert (answer.code, problems) == (8, ["application"])


async def test_doctor_with_the_shop_finds_its_engines_in_order(tmp_path: Path) -> None:
    env = {"SHOP_DATA_DIR": str(tmp_path)}
    runner = JobRunner(tmp_path / "shop.db")
    async with runner.running():
        answer = await jobrunner(
            "doctor", "--app", "app.main:create_app", "--factory", "--json", env=env
        )
    assert answer.code == 0, answer.out
    engines = [one for one in answer.json["findings"] if one["about"] == "engine"]
    assert len(engines) == 2
    assert all("is attached" in engine["what"] for engine in engines), engines


COUNTED_BY = """
from jobrunner import Concurrency, JobRunner

jobs = JobRunner({file!r})


@jobs.task{options}
async def sync(account_id: int, region: str) -> None: ...
"""


@pytest.mark.parametrize(
    ("options", "lane"),
    [
        ("(concurrency=Concurrency(2, by='region'))", 'sync["eu"]'),
        ("(concurrency=Concurrency(2))", "none"),
        ("(concurrency=Concurrency(5, by='account_id'))", None),
    ],
)
async def test_doctor_names_a_changed_by(tmp_path: Path, options: str, lane: str | None) -> None:
    file = tmp_path / "jobs.db"
    jobs = JobRunner(file)

    @jobs.task(name="sync", concurrency=Concurrency(2, by="account_id"))
    async def sync(account_id: int, region: str) -> None: ...

    async with jobs.running(work=False):
        await jobs.enqueue(sync, 7, "eu")
        await jobs.enqueue(sync.options(delay=60), 8, "eu")
    (tmp_path / "counted_by.py").write_text(COUNTED_BY.format(file=str(file), options=options))
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{CHECKOUT}"}
    answer = await jobrunner("doctor", "--app", "counted_by:jobs", "--json", env=env)
    found = [one for one in answer.json["findings"] if one["about"] == "limits"]
    assert answer.code == 0
    if lane is None:
        assert not found
        return
    (one,) = found
    assert one["level"] == "warning"
    assert one["what"] == (
        "1 of the first 1 jobs of sync that wait in queue default are counted in other lanes than by= says now, such as"
        f" sync[7] instead of {lane}"
    )
