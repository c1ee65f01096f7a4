"""Shows a progress bar on a terminal, and nothing in a pipe."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from jobrunner.cli.output import is_terminal

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


class Progress:
    """A progress bar on standard error, so that standard output holds only the result."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._done = 0

    def __enter__(self) -> Self:
        if is_terminal(sys.stderr):
            try:
                from rich.console import Console
                from rich.progress import Progress as Bar
            except ImportError:
                return self
            self._bar = Bar(console=Console(stderr=True), transient=True)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self) -> None:
        """Show a bar without a total, while the total is unknown."""
        if self._bar is not None and self._task is None:
            self._task = self._bar.add_task(self._what, total=None)

    def update(self, done: int, total: int) -> None:
        """Set the number done and the total; callable on any thread."""
        self.begin()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total)

    def advance(self, number: int, total: int) -> None:
        """Add to the number done, and set the total."""
        self._done += number
        self.update(self._done, total)
