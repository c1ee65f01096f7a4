"""Finds the status routes of a runner in its application, for ``jobs.respond()``."""

from collections.abc import Callable, Mapping

from jobrunner.core.errors import ConfigurationError
from jobrunner.runner.asgi import App

NONE_MOUNTED = (
    "jobs.respond() answers with the address of the job's status, and the application has no status router: write"
    ' app.include_router(jobs.status_router(guard, public=[...]), prefix="/status")'
)

WITHOUT_APP = (
    "jobs.respond() answers with the address of the job's status, and this runner was opened without the application"
    " that has it: write `async with jobs.running(app):`; one runner of an application can be opened so"
)


class StatusRoutes:
    """The status routers that one runner has made, and where its application has them."""

    def __init__(self) -> None:
        self.app: App | None = None
        """The application on which the runner is open."""
        self._made: dict[Callable[..., object], frozenset[str]] = {}
        """The names of the public tasks, by the function of the route."""
        self._paths: dict[str, str] = {}
        """The path of the status route, by the name of the task."""

    def add(self, route: Callable[..., object], tasks: frozenset[str]) -> None:
        """Add the status route of a new router."""
        self._made[route] = tasks

    def place(self, app: App | None, paths: Mapping[Callable[..., object], str]) -> None:
        """Note the application, and its paths by the function of their route; the first one of a task counts."""
        self.app = app
        self._paths = {}
        for route, path in paths.items():
            for task in self._made.get(route, ()):
                self._paths.setdefault(task, path)

    def __bool__(self) -> bool:
        return bool(self._paths)

    def path_of(self, task: str) -> str:
        """Return the path of a task's status route.

        Raises:
            ConfigurationError: The application has none.
        """
        if not self._paths:
            raise ConfigurationError(WITHOUT_APP if self.app is None else NONE_MOUNTED)
        path = self._paths.get(task)
        if path is None:
            raise ConfigurationError(
                f"jobs.respond(): the jobs of {task} are not public, so nobody could follow this one: add the task to"
                f" jobs.status_router(guard, public=[..., {task}])"
            )
        return path
