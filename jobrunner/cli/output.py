"""Prints results: a table on a terminal, tab-separated lines in a pipe, or JSON."""

import dataclasses
import json
import re
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TextIO

import click

from jobrunner.core.attempt import Attempt
from jobrunner.core.batch import Batch
from jobrunner.core.dead_letter import DeadLetter
from jobrunner.core.escape import escaped, escaped_json
from jobrunner.core.health import QueueInfo
from jobrunner.core.job import Job, Payload, Step
from jobrunner.queue.limits import LimitInfo
from jobrunner.queue.schedules import Schedule

NARROWEST: Final = 10
"""The minimum width of a column in a drawn table: the length of a date."""
WIDEST: Final = 100_000
"""A width in columns that no terminal has."""
_BLANKS: Final = re.compile(r"[\t-\r]+")


def say(text: str, *, lead: str = "", err: bool = False) -> None:
    """Print one line, with control characters escaped.

    Args:
        text: the text of the line.
        lead: spaces or colour codes before the text, printed unchanged.
        err: print to standard error.
    """
    click.echo(f"{lead}{escaped(text)}", err=err)


def say_json(value: object) -> None:
    """Print a value as one JSON document, in ASCII unless the output is UTF-8."""
    encoding = getattr(sys.stdout, "encoding", None) or ""
    ascii_only = encoding.lower().replace("-", "") != "utf8"
    click.echo(_json(value, ascii_only=ascii_only, indent=2))


def _json(value: object, *, ascii_only: bool = False, indent: int | None = None) -> str:
    return escaped_json(json.dumps(value, default=_plain, ensure_ascii=ascii_only, indent=indent))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return str(value)


def job_fields(job: Job[Any]) -> dict[str, object]:
    """Return the fields of a job to print, without its arguments."""
    hidden = {"history", "created", "steps"}
    return {
        field.name: getattr(job, field.name)
        for field in dataclasses.fields(job)
        if field.name not in hidden
    }


def batch_fields(batch: Batch[Any]) -> dict[str, object]:
    """Return the fields of a batch to print, without its jobs."""
    hidden = {"jobs", "then", "otherwise", "at_end"}
    return {
        field.name: getattr(batch, field.name)
        for field in dataclasses.fields(batch)
        if field.name not in hidden
    }


def payload_fields(payload: Payload) -> dict[str, object]:
    """Return the arguments and the result of a job."""
    return {
        "args": payload.args,
        "result": payload.result,
        "result_omitted": payload.result_omitted,
        "step_values": payload.steps,
    }


def step_fields(steps: Sequence[Step]) -> list[dict[str, object]]:
    """Return the fields of a job's steps to print."""
    return [dataclasses.asdict(step) for step in steps]


def letter_fields(letter: DeadLetter) -> dict[str, object]:
    """Return the fields of a dead letter for a list, without attempts and traceback."""
    return {
        field.name: getattr(letter, field.name)
        for field in dataclasses.fields(letter)
        if field.name not in {"history", "traceback"}
    }


def schedule_fields(schedule: Schedule) -> dict[str, object]:
    """Return the fields of a schedule to print, without its arguments."""
    return {
        field.name: getattr(schedule, field.name)
        for field in dataclasses.fields(schedule)
        if field.name != "args"
    }


def limit_fields(limit: LimitInfo) -> dict[str, object]:
    """Return the fields of a limit to print, the rate as three numbers."""
    rate = limit.rate_limit
    return {
        "scope": limit.scope,
        "name": limit.name,
        "concurrency": limit.concurrency,
        "rate_limit": rate and {"limit": rate.limit, "per": rate.per, "burst": rate.burst},
        "max_waiting": limit.max_waiting,
        "set_at": limit.set_at,
    }


def attempt_fields(history: Iterable[Attempt]) -> list[dict[str, object]]:
    """Return the fields of attempts, with the worker's id as text.

    JavaScript keeps only 53 bits of a number, and the id has 63.
    """
    return [
        {
            **{field.name: getattr(one, field.name) for field in dataclasses.fields(one)},
            "worker": str(one.worker),
        }
        for one in history
    ]


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal.

    The stream is None if it was closed before the process started.
    """
    return stream is not None and stream.isatty()


def ask(question: str) -> None:
    """Ask the user for confirmation, and end the command if the answer is no.

    Raises:
        click.Abort: The answer is no.
        click.UsageError: Standard input is not a terminal.
    """
    if not is_terminal(sys.stdin):
        raise click.UsageError(f"{question} There is no terminal to answer at; add --yes")
    # The event loop handles a signal only after this function has returned, so signals get other handlers here.
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
    """Print rows: a table on a terminal, else tab-separated lines with a header.

    Args:
        columns: the names of the columns.
        rows: the rows, each with one value for each column.
        empty: the text for a terminal if there are no rows.
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
    """Print the table of queues.

    A count that stopped early has a ``+``: ``10000+`` means at least 10,000.
    """
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
        _align(columns, rows)  # the extra `cli` is not installed
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name, *words in zip(columns, *rows, strict=True):
        # Columns wrap between words, and inside long words. An id never wraps: nobody could copy it.
        is_id = name in ("id", "group")
        longest = max(len(part) for word in (name, *words) for part in word.split(" "))
        width = longest if is_id else min(longest, NARROWEST)
        table.add_column(name, overflow="fold", no_wrap=is_id, min_width=width)
    for row in rows:
        table.add_row(*map(Text, row))  # plain text: rich would read brackets in a str as markup
    console = Console(highlight=False)
    if (
        console.measure(table, options=console.options.update(max_width=WIDEST)).minimum
        > console.width
    ):
        _align(columns, rows)
    else:
        console.print(table)


def _align(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one aligned line for each row; the terminal wraps long lines."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for line in [columns, *rows]:
        click.echo("  ".join(map(str.ljust, line, widths)).rstrip())


def say_fields(fields: Mapping[str, object]) -> None:
    """Print the fields that have a value, one on each line."""
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
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.3g} s"
    if isinstance(value, dict | list | tuple):
        return _json(value)
    text = str(value)
    # A stored value must not move the cursor of a terminal, and must not start a new line in a table.
    return (
        escaped(text.replace("\t", " "), lines=True) if lines else escaped(_BLANKS.sub(" ", text))
    )
