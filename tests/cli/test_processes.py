"""``serve`` and ``worker`` as processes: signals, kills, several on one file, process 1 of a container."""

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from jobrunner import JobRunner
from tests.cli import service
from tests.cli.commands import (
    APP,
    children_of,
    client,
    jobrunner,
    ready,
    server,
    worker,
)
from tests.cli.conftest import Stored
from tests.support.pace import pace
from tests.support.ports import free_port
from tests.support.processes import CHECKOUT

GRACE_S = 1.0


async def state(store: Path, id: str) -> tuple[str, int]:
    """Return a job's state and attempt."""
    answer = await jobrunner("jobs", "show", id, "--store", store, "--json")
    return answer.json["state"], answer.json["attempt"]


async def enqueue(store: Path, *names: str) -> None:
    """Enqueue greetings from this process, which runs nothing."""
    runner = JobRunner(store, queues={"default": 1, "mail": 1})
    runner.include(service.tasks)
    async with runner.running(work=False):
        await runner.enqueue_many(service.greet.call(name) for name in names)


async def until_refused(http: httpx2.AsyncClient) -> None:
    """Ask again and again until nobody listens."""
    async with asyncio.timeout(20):
        with contextlib.suppress(httpx2.TransportError):
            while True:
                await http.get("/health/live")


def is_alive(pid: int) -> bool:
    """Return whether a process has not ended; one that has may still wait for its status to be asked for."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


# -- serve ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
async def test_D7_serve_ends_within_grace_and_gives_back_what_runs(
    tmp_db: Path, number: int, code: int
) -> None:
    async with server(tmp_db) as serving:
        id = (await serving.http.post("/hold")).json()["id"]
        await serving.process.heard("held")
        began = time.perf_counter()
        serving.process.send_signal(number)
        assert await serving.process.ended() == code
        assert time.perf_counter() - began <= GRACE_S + pace()
    assert await state(tmp_db, id) == ("queued", 0)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_D7_serve_ends_within_grace_though_a_client_stays(tmp_db: Path, workers: str) -> None:
    async with (
        server(tmp_db, "--workers", workers) as serving,
        serving.http.stream("GET", "/stay") as answer,
    ):
        assert await anext(answer.aiter_bytes()) == b"and"
        began = time.perf_counter()
        serving.process.send_signal(signal.SIGTERM)
        assert await serving.process.ended() == (143 if workers == "1" else 0)
        # uvicorn's parent of several looks each half second.
        assert time.perf_counter() - began <= GRACE_S + (1 if workers == "1" else 1.5) * pace()


async def test_serve_is_not_ready_from_the_signal_on_and_still_answers(tmp_db: Path) -> None:
    async with server(tmp_db, grace="20") as serving:
        await serving.http.post("/hold")
        await serving.process.heard("held")
        # A request under way keeps the connection: uvicorn closes idle ones at the signal.
        assert (await serving.http.get("/health/live")).json() == {"status": "alive"}
        serving.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            while True:
                try:
                    answer = await serving.http.get("/health/ready")
                except Exception:  # noqa: BLE001 - it listens no more, which is as good
                    break
                if answer.status_code == 503:
                    assert answer.json() == {"status": "not ready"}
                    break


@pytest.mark.timeout(90)
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_D8_second_interrupt_ends_serve_at_once_and_loses_nothing(
    tmp_db: Path, workers: str
) -> None:
    async with server(tmp_db, "--workers", workers, grace="120") as serving:
        id = (await serving.http.post("/hold")).json()["id"]
        holder = (await serving.process.heard("held"))["pid"]
        serving.process.send_signal(signal.SIGINT)
        if workers == "1":
            await until_refused(serving.http)
        # It waits for the lifespan's end, as there is no connection. uvicorn's parent looks each half second.
        assert await serving.process.lives(1.5)
        began = time.perf_counter()
        serving.process.send_signal(signal.SIGINT)
        assert await serving.process.ended() == 130
        assert time.perf_counter() - began < 2
        async with asyncio.timeout(5):
            while await asyncio.to_thread(is_alive, holder):
                pass
    async with worker(tmp_db) as second:
        held = await second.heard("held")
        assert (held["id"], held["attempt"]) == (id, 2)


async def test_kill_of_serve_in_mid_job_and_start_again_runs_it_again(tmp_db: Path) -> None:
    async with server(tmp_db) as first:
        id = (await first.http.post("/hold")).json()["id"]
        await first.process.heard("held")
        await first.process.kill()
    async with server(tmp_db) as second:
        held = await second.process.heard("held")
        assert (held["id"], held["attempt"]) == (id, 2)


async def test_D12_of_two_serving_processes_one_is_killed_and_replaced(tmp_db: Path) -> None:
    async with server(tmp_db, "--workers", "2") as serving:
        id = (await serving.http.post("/hold")).json()["id"]
        held = await serving.process.heard("held")
        assert held["pid"] != serving.process.pid
        os.kill(held["pid"], signal.SIGKILL)
        again = await serving.process.heard("held")
        assert (again["id"], again["attempt"]) == (id, 2)
        assert again["pid"] != held["pid"]
        async with asyncio.timeout(20):
            while len(pids := await worker_pids(tmp_db)) != 2 or held["pid"] in pids:
                pass
        serving.process.send_signal(signal.SIGTERM)
        assert await serving.process.ended() == 0
    assert await state(tmp_db, id) == ("queued", 1)


async def test_kill_of_the_parent_leaves_no_serving_child_behind(tmp_db: Path) -> None:
    async with server(tmp_db, "--workers", "2") as serving:
        async with asyncio.timeout(20):
            while len(await worker_pids(tmp_db)) != 2:
                pass
        await serving.process.kill()
        async with asyncio.timeout(10):
            # By their locks: a process that is gone holds none, and the doctor calls its worker dead.
            while await living(tmp_db):
                pass


async def living(store: Path) -> list[str]:
    """Return what the doctor says of the workers that live."""
    answer = await jobrunner("doctor", "--store", store, "--json")
    return [
        one["what"]
        for one in answer.json["findings"]
        if one["about"] == "worker" and not one["what"].startswith("none")
    ]


async def worker_pids(store: Path) -> set[int]:
    """Return the processes that have joined; none while there is no file, or no table in it."""
    await asyncio.sleep(0.05)  # noqa: TID251 - who asks again and again lets the others work
    try:
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
            return {pid for (pid,) in db.execute("SELECT pid FROM jobrunner_workers")}
    except sqlite3.OperationalError:
        return set()


async def test_D20_serve_as_process_1_of_a_container_hears_the_signal(tmp_db: Path) -> None:
    port = free_port()
    command = as_process_1()
    started = await asyncio.create_subprocess_exec(
        *command,
        *(sys.executable, "-m", "jobrunner.cli", "serve", APP, "--factory"),
        *("--port", str(port)),
        cwd=CHECKOUT,
        env=os.environ | {"SERVICE_STORE": str(tmp_db), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
    )
    try:
        assert started.stdout is not None
        async with client(port) as http:
            await ready(http)
            await http.post("/hold")
            await asyncio.wait_for(started.stdout.readline(), 20)
        (inside,) = children_of(started.pid)
        os.kill(inside, signal.SIGTERM)
        assert await asyncio.wait_for(started.wait(), 20) == 143
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


def as_process_1() -> tuple[str, ...]:
    """Return the words that run a command as process 1 of a new namespace."""
    command = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        # The kernel forbids it to this user: at least nobody is there to hand the signal on.
        return ("setsid", "--fork", "--wait")
    return command


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_serve_without_a_place_for_its_store_says_so_and_ends(
    tmp_path: Path, workers: str
) -> None:
    answer = await jobrunner(
        *("serve", APP, "--factory", "--port", "0", "--workers", workers),
        env={"SERVICE_STORE": str(tmp_path / "no" / "jobs.db")},
    )
    assert answer.code == 3
    assert "is not a directory; make it first" in answer.err


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_serve_on_a_port_that_is_taken_says_so_and_ends(tmp_db: Path, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = await jobrunner(
            *("serve", APP, "--factory", "--workers", workers),
            *("--port", str(taken.getsockname()[1])),
            env={"SERVICE_STORE": str(tmp_db)},
        )
    assert (answer.code, "already in use" in answer.err.lower()) == (3, True), answer.err


async def test_serve_of_a_runner_names_the_command_for_it() -> None:
    answer = await jobrunner("serve", "tests.support.children:runner", "--port", "0")
    assert (answer.code, "add --factory" in answer.err) == (7, True)


async def test_log_of_serve_says_where_the_jobs_lie(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    answer = await asyncio.wait_for(_log_until_ready(cwd=tmp_path, store="data/jobs.db"), 25)
    assert f"jobs are stored in {directory / 'jobs.db'} (SQLite" in answer


async def _log_until_ready(*, cwd: Path, store: str) -> str:
    port = free_port()
    log = cwd / "log"
    with log.open("wb") as file:
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jobrunner.cli", "serve", APP, "--factory"),
            *("--port", str(port)),
            cwd=cwd,
            env=os.environ | {"SERVICE_STORE": store, "PYTHONPATH": str(CHECKOUT)},
            stderr=file,
        )
    try:
        async with client(port) as http:
            await ready(http)
    finally:
        started.terminate()
        await started.wait()
    return log.read_text()


# -- worker --------------------------------------------------------------------------------------------


async def test_worker_runs_the_jobs_of_an_app_that_only_enqueues(tmp_db: Path) -> None:
    async with worker(tmp_db, app="tests.cli.service:create_web") as running:
        await enqueue(tmp_db, "ada")
        assert (await running.heard("greeted"))["name"] == "ada"
        running.send_signal(signal.SIGTERM)
        assert await running.ended() == 0


async def test_D7_worker_under_load_ends_within_grace_and_charges_no_attempt(tmp_db: Path) -> None:
    await enqueue(tmp_db, *map(str, range(300)))
    async with worker(tmp_db, app="tests.cli.service:create_runner") as running:
        await running.heard("greeted")
        began = time.perf_counter()
        running.send_signal(signal.SIGTERM)
        while True:
            try:
                await running.heard("greeted")
            except AssertionError:
                break  # the end of its output
        assert await running.ended() == 0
        assert time.perf_counter() - began <= GRACE_S + pace()
    listed = await jobrunner("jobs", "list", "--limit", "1000", "--store", tmp_db, "--json")
    states = {(item["state"], item["attempt"]) for item in listed.json["items"]}
    assert states <= {("succeeded", 1), ("queued", 0)}
    assert len(listed.json["items"]) == 300


async def test_D7_worker_ends_within_grace_though_a_thread_of_the_application_goes_on(
    tmp_db: Path,
) -> None:
    runner = service.create_runner(str(tmp_db))
    async with runner.running(work=False):
        job = await runner.enqueue(service.block)
    async with worker(tmp_db) as running:
        await running.heard("blocked")
        began = time.perf_counter()
        running.send_signal(signal.SIGTERM)
        assert await running.ended() == 0
        assert time.perf_counter() - began <= GRACE_S + pace()
    assert await state(tmp_db, job.id) == ("queued", 0)


async def test_worker_of_one_queue_leaves_the_others_alone(stored: Stored) -> None:
    await enqueue(stored.path, "ada")
    replayed = await jobrunner("dead", "replay", stored.dead[0], "--store", stored.path)
    assert replayed.code == 0
    async with worker(stored.path, "--queue", "mail") as running:
        async with asyncio.timeout(20):
            while not await worker_pids(stored.path):
                pass
        moved = await jobrunner("status", "--store", stored.path, "--json")
        assert [one["queues"] for one in moved.json["workers"]] == [{"mail": 2}]
        assert "queue default has waiting jobs and no worker serves it" in moved.json["problems"]
        running.send_signal(signal.SIGTERM)
        assert await running.ended() == 0


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("--queue", "mail=0"), 7, "write a whole number from 1"),
        (("--queue", "mail=many"), 2, "write mail=50"),
        (("--queue", "mial"), 4, "has no queue 'mial'"),
    ],
)
async def test_worker_with_a_queue_that_cannot_be_says_what_to_write(
    stored: Stored, words: tuple[str, ...], code: int, hint: str
) -> None:
    answer = await jobrunner(
        "worker", "tests.cli.service:create_runner", "--factory", *words, env=stored.env
    )
    assert (answer.code, hint in answer.err) == (code, True), answer.err


async def test_worker_of_an_app_without_jobs_ends_and_says_why(stored: Stored) -> None:
    answer = await jobrunner(
        "worker", "tests.cli.service:create_nothing", "--factory", env=stored.env
    )
    assert (answer.code, "opens no runner" in answer.err) == (7, True), answer.err


async def test_worker_whose_file_is_replaced_ends_with_the_store_s_code(tmp_db: Path) -> None:
    async with worker(tmp_db) as running:
        async with asyncio.timeout(20):
            while not await worker_pids(tmp_db):
                pass
        tmp_db.rename(tmp_db.with_name("moved.db"))
        assert await running.ended() == 6


async def test_second_interrupt_ends_a_worker_at_once(tmp_db: Path) -> None:
    async with worker(tmp_db, grace="30") as running:
        runner = JobRunner(tmp_db, queues={"default": 1, "mail": 1})
        runner.include(service.tasks)
        async with runner.running(work=False):
            await runner.enqueue(service.hold)
        await running.heard("held")
        running.send_signal(signal.SIGINT)
        assert await running.lives(0.5)
        began = time.perf_counter()
        running.send_signal(signal.SIGINT)
        assert await running.ended() == 130
        assert time.perf_counter() - began < 2
