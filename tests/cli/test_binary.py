"""The shop as one file: built, started, killed in mid-job, started again."""

import asyncio
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobrunner.cli import exit_codes
from jobrunner.store.sqlite.host.processes import that_have_open
from tests.cli.commands import children_of, client, ready
from tests.support.pace import pace
from tests.support.ports import free_port
from tests.support.processes import CHECKOUT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.binary,
    pytest.mark.timeout(300),
]

MEGABYTES = 40
GRACE_S = 10
BUILD_S = 180
TOKEN = "t"  # noqa: S105 - of a shop that lives for one test


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the executable, as ``just binary`` does."""
    if find_spec("PyInstaller") is None:
        pytest.skip(
            "PyInstaller IS NOT HERE: the single-file executable was neither built nor tried"
        )
    place = tmp_path_factory.mktemp("binary")
    build = subprocess.run(
        [
            *(sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN"),
            *("--distpath", str(place / "dist"), "--workpath", str(place / "build")),
            "app/shop.spec",
        ],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    return place / "dist" / "shop"


class MailServer:
    """Hangs up on every client at first, and then holds on to the next one."""

    def __init__(self) -> None:
        self.port = free_port()
        self.holds = False
        self.held = asyncio.Event()
        self.gone = asyncio.Event()
        """The held client's process has ended: the kernel has closed its connection."""
        self.talks: set[asyncio.Task[None]] = set()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Greet nobody."""
        task = asyncio.current_task()
        assert task is not None
        self.talks.add(task)
        task.add_done_callback(self.talks.discard)
        if self.holds:
            self.held.set()
            await reader.read()
            self.gone.set()
        writer.close()


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    """Listen for mail."""
    server = MailServer()
    async with await asyncio.start_server(server.talk, "127.0.0.1", server.port):
        yield server
        # The clients have ended by now, so each conversation does too.
        await asyncio.wait_for(asyncio.gather(*server.talks), 10)


class Shop:
    """The executable in an empty directory, with an empty environment: no PATH, no Python, no zone files."""

    def __init__(self, binary: Path, directory: Path, **settings: object) -> None:
        self.binary = binary
        self.directory = directory
        self.database = directory / "data" / "shop.db"
        self.unpacks_to = directory / "tmp"
        self.unpacks_to.mkdir(exist_ok=True)
        self.env = {
            "TMPDIR": str(self.unpacks_to),
            "PYTHONTZPATH": "",
            "SHOP_ADMIN_TOKEN": TOKEN,
            "SHOP_MAIL_ATTEMPTS": "2",
            "SHOP_MAIL_WAIT": "0.01",
            **{f"SHOP_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.started_in_s: list[float] = []

    async def run(self, *words: str) -> tuple[int, str]:
        """Run a command to its end; return its exit code and what it has said."""
        process = await asyncio.create_subprocess_exec(
            self.binary, *words, cwd=self.directory, env=self.env, stdout=subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, out.decode()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx2.AsyncClient]]:
        """Serve, and wait until it answers."""
        port = free_port()
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            self.binary, "serve", "--port", str(port), cwd=self.directory, env=self.env
        )
        try:
            async with client(port) as http:
                http.headers["Authorization"] = f"Bearer {TOKEN}"
                await ready(http)
                self.started_in_s.append(time.perf_counter() - began)
                yield process, http
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def folders(self) -> list[str]:
        """Return what it has unpacked to and not removed."""
        return [path.name for path in self.unpacks_to.iterdir() if path.name.startswith("_MEI")]


async def until(holds: Callable[[], bool]) -> None:
    """Ask again and again until it holds; for what the kernel or another process does."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - nobody says when
            await asyncio.sleep(0.01)  # noqa: TID251 - the same


async def register(http: httpx2.AsyncClient, name: str) -> str:
    """Register somebody; return the id of the mail's job."""
    body = {"username": name, "email": f"{name}@example.com"}
    answer = await http.post("/register", json=body)
    assert answer.status_code == 201, answer.text
    id: str = answer.json()["job_id"]
    return id


async def job(http: httpx2.AsyncClient, id: str, state: str) -> dict[str, Any]:
    """Ask for a job until it is in a state."""
    async with asyncio.timeout(30):
        while True:
            found: dict[str, Any] = (await http.get(f"/jobs/{id}")).json()
            if found["state"] == state:
                return found


async def counted(http: httpx2.AsyncClient, **labels: str) -> None:
    """Ask for the metrics until a job with these labels is counted, which takes a second."""
    async with asyncio.timeout(30):
        while True:
            answer = await http.get("/metrics")
            assert answer.status_code == 200, answer.text
            if any(
                family.name == "jobrunner_jobs" and labels.items() <= sample.labels.items()
                for family in text_string_to_metric_families(answer.text)
                for sample in family.samples
                if sample.value
            ):
                return


async def test_binary_killed_in_mid_job_and_started_again_has_the_job_done_and_the_dead_letters(
    binary: Path, tmp_path: Path, mail: MailServer
) -> None:
    assert binary.stat().st_size <= MEGABYTES * 1_000_000
    directory = tmp_path / "empty"
    directory.mkdir()
    shop = Shop(
        binary,
        directory,
        smtp_host="127.0.0.1",
        smtp_port=mail.port,
        smtp_starttls="false",
    )
    async with shop.serving() as (process, http):
        dead = await register(http, "bob")
        await job(http, dead, "dead")
        mail.holds = True
        lost = await register(http, "ada")
        await asyncio.wait_for(mail.held.wait(), 30)
        process.send_signal(signal.SIGKILL)  # the process that the user sees: the one that unpacks
        await process.wait()
        await asyncio.wait_for(mail.gone.wait(), 10)
    assert list(that_have_open(shop.database)) == []
    assert len(shop.folders()) == 1
    code, said = await shop.run("dead", "list", "--json")
    assert (code, dead in said, lost in said) == (0, True, False)

    again = Shop(binary, directory)
    async with again.serving() as (process, http):
        done = await job(http, lost, "succeeded")
        assert [attempt["outcome"] for attempt in done["history"]] == ["lost", "succeeded"]
        await counted(http, outcome="succeeded", task="send_welcome_email")
        letters = (await http.get("/jobs/dead-letters")).json()["items"]
        assert [letter["id"] for letter in letters] == [dead]
        page = await http.get(f"/jobs/ui/jobs/{dead}")
        assert page.status_code == 200
        assert f"jobrunner dead replay {dead}" in page.text
        (sheet,) = re.findall(r'href="\.\./(static/style\.[0-9a-f]+\.css)"', page.text)
        assert (await http.get(f"/jobs/ui/{sheet}")).headers["content-type"].startswith("text/css")
        assert len(list((directory / "data" / "outbox").iterdir())) == 1
        # The old one is removed beside the start.
        await until(lambda: len(again.folders()) == 1)
        code, said = await again.run("doctor")
        assert (code, "time zones: those of the package tzdata" in said) == (0, True), said
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 143
    assert again.folders() == []

    best = min(shop.started_in_s + again.started_in_s)
    sys.stderr.write(
        f"binary: {binary.stat().st_size / 1e6:.1f} MB, first 200 after {best:.2f} s\n"
    )


C_LIBRARY = ("c", "dl", "gcc_s", "m", "pthread", "rt", "util", "z")
"""The libraries that the executable takes from the machine: the parts of the C library."""


async def test_D20_binary_as_process_1_of_a_root_with_nothing_else_in_it_serves_and_drains(
    binary: Path, tmp_path: Path
) -> None:
    unshare = shutil.which("unshare")
    enter = [*(unshare or "", "-Urpf", "--mount-proc", f"--root={tmp_path}", "--wd=/data")]
    libraries = [
        library
        for directory in ("/lib64", f"/lib/{os.uname().machine}-linux-gnu")
        for name in ("ld-linux*", *(f"lib{part}.so.*" for part in C_LIBRARY))
        for library in Path(directory).glob(name)
    ]
    for directory in ("data", "tmp", "proc"):
        (tmp_path / directory).mkdir()
    for source in libraries:
        target = tmp_path / source.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    shutil.copy(binary, tmp_path / "shop")
    tried = await asyncio.create_subprocess_exec(*enter, "/shop", "--version") if unshare else None
    if tried is None or await tried.wait():
        pytest.skip(
            "A ROOT OF ITS OWN IS NOT TO BE HAD HERE: the executable was tried beside Python"
        )
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *enter, "/shop", "serve", "--port", str(port), env={"SHOP_ADMIN_TOKEN": TOKEN}
    )
    try:
        async with client(port) as http:
            http.headers["Authorization"] = f"Bearer {TOKEN}"
            await ready(http)
            await job(http, await register(http, "ada"), "succeeded")
        (inside,) = children_of(process.pid)
        os.kill(inside, signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), GRACE_S + 1) == 143
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    # The program itself is process 1: without an init, nothing is left behind there either.
    assert [
        path.name for path in (tmp_path / "tmp").iterdir() if path.name.startswith("_MEI")
    ] == []


async def test_D7_binary_drains_within_the_grace_at_sigterm(
    binary: Path, tmp_path: Path, mail: MailServer
) -> None:
    shop = Shop(
        binary,
        tmp_path,
        smtp_host="127.0.0.1",
        smtp_port=mail.port,
        smtp_starttls="false",
        smtp_timeout=60,
    )
    mail.holds = True
    async with shop.serving() as (process, http):
        id = await register(http, "ada")
        await asyncio.wait_for(mail.held.wait(), 30)
        began = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 143
        assert time.perf_counter() - began <= GRACE_S + pace()
    code, said = await shop.run("jobs", "show", id)
    assert (code, "queued" in said, "released" in said) == (0, True, True)


async def place_order(http: httpx2.AsyncClient, item: str) -> dict[str, Any]:
    """Order something; return the order's only batch."""
    body = {"email": "ada@example.com", "item": item}
    answer = await http.post("/orders", json=body)
    assert answer.status_code == 201, answer.text
    name = f"order:{answer.json()['order_id']}"
    listed = (await http.get("/jobs/batches", params={"name": name})).json()
    (batch,) = listed["items"]
    return {**batch, "order_id": answer.json()["order_id"]}


async def ended_batch(http: httpx2.AsyncClient, id: str) -> dict[str, Any]:
    """Ask for a batch until it has ended."""
    async with asyncio.timeout(30):
        while True:
            found: dict[str, Any] = (await http.get(f"/jobs/batches/{id}")).json()
            if found["state"] != "running":
                return found


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest) -> dict[str, object]:
    """Return the shop's settings of each kind of store in turn."""
    if request.param == "sqlite":
        return {}
    return {"database": request.getfixturevalue("bare_postgres_url")}


async def test_binary_killed_in_a_batch_goes_on_with_it_and_calls_back_once(
    binary: Path, tmp_path: Path, mail: MailServer, where: dict[str, object]
) -> None:
    shop = Shop(
        binary,
        tmp_path,
        **where,
        smtp_host="127.0.0.1",
        smtp_port=mail.port,
        smtp_starttls="false",
        smtp_timeout=60,
    )
    mail.holds = True
    async with shop.serving() as (process, http):
        batch = await place_order(http, "engine")
        await asyncio.wait_for(mail.held.wait(), 30)
        code, said = await shop.run("batches", "show", batch["id"], "--json")
        shown = json.loads(said)
        assert (code, shown["state"], shown["total"]) == (0, "running", 2)
        callback = shown["at_end"]["id"]
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await asyncio.wait_for(mail.gone.wait(), 10)

    # Without a mail server, mails go to a directory.
    again = Shop(binary, tmp_path, **where)
    async with again.serving() as (_, http):
        ended = await ended_batch(http, batch["id"])
        assert (ended["state"], ended["succeeded"], ended["total"]) == ("succeeded", 2, 2)
        done = await job(http, callback, "succeeded")
        assert [attempt["outcome"] for attempt in done["history"]] == ["succeeded"]
        order = (await http.get(f"/orders/{batch['order_id']}")).json()
        assert order["status"] == "at_warehouse"
        graph = (await http.get(f"/jobs/batches/{batch['id']}/graph")).json()
        assert len(graph["jobs"]) == 3
        page = await http.get(f"/jobs/ui/batches/{batch['id']}")
        assert (page.status_code, "<svg" in page.text) == (200, True)
        code, said = await again.run("batches", "list", "--json")
        assert (code, [one["id"] for one in json.loads(said)["items"]]) == (0, [batch["id"]])
        code, said = await again.run("doctor")
        # A server of tests runs without fsync, which is a problem.
        expected = exit_codes.PROBLEMS if where else 0
        assert (code, "workflows" in said) == (expected, False), said


async def test_binary_cancels_a_batch_from_the_command_line(
    binary: Path, tmp_path: Path, mail: MailServer
) -> None:
    shop = Shop(
        binary,
        tmp_path,
        smtp_host="127.0.0.1",
        smtp_port=mail.port,
        smtp_starttls="false",
        smtp_timeout=60,
    )
    mail.holds = True
    async with shop.serving() as (_, http):
        batch = await place_order(http, "engine")
        await asyncio.wait_for(mail.held.wait(), 30)
        code, said = await shop.run("batches", "cancel", batch["id"], "--yes")
        assert code == 0, said
        ended = await ended_batch(http, batch["id"])
        assert (ended["state"], ended["cancelled"]) == ("cancelled", 1)


async def test_binary_keeps_a_limit_and_changes_it(
    binary: Path, tmp_path: Path, mail: MailServer
) -> None:
    lane = 'send_welcome_email["example.com"]'
    shop = Shop(binary, tmp_path, smtp_host="127.0.0.1", smtp_port=mail.port, smtp_starttls="false")
    mail.holds = True
    async with shop.serving() as (_, http):
        code, said = await shop.run("limits", "set", "lane", lane, "--concurrency", "1")
        assert code == 0, said
        first = await register(http, "ada")
        await asyncio.wait_for(mail.held.wait(), 30)
        second = await register(http, "bob")
        assert (await job(http, second, "queued"))["waits"] == f"limit {lane} 1/1"
        await job(http, first, "running")
        code, said = await shop.run("limits", "list", "--json")
        assert (code, lane.replace('"', '\\"') in said) == (0, True), said
        answer = await http.delete("/jobs/limits", params={"scope": "lane", "name": lane})
        assert answer.status_code == 204, answer.text
        await job(http, second, "running")


async def test_binary_with_several_workers_leaves_none_behind_when_it_is_killed(
    binary: Path, tmp_path: Path
) -> None:
    shop = Shop(binary, tmp_path)
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        binary, "serve", "--workers", "2", "--port", str(port), cwd=tmp_path, env=shop.env
    )
    try:
        async with client(port) as http:
            await ready(http)
        assert len(list(that_have_open(shop.database))) >= 1
    finally:
        process.kill()
        await process.wait()
    await until(lambda: not that_have_open(shop.database))


@pytest.mark.parametrize("words", [("serve", "--port", "0"), ("worker",)], ids=" ".join)
async def test_binary_drains_at_one_interrupt_from_its_terminal(
    binary: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    # It reaches both processes, and the one passes it on to the other.
    shop = Shop(binary, tmp_path)
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *("setsid", "--ctty", "--wait", str(binary), *words),
        cwd=tmp_path,
        env=shop.env | {"PATH": os.environ["PATH"]},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    try:
        while b" starts: slots " not in said:
            said += await asyncio.to_thread(os.read, ours, 65536)
        os.write(ours, b"\x03")
        with suppress(OSError):  # how Linux says that the other side is gone
            while part := await asyncio.to_thread(os.read, ours, 65536):
                said += part
        assert await asyncio.wait_for(process.wait(), 20) == (130 if words[0] == "serve" else 0)
    finally:
        os.close(ours)
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (b"Application shutdown complete" if words[0] == "serve" else b"has stopped") in said
    assert shop.folders() == []
