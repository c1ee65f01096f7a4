"""A router without a guard answers local host names only, against DNS rebinding."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import APIRouter, FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from jobrunner import JobRunner
from jobrunner.fastapi import bearer
from jobrunner.fastapi.api.hosts import ONLY_LOCAL, is_local
from jobrunner.fastapi.api.problems import MEDIA_TYPE
from tests.fastapi.conftest import Documented
from tests.fastapi.routes import ACTS, READS, statuses

LOCAL = [
    "localhost",
    "localhost:8000",
    "LocalHost:8000",
    "localhost.",
    "localhost.:8000",
    "jobs.localhost",
    "a.b-c_d.localhost:80",
    "127.0.0.1",
    "127.0.0.1:8000",
    "127.0.0.1.",
    "192.168.1.7:8000",
    "0.0.0.0:8000",
    "8.8.8.8",
    "[::1]",
    "[::1]:8000",
    "[2001:DB8::7]:443",
    "[::ffff:127.0.0.1]",
    "testserver",
    "testserver:80",
    "SHOP_web-1:8000",
    "localhost:",
]

FOREIGN = [
    "evil.example",
    "evil.example:8000",
    "EVIL.EXAMPLE.",
    "evil.example.:8000",
    "127.0.0.1.nip.io",
    "127.0.0.1.evil.example:8000",
    "localhost.evil.example",
    "localhost.evil",
    "evillocalhost.example",
    "localhost.localdomain",
    "shop.local",
    "host.docker.internal:8000",
    "127.0.0",
    "127.0.0.1.1",
    "256.0.0.1",
    "0127.0.0.1",
    "127.0.0.1:8000:80",
    "127.0.0.1, evil.example",
    "evil.example#.localhost",
    "evil.example/.localhost",
    "evil.example\\.localhost",
    "user@localhost",
    "evil.example@localhost",
    "localhost@evil.example",
    ".localhost",
    "a..localhost",
    "localhost..",
    "localhost:80a",
    "[::1",
    "::1",
    "[127.0.0.1]",
    "[evil.example]",
    "[::1].evil.example",
    "[::1]evil.example",
    "",
    ":8000",
    ".",
    "localhost\n",
    "lo\u0441alhost.evil",
    "evil\u3002example",
    "\xe9vil",
    "a b",
    "localhost" + ".evil" * 2_000,
]


@pytest.mark.parametrize("host", LOCAL)
def test_name_of_this_machine_is_local(host: str) -> None:
    assert is_local(host)


@pytest.mark.parametrize("host", FOREIGN, ids=lambda host: host[:30])
def test_name_that_a_site_of_the_web_can_have_is_not_local(host: str) -> None:
    assert not is_local(host)


def opened(database: Path, *, act: str | None = None) -> FastAPI:
    jobs = JobRunner(f"sqlite:///{database}", queues={"default": 1, "mail": 1})
    app = FastAPI(lifespan=jobs.lifespan)
    guard = None if act is None else bearer(act)
    app.include_router(jobs.router(act=guard, insecure=True), prefix="/jobs")
    return app


@pytest.fixture(scope="module")
def open_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Open an app whose jobs router has no guard, for tests that store nothing."""
    with TestClient(opened(tmp_path_factory.mktemp("open") / "jobs.db")) as client:
        yield client


def test_every_route_of_an_open_router_refuses_another_host_with_the_line_to_write(
    tmp_db: Path,
) -> None:
    app = opened(tmp_db)
    with TestClient(app, headers={"host": "evil.example:8000"}) as client:
        client.event_hooks = {"response": [Documented(app.openapi()["paths"])]}
        for method, path in [("GET", path) for path in READS] + ACTS:
            answer = client.request(method, path)
            assert (answer.status_code, answer.headers["content-type"]) == (403, MEDIA_TYPE)
            problem = answer.json()
            assert (problem["code"], problem["type"]) == (
                "host-not-local",
                "urn:jobrunner:host-not-local",
            )
            assert "not as 'evil.example:8000'" in problem["detail"]
            assert "open it as http://127.0.0.1" in problem["detail"]
            assert "jobs.router(read=bearer(TOKEN))" in problem["detail"]
        assert client.get("/jobs", headers={"host": "127.0.0.1:8000"}).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "[::1]:8000", "shop.localhost", "web:80"])
def test_every_route_of_an_open_router_answers_under_a_local_name(tmp_db: Path, host: str) -> None:
    assert statuses(opened(tmp_db), {"host": host}) == ({200, 404}, {200, 204, 404, 422})


def test_guard_that_is_given_stands_in_place_of_the_name(tmp_db: Path) -> None:
    """A client with the token cannot be another site's page."""
    app = opened(tmp_db, act="token")
    foreign = {"host": "shop.example"}
    assert statuses(app, foreign) == ({403}, {401})
    assert statuses(app, foreign | {"authorization": "Bearer token"})[1] == {200, 204, 404, 422}
    jobs = JobRunner(f"sqlite:///{tmp_db}", queues={"default": 1, "mail": 1})
    guarded = FastAPI(lifespan=jobs.lifespan)
    guarded.include_router(jobs.router(read=lambda: None, insecure=True), prefix="/jobs")
    assert statuses(guarded, foreign) == ({200, 404}, {200, 204, 404, 422})


@pytest.mark.parametrize(
    "header", ["x-forwarded-host", "forwarded", "x-original-host", "x-host", "origin"]
)
@pytest.mark.parametrize(("host", "status"), [("evil.example", 403), ("localhost", 200)])
def test_what_a_proxy_says_of_the_host_is_not_asked(
    open_client: TestClient, header: str, host: str, status: int
) -> None:
    other = {"evil.example": "localhost", "localhost": "evil.example"}[host]
    said = f"host={other}" if header == "forwarded" else other
    answer = open_client.get("/jobs", headers={"host": host, header: said})
    assert answer.status_code == status


def test_router_of_a_mounted_app_refuses_another_host(tmp_db: Path) -> None:
    inner = opened(tmp_db)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with inner.router.lifespan_context(inner):
            yield

    outer = FastAPI(lifespan=lifespan)
    outer.mount("/v1", inner)
    with TestClient(outer) as client:
        assert client.get("/v1/jobs").status_code == 200
        answer = client.get("/v1/jobs", headers={"host": "evil.example"})
        assert (answer.status_code, answer.json()["code"]) == (403, "host-not-local")


def test_host_that_is_long_or_odd_is_quoted_in_part_and_safely(tmp_db: Path) -> None:
    with TestClient(opened(tmp_db)) as client:
        for host in (b"a." * 4_000, b"evil.example\x9b31m", b'evil.example"<script>'):
            answer = client.get("/jobs", headers={b"host": host})
            assert answer.status_code == 403
            assert len(answer.content) < 600
            assert b"\x9b" not in answer.content
            assert answer.headers["x-content-type-options"] == "nosniff"


def test_guard_also_stands_before_a_websocket() -> None:
    router = APIRouter()

    @router.websocket("/events", dependencies=[ONLY_LOCAL])
    async def events(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    app = FastAPI()
    app.include_router(router)
    client = TestClient(app)
    with client.websocket_connect("/events", headers={"host": "localhost"}):
        pass
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/events", headers={"host": "evil.example"}),
    ):
        pass


GET = "GET /jobs HTTP/1.1\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (f"{GET}Host: 127.0.0.1:8000\r\n", 200),
        (f"{GET}Host: evil.example:8000\r\n", 403),
        (f"{GET}host:   EVIL.example.  \r\n", 403),
        (f"{GET}Host: localhost\r\nX-Forwarded-Host: evil.example\r\n", 200),
        (f"{GET}Host: evil.example\r\nX-Forwarded-Host: localhost\r\n", 403),
        ("GET /jobs HTTP/1.0\r\n", 200),  # a probe; no browser leaves its host out
        ("GET /jobs HTTP/1.0\r\nHost: evil.example\r\n", 403),
    ],
)
async def test_request_to_a_real_server_is_judged_by_its_host(
    tmp_db: Path, request_: str, status: int
) -> None:
    assert await answered(opened(tmp_db), request_) == status


@pytest.mark.parametrize("hosts", [("localhost", "evil.example"), ("evil.example", "localhost")])
async def test_request_with_two_hosts_is_refused(tmp_db: Path, hosts: tuple[str, str]) -> None:
    both = "".join(f"Host: {host}\r\n" for host in hosts)
    assert await answered(opened(tmp_db), GET + both) in (400, 403)


async def answered(app: FastAPI, request: str) -> int:
    """Send a request, byte for byte, to a real uvicorn; return the status of its answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            # The kernel keeps the connection until the server has started.
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(f"{request}\r\n".encode())
            status_line = await reader.readline()
            writer.close()
            await writer.wait_closed()
        finally:
            server.should_exit = True
            await serving
    return int(status_line.split()[1])
