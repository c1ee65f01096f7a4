"""The application that a separate process serves for a browser: it works, and has a dashboard."""

import os

from fastapi import FastAPI

from jobrunner import JobRunner


def create_app() -> FastAPI:
    """Return the application on the file that the environment names."""
    jobs = JobRunner(os.environ["SITE_FILE"], grace=0.5)
    app = FastAPI(lifespan=jobs.lifespan)
    app.include_router(jobs.dashboard(insecure=True), prefix="/open")
    return app
