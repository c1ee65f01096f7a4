"""Tasks of a document's workflow, whose pages are members of a batch."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jobrunner import JobContext, JobRunner
from tests.support.engine import Gate


class Page(BaseModel):
    """A page of a document."""

    n: int
    extra: bytes = b""


class Shop:
    """A runner with tasks that stand for those of a document's workflow."""

    def __init__(self, file: Path) -> None:
        self.jobs = jobs = JobRunner(file, queues={"default": 20})
        self.gate = Gate()
        self.seen: list[Any] = []
        self.broken: set[int] = set()

        @jobs.task(max_attempts=1)
        async def resize(n: int) -> Page:
            if n in self.broken:
                raise ValueError(f"page {n} is broken")
            return Page(n=n)

        @jobs.task
        async def wait(n: int) -> int:
            await self.gate.enter(n)
            return n

        @jobs.task
        async def publish(job: JobContext, doc: int) -> str:
            pages = [page.n async for page in job.batch.results(resize)]
            batch = await job.batch.get()
            self.seen.append((doc, pages, batch.state))
            return f"published {doc}"

        @jobs.task
        async def ship(page: Page, express: bool = False) -> str:
            return f"{page.n} {express}"

        @jobs.task
        async def merge(pages: list[Page], title: str = "") -> list[int]:
            return [page.n for page in pages]

        @jobs.task
        async def nothing() -> None: ...

        self.resize, self.wait, self.publish = resize, wait, publish
        self.ship, self.merge, self.nothing = ship, merge, nothing
