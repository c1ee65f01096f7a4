"""Limits and jobs of lanes, made through the store's public verbs alone."""

from collections.abc import Iterable, Sequence

from jobrunner.core.limits import Limit, LimitName, LimitScope, RateLimit
from jobrunner.core.model import Claimed, Enqueue
from jobrunner.store.protocol import Store
from tests.support.factories import NOW, WORKER, claim, new

MANY_TASKS = ("work", "play", "sync")
"""The tasks of all jobs in these tests; those of ``sync`` have lanes."""


async def limit(
    store: Store,
    scope: LimitScope,
    name: str,
    concurrency: int | None = None,
    *,
    rate: RateLimit | None = None,
    now: int = NOW,
) -> None:
    """Set a limit."""
    await store.limits.set(LimitName(scope, name), Limit(concurrency, rate), now=now)


def sync(key: object = 1, *, ordered: bool = False, **options: object) -> Enqueue:
    """Return a new job of a lane."""
    return new("sync", lane=f"sync[{key}]", ordered=ordered, **options)  # type: ignore[arg-type]


async def take(
    store: Store, slots: int = 1_000, *, now: int = NOW, worker: int = WORKER
) -> Sequence[Claimed]:
    """Claim jobs of all tasks in all queues."""
    return await claim(
        store, "default", "mail", tasks=MANY_TASKS, slots=slots, now=now, worker=worker
    )


def ids(jobs: Iterable[Claimed | Enqueue]) -> list[str]:
    """Return the ids of jobs, in their order."""
    return [job.id for job in jobs]
