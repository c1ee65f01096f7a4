"""One file, one evening."""

from pydantic import BaseModel

from fastapi import FastAPI
from jobrunner import Job, JobRunner
from jobrunner.fastapi import Queue

jobs = JobRunner("sqlite:///solo.db")
app = FastAPI(lifespan=jobs.lifespan)


class UserCreate(BaseModel):
    username: str
    email: str


@jobs.task
async def send_welcome_email(email: str, username: str) -> None: ...


@app.post("/register", status_code=202)
async def register(user: UserCreate, queue: Queue) -> Job[None]:
    return await queue.enqueue(send_welcome_email, user.email, user.username)
