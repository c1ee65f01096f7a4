"""Builds the dashboard from the pages of each noun."""

from collections.abc import Callable, Mapping

from fastapi import APIRouter, Depends

from jobrunner.fastapi.dashboard.assets import add_assets
from jobrunner.fastapi.dashboard.audit import add_audit
from jobrunner.fastapi.dashboard.batches import add_batches
from jobrunner.fastapi.dashboard.cancel_all import add_cancel_all
from jobrunner.fastapi.dashboard.dead_letters import add_dead_letters
from jobrunner.fastapi.dashboard.groups import add_groups
from jobrunner.fastapi.dashboard.guards import Guard, depends_on, guards_of
from jobrunner.fastapi.dashboard.job import add_job
from jobrunner.fastapi.dashboard.jobs import add_jobs
from jobrunner.fastapi.dashboard.limits import add_limits
from jobrunner.fastapi.dashboard.links import LinkTemplates
from jobrunner.fastapi.dashboard.overview import add_overview
from jobrunner.fastapi.dashboard.pages import Pages
from jobrunner.fastapi.dashboard.queues import add_queues
from jobrunner.fastapi.dashboard.replay import add_edit
from jobrunner.fastapi.dashboard.route import page_route
from jobrunner.fastapi.dashboard.run_all import add_run_all
from jobrunner.fastapi.dashboard.schedules import add_schedules
from jobrunner.fastapi.dashboard.session import add_last, add_session
from jobrunner.fastapi.dashboard.site import Site
from jobrunner.worker.settings import Settings


def build_dashboard(
    queue: Callable[..., object],
    *,
    read: Guard | None = None,
    act: Guard | None = None,
    arguments: Guard | None = None,
    actor: Guard | None = None,
    insecure: bool = False,
    links: Mapping[str, str],
    settings: Settings,
) -> APIRouter:
    """Return the router with all pages.

    Include it under a prefix: ``app.include_router(..., prefix="/jobs/ui")``.

    Args:
        queue: the dependency that provides the ``JobQueue``; also its key in ``app.dependency_overrides``.
        read: the guard of every page.
        act: the guard of every form that changes something; by default ``read``.
        arguments: the guard of what shows arguments and results; by default ``act``.
        actor: the dependency that returns the viewer's name.
        insecure: without ``read``, answer every request that names a local host.
        links: templates of addresses for the page of a job, by name.
        settings: of the runner: what is redacted, and how long jobs are kept.

    Raises:
        ConfigurationError: There is no ``read``, and ``insecure`` is not set; or a guard is no dependency, or a
            link is invalid.
    """
    site = Site(
        guards_of(read, act, arguments, insecure=insecure), settings, LinkTemplates.checked(links)
    )
    router = APIRouter(route_class=page_route(site), include_in_schema=False)
    named = None if actor is None else depends_on("actor", actor)
    pages = Pages(router, site, Depends(queue), named)
    add_assets(router, site.assets)
    add_session(router, site)
    add_overview(pages)
    add_jobs(pages)
    add_cancel_all(pages)
    add_run_all(pages)
    add_edit(pages)
    add_job(pages)
    add_dead_letters(pages)
    add_groups(pages)
    add_batches(pages)
    add_schedules(pages)
    add_queues(pages)
    add_limits(pages)
    add_audit(pages)
    add_last(router, site)
    return router
