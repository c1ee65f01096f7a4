"""Alembic's autogenerate and MetaData.reflect() in the file of the jobs: what they see, and what they leave alone."""

import asyncio
import io
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import produce_migrations
from alembic.config import Config
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError

from jobrunner import JobRunner
from jobrunner.core.errors import StoreReplaced
from jobrunner.sqlalchemy import OURS, attach, include_name
from jobrunner.store.sqlite.driver_errors import REFLECT
from jobrunner.store.sqlite.maintenance import migrate

DOCS = Path(__file__).parents[2] / "docs" / "alembic.md"
BLOCKS = re.findall(r"```python[^\n]*\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
ENV, HOOK, REFLECTED = BLOCKS

MODELS = """\
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(index=True)
"""
MORE = """\
    age: Mapped[int | None]
    __table_args__ = (sa.CheckConstraint("age > 0", name="grown"),)
"""

ASYNC = """
import asyncio
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine("sqlite+aiosqlite:///shop.db", poolclass=NullPool)
attach(engine)


def run(connection):
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_name=include_name,
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def main():
    async with engine.connect() as connection:
        await connection.run_sync(run)


asyncio.run(main())
"""
"""The part of Alembic's template for async engines that matters here."""
ENVS = {
    "as documented": ENV,
    "not in batches": ENV.replace("render_as_batch=True,  # SQLite alters little in place", ""),
    "async": ENV.partition("engine =")[0] + ASYNC,
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a project with Alembic, and jobs in its file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("shop", "shop.models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "models.py").write_text(MODELS)
    command.init(config(tmp_path), str(tmp_path / "migrations"))
    (tmp_path / "migrations" / "env.py").write_text(ENV)
    asyncio.run(store_jobs(tmp_path / "shop.db"))
    yield tmp_path
    for name in ("shop", "shop.models"):
        sys.modules.pop(name, None)


def config(folder: Path) -> Config:
    made = Config(folder / "alembic.ini", stdout=io.StringIO())
    made.set_main_option("script_location", str(folder / "migrations"))
    made.set_main_option("path_separator", "os")
    return made


async def store_jobs(file: Path) -> None:
    jobs = JobRunner(file)
    greet = jobs.task(_greet)
    async with jobs.running(work=False):
        await jobs.enqueue(greet.options(key="a", tag="b"), "ada")
        await jobs.schedules.upsert("digest", greet, cron="@daily", args=["ada"])


async def _greet(name: str) -> str:
    return f"hello {name}"


def schema_of(file: Path) -> list[tuple[str, ...]]:
    """Return jobrunner's tables and indexes, and how many rows its jobs have."""
    with closing(sqlite3.connect(file)) as db:
        found: list[tuple[str, ...]] = db.execute(
            "SELECT type, name, sql FROM sqlite_schema WHERE substr(tbl_name, 1, length(:ours)) = :ours"
            " ORDER BY 1, 2",
            {"ours": OURS},
        ).fetchall()
        (rows,) = db.execute("SELECT count(*) FROM jobrunner_jobs").fetchone()
    return [*found, ("rows", str(rows), "")]


def revised(shop: Path, message: str) -> str:
    """Return the migration that autogenerate writes."""
    made: Any = command.revision(config(shop), message, autogenerate=True)
    return Path(made.path).read_text(encoding="utf-8")


@pytest.mark.parametrize("env", ENVS)
def test_autogenerate_with_the_documented_env_makes_and_alters_the_application_s_tables_alone(
    shop: Path, env: str
) -> None:
    (shop / "migrations" / "env.py").write_text(ENVS[env])
    before = schema_of(shop / "shop.db")
    first = revised(shop, "users")
    assert "op.create_table('users'" in first
    assert "ix_users_email" in first
    assert OURS not in first
    command.upgrade(config(shop), "head")
    command.check(config(shop))

    (shop / "shop" / "models.py").write_text(MODELS + MORE)
    sys.modules.pop("shop.models")
    with pytest.raises(CommandError, match="New upgrade operations detected"):
        command.check(config(shop))
    second = revised(shop, "age")
    assert "'age'" in second
    assert OURS not in second
    command.upgrade(config(shop), "head")
    command.check(config(shop))
    command.downgrade(config(shop), "base")
    assert schema_of(shop / "shop.db") == before


def test_autogenerate_without_the_hook_drops_the_jobs(shop: Path) -> None:
    """The reason for the hook; if this test fails, Alembic may not need it."""
    (shop / "migrations" / "env.py").write_text(ENV.replace("include_name=include_name,", ""))
    written = revised(shop, "users")
    assert "op.drop_table('jobrunner_jobs')" in written
    assert "jobrunner_jobs_queued" in written


def test_migration_beside_running_jobs_leaves_them_be(shop: Path) -> None:
    revised(shop, "users")

    async def migrate_meanwhile() -> str:
        jobs = JobRunner(shop / "shop.db")
        greet = jobs.task(_greet)
        async with jobs.running():
            job = await jobs.enqueue(greet, "bob")
            await asyncio.to_thread(command.upgrade, config(shop), "head")
            later = await jobs.enqueue(greet, "eve")
            assert (await jobs.health()).status == "ok"
            return await job.result(10) + await later.result(10)

    assert asyncio.run(migrate_meanwhile()) == "hello bobhello eve"


# -- the hook beside others ---------------------------------------------------------------------------


def differences(file: Path, **hooks: Any) -> set[tuple[str, str]]:
    """Return what autogenerate would do to the tables of a file, for metadata that is empty."""
    engine = sa.create_engine(f"sqlite:///{file}")
    attach(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, **hooks})
        script = produce_migrations(context, sa.MetaData())
    engine.dispose()
    assert script.upgrade_ops is not None
    return {
        (type(one).__name__, one.table_name)
        for one in script.upgrade_ops.ops
        if isinstance(one, (ops.DropTableOp, ops.ModifyTableOps))
    }


@pytest.fixture
async def file(tmp_db: Path) -> Path:
    """Make a file with jobs and three tables of the application."""
    await store_jobs(tmp_db)
    with closing(sqlite3.connect(tmp_db)) as db:
        for table in ("users", "spatial_ref_sys", "jobrunners"):
            db.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, jobrunner_job TEXT)")
            db.execute(f"CREATE INDEX {table}_job ON {table} (jobrunner_job)")
        db.commit()
    return tmp_db


Kind = Literal["schema", "table", "column", "index", "unique_constraint", "foreign_key_constraint"]


def test_hook_alone_leaves_every_other_table(file: Path) -> None:
    found = differences(file, include_name=include_name)
    assert {table for _, table in found} == {"users", "spatial_ref_sys", "jobrunners"}


def test_hook_inside_another_one_leaves_both_out(file: Path) -> None:
    names: dict[str, Any] = {"include_name": include_name}
    exec(HOOK, names)  # noqa: S102
    found = differences(file, include_name=names["include"])
    assert {table for _, table in found} == {"users", "jobrunners"}


def test_hook_beside_include_object_leaves_both_out(file: Path) -> None:
    def include_object(
        item: object, name: str | None, type_: Kind, reflected: bool, other: object
    ) -> bool:
        assert name is None or not name.startswith(OURS)
        return name != "users"

    found = differences(file, include_name=include_name, include_object=include_object)
    assert {table for _, table in found} == {"spatial_ref_sys", "jobrunners"}


def test_hook_leaves_out_all_that_any_migration_of_ours_has_made() -> None:
    made = re.findall(
        r"CREATE (?:UNIQUE )?(TABLE|INDEX)(?: IF NOT EXISTS)? (\w+)(?: ON (\w+))?",
        "\n".join([migrate.META, *migrate.migrations()]),
    )
    assert len(made) > 15
    for kind, name, table in made:
        if kind == "TABLE":
            assert not include_name(name, "table", {"schema_name": None})
            assert not include_name("id", "column", {"schema_name": None, "table_name": name})
        else:
            assert not include_name(name, "index", {"schema_name": None, "table_name": table})


@pytest.mark.parametrize(
    ("name", "kind", "parents"),
    [
        (None, "schema", {}),
        ("main", "schema", {}),
        ("users", "table", {"schema_name": None}),
        ("jobrunner", "table", {"schema_name": None}),
        ("jobrunner_job", "column", {"schema_name": None, "table_name": "users"}),
        (None, "unique_constraint", {"schema_name": None, "table_name": "users"}),
    ],
)
def test_hook_keeps_what_is_the_application_s(name: str | None, kind: str, parents: Any) -> None:
    assert include_name(name, kind, parents)


# -- MetaData.reflect() and drop_all() -----------------------------------------------------------------


async def test_reflect_and_drop_all_drop_the_jobs_and_stop_the_worker_in_words(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = JobRunner(file)
    greet = jobs.task(_greet)
    engine = sa.create_engine(f"sqlite:///{file}")
    attach(engine)
    async with jobs.running():
        assert await (await jobs.enqueue(greet, "bob")).result(10) == "hello bob"
        metadata = sa.MetaData()
        metadata.reflect(engine)
        assert "jobrunner_jobs" in metadata.tables
        metadata.drop_all(engine)
        engine.dispose()
        for call in (jobs.enqueue(greet, "eve"), jobs.list(), jobs.dead_letters.list()):
            with pytest.raises(StoreReplaced, match=r"has lost jobrunner's tables") as caught:
                await call
            assert str(caught.value).endswith(f"write {REFLECT}")
        health = await jobs.health()
        assert (health.status, health.ready) == ("failed", False)
        assert any("has lost jobrunner's tables" in one for one in health.problems)
    (stopped,) = [one for one in caplog.records if one.levelname == "CRITICAL"]
    assert "this worker has stopped" in stopped.getMessage()
    assert "has lost jobrunner's tables" in stopped.getMessage()

    async with JobRunner(file).running() as _:
        pass
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT count(*) FROM jobrunner_jobs").fetchone() == (0,)


async def test_reflect_as_it_is_told_leaves_the_jobs(file: Path) -> None:
    assert REFLECTED.strip() == REFLECT
    jobs = JobRunner(file)
    greet = jobs.task(_greet)
    engine = sa.create_engine(f"sqlite:///{file}")
    attach(engine)
    before = schema_of(file)
    async with jobs.running():
        metadata = sa.MetaData()
        exec(REFLECT, {"metadata": metadata, "engine": engine})  # noqa: S102
        assert set(metadata.tables) == {"users", "spatial_ref_sys", "jobrunners"}
        metadata.drop_all(engine)
        engine.dispose()
        assert await (await jobs.enqueue(greet, "bob")).result(10) == "hello bob"
    with closing(sqlite3.connect(file)) as db:
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'users'").fetchone()
    assert tables == 0
    assert schema_of(file)[:-1] == before[:-1], "all but the number of jobs"
