"""The status router: what an application's users see of a job, what they do not, and for how long."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import httpx2
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.testclient import TestClient

from jobrunner import (
    Bury,
    ConfigurationError,
    Job,
    JobContext,
    JobDead,
    JobRunner,
    ResultNotStored,
)
from jobrunner.core.clock import now_us
from jobrunner.core.model import JobRow
from jobrunner.fastapi import bearer
from jobrunner.fastapi.status import stream
from jobrunner.queue.shared_reads import SharedReads
from tests.fastapi.conftest import NOBODY, Documented
from tests.support.engine import Gate, next_round, producer_of, soon, store_of

SECRET = "canary-7f3a"  # noqa: S105 - what no answer may show
NOTHING_YET = {"progress": None, "result": None, "result_omitted": False}


def anybody() -> None:
    """Let every client pass."""


class Shop:
    """An application whose users follow the jobs of one task."""

    def __init__(self, file: Path, guard: Any = anybody) -> None:
        self.jobs = jobs = JobRunner(file)
        self.gate = Gate()

        @jobs.task(aliases=["old_report"], max_attempts=1)
        async def report(job: JobContext, month: str, fails: bool = False) -> dict[str, Any]:
            job.progress(1, 3, "reading")
            await self.gate.enter()
            job.progress(3, 3, "written")
            if fails:
                raise Bury(f"no data: {SECRET}")
            return {"month": month}

        @jobs.task
        async def private(word: str) -> str:
            return word

        self.report, self.private = report, private
        self.app = FastAPI(lifespan=jobs.lifespan)
        self.app.include_router(jobs.status_router(guard, public=[report]), prefix="/status")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[httpx2.AsyncClient]:
        """Open the runner on this loop, and yield a client of the application."""
        async with self.jobs.running(self.app), self.client() as client:
            yield client

    def client(self, **more: Any) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(self.app, **more)
        return httpx2.AsyncClient(transport=transport, base_url="http://test")

    async def progressed(self) -> None:
        """Let a round store what the attempts have reported."""
        producer_of(self.jobs)._progress._period.end()
        await next_round(self.jobs)


@pytest.fixture
def shop(tmp_db: Path) -> Shop:
    return Shop(tmp_db)


async def status(client: httpx2.AsyncClient, job: Job[Any]) -> dict[str, Any]:
    answer = await client.get(f"/status/{job.id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


# -- what it shows ---------------------------------------------------------------------------------------


async def test_status_of_a_job_from_its_enqueue_to_its_result(shop: Shop) -> None:
    async with shop.open() as client:
        job = await shop.jobs.enqueue(shop.report.options(delay=3600), "may")
        waiting = {"id": job.id, "state": "scheduled", "done": False}
        assert await status(client, job) == waiting | NOTHING_YET
        await shop.jobs.reschedule(job.id, 0)
        await shop.gate.arrival()
        await shop.progressed()
        assert await status(client, job) == {
            "id": job.id,
            "state": "running",
            "done": False,
            "progress": {"done": 1, "total": 3, "message": "reading"},
            "result": None,
            "result_omitted": False,
        }
        shop.gate.open()
        await soon(job.result())
        assert await status(client, job) == {
            "id": job.id,
            "state": "succeeded",
            "done": True,
            "progress": {"done": 3, "total": 3, "message": "written"},
            "result": {"month": "may"},
            "result_omitted": False,
        }


@pytest.mark.parametrize("result", [object(), "x" * (2 << 20)], ids=["no JSON", "too long"])
async def test_status_says_that_a_result_was_not_stored(tmp_db: Path, result: object) -> None:
    """A status of `null` alone would mean that the task has returned None."""
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def make() -> object:
        return result

    @jobs.task
    async def make_none() -> None: ...

    app = FastAPI()
    app.include_router(jobs.status_router(anybody, public=[make, make_none]), prefix="/status")
    transport = httpx2.ASGITransport(app)
    async with (
        jobs.running(app),
        httpx2.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        job, none = await jobs.enqueue(make), await jobs.enqueue(make_none)
        with pytest.raises(ResultNotStored):
            await soon(job.result())
        await soon(none.result())
        found = await status(client, job)
        assert (found["state"], found["result"], found["result_omitted"]) == (
            "succeeded",
            None,
            True,
        )
        assert (await status(client, none))["result_omitted"] is False


async def test_status_of_a_dead_letter_is_failed_and_says_nothing_of_the_error(shop: Shop) -> None:
    async with shop.open() as client:
        shop.gate.open()
        job = await shop.jobs.enqueue(shop.report, "may", fails=True)
        with pytest.raises(JobDead):
            await soon(job.result())
        answer = await client.get(f"/status/{job.id}")
        assert (answer.json()["state"], answer.json()["done"]) == ("failed", True)
        for word in (SECRET, "Bury", "Traceback", "may"):
            assert word not in answer.text
        assert set(answer.json()) == {"id", "state", "done", *NOTHING_YET}


async def test_status_of_a_cancelled_job(shop: Shop) -> None:
    async with shop.open() as client:
        job = await shop.jobs.enqueue(shop.report.options(delay=3600), "may")
        await shop.jobs.cancel(job.id)
        found = await status(client, job)
        assert (found["state"], found["done"], found["result"]) == ("cancelled", True, None)


async def test_jobs_of_other_tasks_are_not_found_as_those_that_are_not_there(shop: Shop) -> None:
    async with shop.open() as client:
        job = await shop.jobs.enqueue(shop.private, SECRET)
        await soon(job.result())
        for path in ("", "/events"):
            hidden = await client.get(f"/status/{job.id}{path}")
            missing = await client.get(f"/status/{NOBODY}{path}")
            assert (hidden.status_code, missing.status_code) == (404, 404)
            assert hidden.text.replace(job.id, NOBODY) == missing.text
            assert SECRET not in hidden.text


async def test_jobs_under_a_former_name_of_the_task_are_found(shop: Shop) -> None:
    old = JobRunner(shop.jobs.settings.store)

    @old.task(name="old_report")
    async def report(month: str) -> None: ...

    async with old.running(work=False):
        job = await old.enqueue(report.options(delay=3600), "may")
    async with shop.open() as client:
        assert (await status(client, job))["state"] == "scheduled"


async def test_id_that_is_none_is_refused(shop: Shop) -> None:
    async with shop.open() as client:
        answer = await client.get("/status/7")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")


async def test_answers_are_kept_by_no_cache(shop: Shop) -> None:
    async with shop.open() as client:
        job = await shop.jobs.enqueue(shop.report.options(delay=3600), "may")
        answer = await client.get(f"/status/{job.id}")
        assert answer.headers["cache-control"] == "no-store"


# -- guards ----------------------------------------------------------------------------------------------


async def test_guard_lets_through_whom_it_knows_for_this_job(tmp_db: Path) -> None:
    owners: dict[str, str] = {}

    def owner(id: UUID, user: Annotated[str, Header()] = "") -> None:
        if owners.get(str(id)) != user:
            raise HTTPException(403, "not yours")

    shop = Shop(tmp_db, owner)
    async with shop.open() as client:
        job = await shop.jobs.enqueue(shop.report.options(delay=3600), "may")
        owners[job.id] = "ada"
        for path in (f"/status/{job.id}", f"/status/{job.id}/events"):
            assert (await client.get(path)).status_code == 403
            assert (await client.get(path, headers={"user": "eve"})).status_code == 403
        answer = await client.get(f"/status/{job.id}", headers={"user": "ada"})
        assert answer.status_code == 200


async def test_guard_answers_before_the_job_is_looked_for(tmp_db: Path) -> None:
    shop = Shop(tmp_db, bearer("token"))
    async with shop.open() as client:
        for path in ("", "/events"):
            assert (await client.get(f"/status/{NOBODY}{path}")).status_code == 401


@pytest.mark.parametrize("public", [[], [lambda: None], "report"])
def test_router_without_public_tasks_is_refused(shop: Shop, public: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"write public=\[make_report\]"):
        shop.jobs.status_router(anybody, public=public)


def test_router_whose_guard_is_no_dependency_is_refused(shop: Shop) -> None:
    guard: Any = "token"
    with pytest.raises(ConfigurationError, match=r"jobs\.status_router\(guard=\.\.\.\)"):
        shop.jobs.status_router(guard, public=[shop.report])


def test_every_answer_is_one_that_the_openapi_page_promises(tmp_db: Path) -> None:
    shop = Shop(tmp_db, bearer("token"))
    with TestClient(shop.app) as client:
        client.event_hooks = {"response": [Documented(shop.app.openapi()["paths"])]}
        assert client.portal is not None
        shop.gate.open()
        job = client.portal.call(lambda: shop.report.enqueue("may"))
        client.portal.call(job.result)
        headers = {"Authorization": "Bearer token"}
        for path in (job.id, NOBODY, "7"):
            for way in ("", "/events"):
                client.get(f"/status/{path}{way}")
                client.get(f"/status/{path}{way}", headers=headers)
    names = {
        one["operationId"] for path in shop.app.openapi()["paths"].values() for one in path.values()
    }
    assert names == {
        "status_get_job_status",
        "status_get_job_events",
        "status_get_batch_status",
    }


# -- events ----------------------------------------------------------------------------------------------


class Stream:
    """One client of a stream, on the loop of the test."""

    def __init__(self, app: Any, path: str, headers: dict[str, str] | None = None) -> None:
        self.started: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.chunks: asyncio.Queue[str | None] = asyncio.Queue()
        self._leave = asyncio.Event()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": ("127.0.0.1", 1),
            "server": ("test", 80),
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self._leave.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.started.set_result(message)
        elif message["body"]:
            self.chunks.put_nowait(message["body"].decode())
        if not message.get("more_body", True):
            self.chunks.put_nowait(None)

    async def next(self) -> str | None:
        """Return the next chunk; None at the end."""
        return await soon(self.chunks.get())

    async def event(self) -> tuple[str, dict[str, Any]]:
        """Return the id and the status of the next event."""
        text = await self.next()
        assert text is not None
        id, data, *rest = text.split("\n")
        assert rest == ["", ""]
        return id.removeprefix("id: "), json.loads(data.removeprefix("data: "))

    async def leave(self) -> None:
        """Go away, as a browser whose page is closed."""
        self._leave.set()
        await soon(self.task)

    async def end(self) -> None:
        """See the stream end by itself."""
        assert await self.next() is None
        await soon(self.task)


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stream find nothing by polling: what it sends was notified."""
    monkeypatch.setattr(SharedReads, "next_poll_s", lambda reads, id: 3600.0)


@pytest.mark.usefixtures("no_poll")
async def test_stream_sends_each_change_until_the_job_has_ended(shop: Shop) -> None:
    async with shop.open():
        job = await shop.jobs.enqueue(shop.report.options(delay=3600), "may")
        stream = Stream(shop.app, f"/status/{job.id}/events")
        started = await soon(stream.started)
        headers = {name.decode(): value.decode() for name, value in started["headers"]}
        assert started["status"] == 200
        assert headers["content-type"] == "text/event-stream"
        assert headers["cache-control"] == "no-store"
        assert headers["x-accel-buffering"] == "no"
        assert "content-length" not in headers
        assert await stream.next() == "retry: 2000\n\n"
        seen = [await stream.event()]
        await shop.jobs.reschedule(job.id, 0)
        seen.append(await stream.event())
        await shop.gate.arrival()
        await shop.progressed()
        seen.append(await stream.event())
        shop.gate.open()
        seen.append(await stream.event())
        await stream.end()
        states = [
            (data["state"], data["progress"] and data["progress"]["done"]) for _, data in seen
        ]
        assert states == [("scheduled", None), ("running", None), ("running", 1), ("succeeded", 3)]
        assert seen[-1][1]["result"] == {"month": "may"}
        assert len({id for id, _ in seen}) == 4


async def test_stream_finds_changes_of_other_processes_by_polling(shop: Shop) -> None:
    async with shop.open():
        job = await shop.jobs.enqueue(shop.report.options(delay=3600), "may")
        stream = Stream(shop.app, f"/status/{job.id}/events")
        await stream.next()
        await stream.event()
        # Beside the queue, as another process does. At a time long past it could be pruned before the stream sees it.
        await store_of(shop.jobs).jobs.cancel(job.id, now=now_us())
        assert (await stream.event())[1]["state"] == "cancelled"
        await stream.end()


@pytest.mark.usefixtures("no_poll")
async def test_stream_of_a_retry_goes_on(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    gate = Gate()

    @jobs.task(max_attempts=2)
    async def fails(job: JobContext) -> None:
        await gate.enter()
        raise ZeroDivisionError

    app = FastAPI(lifespan=jobs.lifespan)
    app.include_router(jobs.status_router(anybody, public=[fails]), prefix="/status")
    async with jobs.running(app):
        job = await jobs.enqueue(fails)
        await gate.arrival()
        stream = Stream(app, f"/status/{job.id}/events")
        await stream.next()
        assert (await stream.event())[1]["state"] == "running"
        gate.let()
        assert (await stream.event())[1]["state"] == "scheduled"
        await stream.leave()


async def test_client_that_connects_again_gets_what_it_has_not_seen(shop: Shop) -> None:
    async with shop.open() as client:
        job = await shop.jobs.enqueue(shop.report, "may")
        await shop.gate.arrival()
        path = f"/status/{job.id}/events"
        first = Stream(shop.app, path)
        await first.next()
        id, _ = await first.event()
        await first.leave()
        again = Stream(shop.app, path, {"Last-Event-ID": id})
        assert await again.next() == "retry: 2000\n\n"
        shop.gate.open()
        id, data = await again.event()
        while not data["done"]:
            id, data = await again.event()
        await again.end()
        # An EventSource connects again also after the end; 204 lets it stop.
        answer = await client.get(path, headers={"Last-Event-ID": id})
        assert (answer.status_code, answer.content) == (204, b"")
        late = await client.get(path, headers={"Last-Event-ID": "another"})
        assert f"id: {id}\n" in late.text


@pytest.mark.usefixtures("no_poll")
async def test_silent_stream_sends_comments(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "KEEP_ALIVE_S", 0.01)
    async with shop.open():
        job = await shop.jobs.enqueue(shop.report.options(delay=3600), "may")
        client = Stream(shop.app, f"/status/{job.id}/events")
        await client.next()
        await client.event()
        assert [await client.next() for _ in range(3)] == [": keep-alive\n\n"] * 3
        await client.leave()


@pytest.mark.usefixtures("no_poll")
async def test_streams_beyond_the_hundredth_are_refused_until_one_ends(shop: Shop) -> None:
    async with shop.open() as client:
        job = await shop.jobs.enqueue(shop.report.options(delay=3600), "may")
        path = f"/status/{job.id}/events"
        streams = [Stream(shop.app, path) for _ in range(stream.MOST_STREAMS)]
        for one in streams:
            await one.next()
            await one.event()
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "too-many-streams")
        assert answer.headers["retry-after"] == "5"
        assert (await client.get(f"/status/{job.id}")).status_code == 200
        await streams.pop().leave()
        streams.append(Stream(shop.app, path))
        assert await streams[-1].next() == "retry: 2000\n\n"
        for one in streams:
            await one.leave()


@pytest.mark.usefixtures("no_poll")
async def test_many_streams_of_one_job_read_it_twice_for_each_change(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shop.open():
        job = await shop.jobs.enqueue(shop.report.options(delay=3600), "may")
        streams = [Stream(shop.app, f"/status/{job.id}/events") for _ in range(50)]
        for one in streams:
            await one.next()
            await one.event()
        reads: list[str] = []
        store = store_of(shop.jobs).jobs
        get = store.get

        async def counted(id: str) -> JobRow | None:
            reads.append(id)
            return await get(id)

        monkeypatch.setattr(store, "get", counted)
        await shop.jobs.cancel(job.id)
        for one in streams:
            assert (await one.event())[1]["state"] == "cancelled"
            await one.end()
        assert reads == [job.id, job.id]


@pytest.mark.usefixtures("no_poll")
async def test_streams_end_with_the_runner(shop: Shop) -> None:
    async with shop.open():
        job = await shop.jobs.enqueue(shop.report.options(delay=3600), "may")
        client = Stream(shop.app, f"/status/{job.id}/events")
        await client.next()
        await client.event()
    await client.end()


async def test_stream_of_a_job_that_is_deleted_ends(shop: Shop) -> None:
    async with shop.open():
        job = await shop.jobs.enqueue(shop.report.options(delay=3600), "may")
        client = Stream(shop.app, f"/status/{job.id}/events")
        await client.next()
        await client.event()
        await shop.jobs.cancel(job.id)
        await client.event()
        await client.end()


async def test_status_works_beside_a_session_that_routes_join(tmp_db: Path) -> None:
    def get_session() -> None:
        raise AssertionError("the status opens no session")

    jobs = JobRunner(tmp_db, session=Depends(get_session))

    @jobs.task
    async def report() -> str:
        return "done"

    app = FastAPI(lifespan=jobs.lifespan)
    app.include_router(jobs.status_router(anybody, public=[report]), prefix="/status")
    async with jobs.running(app):
        job = await jobs.enqueue(report)
        await soon(job.result())
        client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test")
        async with client:
            assert (await status(client, job))["result"] == "done"
