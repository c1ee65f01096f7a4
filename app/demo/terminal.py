"""Prints the demo: chapters, lines and marks, in colour on a terminal."""

import os
import sys
import textwrap
import time

WIDTH = 92

READING_S = 2.5
"""Seconds of pause after the introduction of a chapter, on a terminal."""


class Terminal:
    """Writes to standard output, each line with the seconds since its chapter began."""

    def __init__(self) -> None:
        self._watched = sys.stdout.isatty()
        self._colour = self._watched and "NO_COLOR" not in os.environ
        self._chapter = 0
        self.started = time.perf_counter()
        self._chapter_started = self.started

    def chapter(self, title: str, about: str, *, pause: bool = True) -> None:
        """Begin a chapter; pause for reading."""
        self._chapter += 1
        self._print(f"\n {self._paint('1;36', f'{self._chapter}')}  {self._paint('1', title)}")
        for line in textwrap.wrap(about, WIDTH - 4):
            self._print(f"    {self._paint('2', line)}")
        if pause and self._watched:
            time.sleep(READING_S)
        self._chapter_started = time.perf_counter()

    def headline(self, text: str) -> None:
        """Print the first line of all."""
        self._print(self._paint("1", text))

    def say(self, text: str) -> None:
        """Print a line of the story."""
        self._print(f"    {text}")

    def event(self, who: str, what: str, *, after: str = "", good: bool | None = None) -> None:
        """Print something that just happened: to whom, what, and what comes after."""
        at = time.perf_counter() - self._chapter_started
        colour = {None: "33", True: "32", False: "31"}[good]
        self._print(
            f"    {self._paint('2', f'{at:5.1f} s')}  {who:<11}{self._paint(colour, what)}"
            f"{self._paint('2', after)}"
        )

    def kept(self, promise: str) -> None:
        """Print a promise that was checked and held."""
        self._print(f"    {self._paint('32', '✓')} {promise}")

    def broken(self, promise: str) -> None:
        """Print why the demo ends here."""
        self._print(f"\n {self._paint('1;31', '✗')}  {promise}")

    def quoted(self, text: str) -> None:
        """Print something that was received, as it came."""
        for line in text.strip().splitlines():
            self._print(f"      {self._paint('36', '│')} {line}")

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text

    def _print(self, line: str) -> None:
        print(line, flush=True)
