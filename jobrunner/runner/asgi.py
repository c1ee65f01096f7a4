"""Makes an open runner available to the requests of an application.

Dependencies find it on ``app.state``; ``task.enqueue()`` in a request finds it in the request's context.
"""

from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Protocol

from jobrunner.core.errors import AlreadyRunning
from jobrunner.queue.queue import JobQueue, enqueuer_of
from jobrunner.tasks.current_queue import running

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_Asgi = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


class App(Protocol):
    """A Starlette or FastAPI application, as this module uses it."""

    @property
    def state(self) -> Any:
        """The application's state; its requests read the open queue from ``state.jobrunner``."""
        ...


@contextmanager
def placed(queue: JobQueue, app: App) -> Iterator[None]:
    """Let the application's requests find the queue inside the block.

    Raises:
        AlreadyRunning: Another runner is open on the application.
    """
    if getattr(app.state, "jobrunner", None) is not None:
        raise AlreadyRunning(
            "the app has an open runner; open a second one with `async with jobs.running():`, without the app, and"
            " inject it by name: Depends(jobs.queue)"
        )
    app.state.jobrunner = queue
    unwrap = _wrap(app, queue)
    try:
        yield
    finally:
        unwrap()
        del app.state.jobrunner


def _wrap(app: Any, queue: JobQueue) -> Callable[[], None]:
    """Run each request in a context that names the queue.

    The middleware stack is wrapped, because ``add_middleware`` raises once the lifespan has begun.

    Returns:
        A function that restores the old stack.
    """
    if not hasattr(app, "middleware_stack"):
        return lambda: None
    inner: _Asgi | None = app.middleware_stack
    if inner is None:
        inner = app.build_middleware_stack()
    inside: _Asgi = inner
    enqueuer = enqueuer_of(queue)

    async def with_queue(scope: _Scope, receive: _Receive, send: _Send) -> None:
        token = running.set(enqueuer)
        try:
            await inside(scope, receive, send)
        finally:
            running.reset(token)

    app.middleware_stack = with_queue

    def unwrap() -> None:
        if app.middleware_stack is with_queue:
            app.middleware_stack = inside

    return unwrap
