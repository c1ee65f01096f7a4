"""Prints answers: a table on a terminal, tab-separated lines in a pipe, or JSON."""

import dataclasses
import json
import re
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import click

from jobrunner.core.escape import escaped, escaped_json
from jobrunner.core.job import Attempt, DeadLetter, Job, Payload, QueueInfo

NARROWEST: Final = 10
"""Letters that a column of a drawn table keeps: those of a date."""
WIDEST: Final = 100_000
"""No terminal has so many columns."""
_BLANKS: Final = re.compile(r"[\t-\r]+")


def say(text: str, *, lead: str = "", err: bool = False) -> None:
    """Print one line, in which control characters are written out.

    Args:
        text: what is to be said.
        lead: what comes before it as it is: spaces, colours.
        err: on standard error.
    """
    click.echo(f"{lead}{escaped(text)}", err=err)


def say_json(value: object) -> None:
    """Print a value as one JSON document, in letters that are safe for the output."""
    encoding = getattr(sys.stdout, "encoding", None) or ""
    ascii_only = encoding.lower().replace("-", "") != "utf8"
    click.echo(_json(value, ascii_only=ascii_only, indent=2))


def _json(value: object, *, ascii_only: bool = False, indent: int | None = None) -> str:
    return escaped_json(json.dumps(value, default=_plain, ensure_ascii=ascii_only, indent=indent))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return str(value)


def job_fields(job: Job[Any]) -> dict[str, object]:
    """Return a job's fields for an answer, without its arguments."""
    hidden = {"history", "created"}
    return {
        field.name: getattr(job, field.name)
        for field in dataclasses.fields(job)
        if field.name not in hidden
    }


def payload_fields(payload: Payload) -> dict[str, object]:
    """Return the arguments and the result of a job."""
    return {
        "args": payload.args,
        "result": payload.result,
        "result_omitted": payload.result_omitted,
    }


def letter_fields(letter: DeadLetter) -> dict[str, object]:
    """Return a dead letter's fields for a list, without attempts and traceback."""
    return {
        field.name: getattr(letter, field.name)
        for field in dataclasses.fields(letter)
        if field.name not in {"history", "traceback"}
    }


def attempt_fields(history: Iterable[Attempt]) -> list[dict[str, object]]:
    """Return attempts' fields; a worker's id as text, since JavaScript's numbers end at 53 bits."""
    return [
        {
            **{field.name: getattr(one, field.name) for field in dataclasses.fields(one)},
            "worker": str(one.worker),
        }
        for one in history
    ]


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal; one that was closed before the start is None."""
    return stream is not None and stream.isatty()


def ask(question: str) -> None:
    """Ask whether to go on, and end the command if not.

    Raises:
        click.Abort: the answer is no.
        click.UsageError: there is nobody to ask.
    """
    if not is_terminal(sys.stdin):
        raise click.UsageError(f"{question} There is no terminal to answer at; add --yes")
    # The loop handles signals when it turns next, and it does not turn while it waits for an answer.
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    }
    try:
        click.confirm(question, abort=True, err=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print rows: drawn on a terminal, else tab-separated with a line of names.

    Args:
        columns: their names.
        rows: one value for each column.
        empty: what to say on a terminal when there are no rows.
    """
    texts = [[_word(value) for value in row] for row in rows]
    if not is_terminal(sys.stdout):
        for line in [list(columns), *texts]:
            click.echo("\t".join(line))
    elif not texts:
        click.echo(empty)
    else:
        _draw(columns, texts)


def say_queues(queues: Iterable[QueueInfo]) -> None:
    """Print the table of queues; where counting stopped, ``10000+`` says that there may be more."""
    say_table(
        ("queue", "slots", "paused", "queued", "scheduled", "blocked", "running", "oldest due"),
        [
            (
                q.name,
                q.slots,
                q.paused,
                *(
                    count if q.complete else f"{count}+"
                    for count in (q.queued, q.scheduled, q.blocked)
                ),
                q.running,
                q.oldest_due_at,
            )
            for q in queues
        ],
        empty="no queues yet",
    )


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        _align(columns, rows)  # the extra `cli` is not there
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, *words in zip(columns, *rows, strict=True):
        # A column folds between words, a long one anywhere, but an id nowhere: cut short it is of no use.
        longest = max(len(part) for word in (name, *words) for part in word.split(" "))
        width = longest if name == "id" else min(longest, NARROWEST)
        table.add_column(name, overflow="fold", no_wrap=name == "id", min_width=width)
    for row in rows:
        table.add_row(*map(Text, row))  # and not as markup, which takes brackets for its own
    console = Console(highlight=False)
    if (
        console.measure(table, options=console.options.update(max_width=WIDEST)).minimum
        > console.width
    ):
        _align(columns, rows)
    else:
        console.print(table)


def _align(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a line for each row, however long; a terminal goes on in the next."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for line in [columns, *rows]:
        click.echo("  ".join(map(str.ljust, line, widths)).rstrip())


def say_fields(fields: Mapping[str, object]) -> None:
    """Print the fields of one thing that have a value, a line for each."""
    shown = {name: value for name, value in fields.items() if value not in (None, ())}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        lines = _word(value, lines=True).split("\n")
        click.echo(f"{name:<{width}}  {lines[0]}")
        for line in lines[1:]:
            click.echo(f"{'':<{width}}  {line}")


def _word(value: object, *, lines: bool = False) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, dict | list | tuple):
        return _json(value)
    text = str(value)
    # What a job stored must not move a terminal's cursor, nor begin a line where one is all there is.
    return (
        escaped(text.replace("\t", " "), lines=True) if lines else escaped(_BLANKS.sub(" ", text))
    )
