"""Commands on the URL of a PostgreSQL store: those of files are refused, all others answer."""

from urllib.parse import urlsplit

import pytest

from jobrunner import JobRunner
from tests.cli.commands import jobrunner

pytestmark = pytest.mark.process


@pytest.fixture
def url_with_password(postgres_url: str) -> str:
    parts = urlsplit(postgres_url)
    return parts._replace(netloc=f"jobrunner:s3cret@{parts.hostname}:{parts.port}").geturl()


async def test_commands_of_a_store_answer_on_a_url_and_hide_its_password(
    url_with_password: str,
) -> None:
    jobs = JobRunner(url_with_password)

    @jobs.task
    async def work(number: int) -> None: ...

    async with jobs.running(work=False):
        job = await jobs.enqueue(work.options(delay=3600), 7)
    store = ("--store", url_with_password)
    status = await jobrunner("status", "--json", *store)
    assert (status.code, status.json["store"]) == (0, jobs_name(url_with_password))
    listed = await jobrunner("jobs", "list", *store)
    assert [row["id"] for row in listed.rows] == [job.id]
    cancelled = await jobrunner("jobs", "cancel", job.id, *store)
    assert cancelled.code == 0
    doctor = await jobrunner("doctor", "--json", *store)
    assert {one["about"] for one in doctor.json["findings"]} >= {"pooler", "rights", "schema"}
    for answer in (status, listed, cancelled, doctor):
        assert "s3cret" not in answer.out + answer.err


def jobs_name(url: str) -> str:
    parts = urlsplit(url)
    return f"postgresql://{parts.hostname}:{parts.port}{parts.path}"


@pytest.mark.parametrize(
    ("words", "instead"), [(("backup", "copy.db"), "pg_dump"), (("vacuum", "--yes"), "autovacuum")]
)
async def test_commands_of_files_are_refused_with_what_to_do_instead(
    url_with_password: str, words: tuple[str, ...], instead: str
) -> None:
    answer = await jobrunner(*words, "--store", url_with_password)
    assert answer.code == 7
    assert instead in answer.err
    assert "this command is for SQLite files" in answer.err


async def test_command_on_a_database_without_tables_makes_none(bare_postgres_url: str) -> None:
    answer = await jobrunner("status", "--store", bare_postgres_url)
    assert answer.code == 6
    assert "holds no jobs" in answer.err
    # Nor did the first one.
    assert (await jobrunner("status", "--store", bare_postgres_url)).code == 6
