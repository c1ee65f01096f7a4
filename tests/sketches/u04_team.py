"""SQLAlchemy AsyncSession and repositories, one transaction."""

from typing import Annotated

from fastapi import APIRouter, Depends
from jobrunner import Injected
from tests.sketches.u02_tutorial import AuditLog, Queue, SessionDep, jobs


class AuditRepo:
    def __init__(self, session: SessionDep) -> None:
        self.session = session

    def add(self, user_id: int, action: str) -> None:
        self.session.add(AuditLog(user_id=user_id, action=action))


Repo = Annotated[AuditRepo, Depends(AuditRepo)]
r = APIRouter()


@r.post("/o")
async def post(repo: Repo, queue: Queue, fails: bool = False) -> str:
    repo.add(1, "ORDER")
    job = await queue.enqueue(ship, 1)
    if fails:
        raise ValueError("after the enqueue")
    return job.id


@jobs.task(max_attempts=1)
async def ship(order: int, repo: Repo = Injected) -> int:
    repo.add(order, "SHIP")
    return order
