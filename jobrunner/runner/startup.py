"""Checks the declarations of a runner, starts its parts, and stops them in reverse."""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

from jobrunner.core import clock
from jobrunner.core.errors import ConfigurationError, InvalidSchedule, InvalidTask, JobNotFound
from jobrunner.core.schedule import Definition
from jobrunner.core.shield import to_the_end
from jobrunner.queue.background import DurableBackgroundTasks
from jobrunner.queue.batches import children_of
from jobrunner.queue.job_batches import JobBatches
from jobrunner.queue.open import open_queue
from jobrunner.queue.queue import JobQueue, enqueuer_of, joined_by
from jobrunner.runner import harness, shutdown
from jobrunner.runner.asgi import App, placed
from jobrunner.runner.harness import OpenRunner
from jobrunner.store.committer import Committer
from jobrunner.store.open import open_store
from jobrunner.tasks import current_queue
from jobrunner.tasks.dependencies import Dependency, dependency_of
from jobrunner.tasks.schedule_options import Declaration
from jobrunner.tasks.spec import TaskSpec
from jobrunner.tasks.task import Task
from jobrunner.tasks.ticks import queues_of
from jobrunner.worker import thread_pool
from jobrunner.worker.dependencies import AttemptScope
from jobrunner.worker.events import EventName, Events, Hooks
from jobrunner.worker.grace import Grace
from jobrunner.worker.settings import Settings, checked_queues, unknown_queue
from jobrunner.worker.unawaited import watched
from jobrunner.worker.watches import Watches
from jobrunner.worker.worker import Worker


class StartupPlan(NamedTuple):
    """The checked options of a runner, before anything is opened."""

    settings: Settings
    store: str | os.PathLike[str]
    work: bool
    grace: Grace
    slots: Mapping[str, int]
    """The slots by name of each queue that this process serves."""
    specs: Mapping[str, TaskSpec]
    """The tasks by stored name and by alias."""
    schedules: Mapping[str, Definition]
    """The schedules that the code declares, by id."""
    session: Dependency | InvalidTask | None
    """The application's session as tasks resolve it, or the error if they cannot; None if there is none."""
    session_advice: str | None
    """The error message for a queue that does not join the session; None if the runner has no session."""
    hooks: Hooks
    around: AttemptScope


@asynccontextmanager
async def started(
    plan: StartupPlan,
    app: App | None,
    named: Callable[[JobQueue], AbstractContextManager[None]],
) -> AsyncIterator[None]:
    """Open the store and run the worker inside the block.

    After the block the worker has stopped, within its grace.

    Args:
        plan: The checked options.
        app: The application whose requests use the queue; None if there is none.
        named: Makes the queue the runner's inside a block.

    Raises:
        AlreadyRunning: Another runner is open on the application or on the file.
        StoreError: The store cannot be used; the message says why.
    """
    signals: set[int] = set()
    async with AsyncExitStack() as stack:
        stack.callback(lambda: thread_pool.warn_of_those_at_work() if signals else None)
        stack.enter_context(watched())
        taken_by = harness.current()
        # Under a harness the test moves the clock. It does not move that of a runner that was open before.
        of_clock = nullcontext() if taken_by is not None else clock.kept()
        opened, worker = await _open_parts(stack, plan, app, taken_by)
        queue, events = opened.queue, opened.events

        def begin_stop() -> None:
            worker.begin_stop()
            # At the signal: the server waits for the responses that stream changes before it ends the lifespan.
            events.watches.end()

        # Installed until the worker has stopped: a second SIGINT comes while we wait for that.
        call = asyncio.get_running_loop().call_soon_threadsafe
        stack.callback(
            shutdown.chain(lambda: call(begin_stop), lambda: call(plan.grace.cut), signals)
        )
        if app is not None:
            stack.enter_context(placed(queue, app))
        # Removed only after the worker has stopped: tasks that finish within the grace may still enqueue.
        stack.enter_context(named(queue))
        stack.push_async_callback(lambda: to_the_end(events.close(plan.grace)))
        stack.push_async_callback(lambda: to_the_end(worker.stop()))
        # Attempts run in copies of this context, so task.enqueue() in a task finds this runner.
        token = current_queue.running.set(enqueuer_of(queue))
        try:
            with of_clock:
                events.start()
                await worker.start()
        finally:
            current_queue.running.reset(token)
        if taken_by is not None:
            await stack.enter_async_context(taken_by.opened(opened))
        yield


async def _open_parts(
    stack: AsyncExitStack, plan: StartupPlan, app: App | None, taken_by: harness.Harness | None
) -> tuple[OpenRunner, Worker]:
    """Open the store, which the stack closes, and make the runner's parts.

    Nothing runs yet. Under a harness the worker runs no jobs and no chores.
    """
    settings, around = plan.settings, plan.around
    if taken_by is None:
        store = await open_store(plan.store, durability=settings.durability)
    else:
        store = await open_store(await taken_by.store_of(plan.store), durability="off")
    stack.push_async_callback(lambda: to_the_end(store.close()))
    committer = Committer(store)

    async def load(event: EventName, id: str) -> object | None:
        """Read the argument of a hook; None if the job has been replayed or deleted meanwhile."""
        try:
            return await (queue.dead_letters.get(id) if event == "dead" else queue.get(id))
        except JobNotFound:
            return None

    events = Events(plan.hooks, load, Watches(store.workers.notify_watchers))
    make_worker = partial(
        Worker,
        store,
        specs=plan.specs,
        schedules=plan.schedules,
        settings=settings,
        events=events,
        grace=plan.grace,
        around=around,
        session=plan.session,
        driven=taken_by is not None,
    )
    work = plan.work and taken_by is None
    worker = make_worker(committer, slots=plan.slots, work=work)
    queue = open_queue(
        store,
        committer,
        tasks=plan.specs,
        queues=frozenset(settings.queues),
        events=events,
        worker=worker,
        timezone=settings.timezone,
    )
    parts = enqueuer_of(queue).parts
    parts.session_advice = plan.session_advice
    if taken_by is None:
        parts.now_us = clock.system_us
    stack.push_async_callback(lambda: to_the_end(parts.reads.close()))
    around.makers["queue"] = partial(_plain, queue)
    around.supplies["joined queue"] = partial(joined_by, queue)
    around.makers["background"] = lambda: DurableBackgroundTasks(enqueuer_of(queue).prepare)
    around.batches = JobBatches(enqueuer_of(queue))
    around.children = partial(children_of, enqueuer_of(queue))
    opened = OpenRunner(
        app,
        queue,
        store,
        committer,
        events,
        settings,
        plan.slots,
        plan.schedules,
        make_worker,
    )
    return opened, worker


def slots_of(
    known: Mapping[str, int],
    tasks: Mapping[str, Task[..., Any]],
    queues: Iterable[str] | Mapping[str, int | None] | None,
) -> Mapping[str, int]:
    """Return the slots by name of each queue that a process serves.

    Args:
        known: The runner's queues and their slots.
        tasks: The runner's tasks.
        queues: The queues to serve, None for all. A mapping also sets their slots, None for the runner's number.

    Raises:
        UnknownQueue: A task or ``queues`` names a queue that the runner does not have.
        ConfigurationError: A number of slots is invalid, or ``queues`` is empty.
    """
    for task in tasks.values():
        queue = task.spec.options.queue
        if queue not in known:
            raise unknown_queue(queue, f"task {task.name} ({task.spec.where})", known)
    if queues is None:
        return known
    chosen = queues if isinstance(queues, Mapping) else dict.fromkeys(queues)
    for name in chosen:
        if name not in known:
            raise unknown_queue(name, "running(queues=...)", known)
    return checked_queues(
        {name: known[name] if slots is None else slots for name, slots in chosen.items()}
    )


def schedules_of(
    settings: Settings,
    tasks: Mapping[str, Task[..., Any]],
    declarations: Mapping[str, Declaration],
) -> Mapping[str, Definition]:
    """Return the schedules that the code declares, in the runner's time zone.

    Raises:
        InvalidSchedule: The runner does not have the task of a schedule.
        UnknownQueue: A schedule names a queue that the runner does not have.
    """
    defined: dict[str, Definition] = {}
    for id, declaration in declarations.items():
        spec = declaration.spec
        if spec.name not in tasks or not spec.is_same(tasks[spec.name].spec):
            raise InvalidSchedule(
                f"the schedule {id!r} stands above {spec.name} ({spec.where}), which this runner does not have;"
                " write jobs.include(router)"
            )
        defined[id] = declaration.defined(settings.timezone)
    for id, queue in queues_of(defined).items():
        if queue not in settings.queues:
            raise unknown_queue(queue, f"the schedule {id!r}", settings.queues)
    return defined


def session_of_tasks(mark: object) -> Dependency | InvalidTask | None:
    """Return the session's dependency as tasks resolve it.

    Args:
        mark: The ``Depends`` of ``JobRunner(session=...)``; None if the runner has no session.

    Returns:
        The dependency, or the error if tasks cannot resolve it, for example because it needs a request.
    """
    if mark is None:
        return None
    parameter = inspect.Parameter("session", inspect.Parameter.KEYWORD_ONLY)
    try:
        return dependency_of("JobRunner(session=...)", parameter, mark)
    except InvalidTask as error:
        return error


def _plain(queue: JobQueue) -> JobQueue:
    """Return the queue for a task that depends on a plain ``Queue``.

    Raises:
        ConfigurationError: The runner has a session, which this queue would not join.
    """
    advice = enqueuer_of(queue).parts.session_advice
    if advice is not None:
        raise ConfigurationError(advice)
    return queue
