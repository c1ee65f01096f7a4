"""The pytest plugin: its fixtures find the application, and each test has its own store, in parallel too."""

import subprocess
import sys
from pathlib import Path

import pytest

SHOP = """
from fastapi import FastAPI
from jobrunner import Job, JobRunner
from jobrunner.fastapi import Queue

def create_app():
    jobs = JobRunner("sqlite:///shop.db")
    app = FastAPI(lifespan=jobs.lifespan)

    @jobs.task(max_attempts=1)
    async def welcome(email: str) -> str:
        if email == "bad":
            raise ValueError(email)
        return email

    @app.post("/register")
    async def register(email: str, queue: Queue) -> Job[str]:
        return await queue.enqueue(welcome, email)

    app.state.welcome = welcome
    return app

app = create_app()
"""

TESTS = """
import os
import httpx2
import pytest
from fastapi.testclient import TestClient

@pytest.mark.parametrize("number", range(6))
async def test_async(job_tester, number):
    app = job_tester.app
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://x") as client:
        await client.post(f"/register?email=a{number}")
    job_tester.assert_enqueued(app.state.welcome, f"a{number}", times=1)
    assert len(job_tester.list()) == 1
    await job_tester.run_until_idle()
    assert [run.result for run in job_tester.runs()] == [f"a{number}"]

@pytest.mark.parametrize("number", range(6))
def test_sync(sync_job_tester, number):
    t = sync_job_tester
    with TestClient(t.app) as client:
        client.post(f"/register?email=b{number}")
        assert [job.args for job in t.list()] == [{"email": f"b{number}"}]
        t.run_until_idle()
        assert [run.result for run in t.runs()] == [f"b{number}"]
"""

INI = """
[tool.pytest.ini_options]
asyncio_mode = "auto"
asyncio_default_fixture_loop_scope = "function"
filterwarnings = ["error"]
"""


WITHOUT = [f"-pno:{name}" for name in ("anyio", "cacheprovider", "hypothesispytest", "timeout")]
"""Plugins that take half a second to load and have nothing to do here."""


def run(
    folder: Path, *arguments: str, ini: str = "", **files: str
) -> "subprocess.CompletedProcess[str]":
    """Run pytest in a folder with these files."""
    (folder / "pyproject.toml").write_text(INI + ini)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", *WITHOUT, *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("named", ["shop:app", "shop:create_app"])
def test_fixtures_find_the_application_by_the_setting(tmp_path: Path, named: str) -> None:
    done = run(tmp_path, ini=f'jobrunner_app = "{named}"\n', shop=SHOP, test_shop=TESTS)
    assert "12 passed" in done.stdout, done.stdout
    assert not (tmp_path / "shop.db").exists()


def test_parallel_tests_have_a_store_each(tmp_path: Path) -> None:
    done = run(
        tmp_path, "-n", "2", ini='jobrunner_app = "shop:create_app"\n', shop=SHOP, test_shop=TESTS
    )
    assert "12 passed" in done.stdout, done.stdout


def test_fixture_of_the_user_makes_the_application_and_names_its_store(tmp_path: Path) -> None:
    conftest = """
import pytest
from shop import create_app

@pytest.fixture
def job_tester_app():
    return create_app()

@pytest.fixture
def job_tester_store(tmp_path):
    return tmp_path / "mine.db"
"""
    test = """
def test_store(sync_job_tester, tmp_path):
    assert sync_job_tester.store == tmp_path / "mine.db"

async def test_async_store(job_tester, tmp_path):
    assert job_tester.store == tmp_path / "mine.db"
    assert job_tester.store.exists()
"""
    done = run(tmp_path, shop=SHOP, conftest=conftest, test_shop=test)
    assert "2 passed" in done.stdout, done.stdout


def test_without_either_the_error_has_both_lines(tmp_path: Path) -> None:
    done = run(tmp_path, shop=SHOP, test_shop=TESTS)
    assert "12 errors" in done.stdout
    assert 'jobrunner_app = "shop.main:create_app"' in done.stdout
    assert "def job_tester_app(tmp_path)" in done.stdout


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("shop", "is not of the form"),
        ("nowhere:app", "names no application: No module named 'nowhere'"),
        ("shop:nothing", "names no application: module 'shop' has no attribute 'nothing'"),
    ],
)
def test_setting_that_names_no_application_says_so(tmp_path: Path, named: str, said: str) -> None:
    done = run(tmp_path, ini=f'jobrunner_app = "{named}"\n', shop=SHOP, test_shop=TESTS)
    assert said in done.stdout, done.stdout


def test_strict_setting_fails_tests_with_unread_dead_letters(tmp_path: Path) -> None:
    test = """
async def test_unread(job_tester):
    await job_tester.app.state.welcome.enqueue("bad")
    await job_tester.run_until_idle()

async def test_read(job_tester):
    await job_tester.perform(job_tester.app.state.welcome, "bad")
"""
    ini = 'jobrunner_app = "shop:create_app"\njobrunner_strict = true\n'
    done = run(tmp_path, ini=ini, shop=SHOP, test_shop=test)
    assert "2 passed, 1 error" in done.stdout, done.stdout
    assert "the tester is strict" in done.stdout


def test_failed_assertion_is_shown_at_the_line_of_the_test(tmp_path: Path) -> None:
    test = """
async def test_it(job_tester):
    welcome = job_tester.app.state.welcome
    await welcome.enqueue("bob")
    job_tester.assert_enqueued(welcome, "ann", times=1)
"""
    done = run(tmp_path, ini='jobrunner_app = "shop:create_app"\n', shop=SHOP, test_shop=test)
    assert '>       job_tester.assert_enqueued(welcome, "ann", times=1)' in done.stdout, done.stdout
    shown = [line for line in done.stdout.splitlines() if line.startswith("E ")]
    assert shown[0].endswith("AssertionError: expected 1 job of welcome(email='ann'), found 0")
    assert any("+ welcome(email='bob')" in line for line in shown)
    assert "reading.py" not in done.stdout
