"""Reports and buries waiting jobs whose task no live worker knows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.logs import log_of
from jobrunner.store.protocol import Store
from jobrunner.tasks.spec import TaskSpec
from jobrunner.worker.events import Events
from jobrunner.worker.health import first_of
from jobrunner.worker.peers import Peers

logger = log_of("jobrunner")

BURIED_PER_SLICE: Final = 500


class UnknownTasks:
    """Reports waiting jobs whose task no live worker knows, and finally buries them."""

    def __init__(
        self,
        store: Store,
        peers: Peers,
        *,
        specs: Mapping[str, TaskSpec],
        bury_after_us: int,
        events: Events,
        wake: Callable[[], None],
    ) -> None:
        self.due_since: dict[str, int] = {}
        """The time (µs) at which the oldest job became due, by unknown task."""
        self._store = store
        self._peers = peers
        self._specs = specs
        self._bury_after_us = bury_after_us
        self._events = events
        self._wake = wake
        self._reported: set[str] = set()

    async def check(self) -> None:
        """Report newly found unknown tasks, and bury jobs that have waited too long."""
        waiting = await self._store.jobs.waiting_tasks()
        if not self._known().issuperset(task for _, task, _ in waiting):
            # Refresh first: a worker of a new version may have joined and enqueued since the last refresh.
            await self._peers.refresh()
        known = self._known()
        unknown: dict[str, int] = {}
        news: list[tuple[str, str]] = []
        now = now_us()
        too_old = now - self._bury_after_us
        for queue, task, due_since in waiting:
            if task in known:
                continue
            unknown[task] = min(due_since, unknown.get(task, due_since))
            if task not in self._reported:
                self._reported.add(task)
                news.append((task, queue))
            if due_since < too_old:
                await self._bury(queue, task, too_old, now)
        if news:
            self._report(news)
        self.due_since = unknown
        self._reported &= set(unknown)

    def _known(self) -> frozenset[str]:
        return self._peers.tasks.union(self._specs)

    def _report(self, news: Sequence[tuple[str, str]]) -> None:
        hours = self._bury_after_us / (3600 * SECOND_US)
        (task, queue), *others = news
        if not others:
            logger.warning(
                "jobs of task '%s' wait in queue '%s', and no worker knows it: register it, or keep its old name with"
                " @jobs.task(aliases=['%s']); after %.0f h they become dead letters",
                task,
                queue,
                task,
                hours,
            )
            return
        logger.warning(
            "jobs of %d tasks that no worker knows wait: %s: register them, or keep their old names with"
            " @jobs.task(aliases=[...]); after %.0f h they become dead letters",
            len(news),
            first_of([task for task, _ in news]),
            hours,
        )

    async def _bury(self, queue: str, task: str, due_before: int, now: int) -> None:
        while True:
            buried = await self._store.dead_letters.bury_waiting(
                queue,
                task,
                due_before=due_before,
                reason="unknown_task",
                error=f"no worker knows the task {task!r}",
                now=now,
                limit=BURIED_PER_SLICE,
            )
            for id in buried:
                self._events.notify("dead", id)
            if buried:
                logger.error(
                    "%d job(s) of task %s are dead letters (unknown_task), since no worker knows it: %s",
                    len(buried),
                    task,
                    first_of(buried),
                )
                # The jobs behind them in a chain are due now.
                self._wake()
            if len(buried) < BURIED_PER_SLICE:
                return
