"""Makes the parts of pages that repeat the code: ``python -m tests.docs.tables`` writes them into the pages.

Such a part stands between ``<!-- made: errors -->`` and ``<!-- end -->``.
"""

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
from fastapi import FastAPI

from jobrunner import JobRunner, TaskRouter
from jobrunner.cli import command_group
from jobrunner.cli.exit_codes import IN_WORDS, code_of
from jobrunner.core import errors, steering
from jobrunner.core.hints import FOREIGN_WORDS, Place
from jobrunner.fastapi import bearer, probes
from jobrunner.fastapi.api import problems
from tests.support.processes import CHECKOUT

DOCS: Final = CHECKOUT / "docs"
_PART: Final = re.compile(r"(<!-- made: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_WIDTH: Final = 84
_COMMON: Final = {"400", "401", "403", "413", "415", "422", "503", "507"}
"""Statuses that the page lists once, for all routes."""


def written(page: Path) -> str:
    """Return a page's text with the made parts as the code has them now."""
    text = page.read_text(encoding="utf-8")
    return _PART.sub(lambda part: f"{part[1]}\n{MADE[part[2]]()}\n\n{part[3]}", text)


def _table(*rows: tuple[str, ...]) -> str:
    head, *body = (
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows
    )
    return "\n".join([head, f"|{'---|' * len(rows[0])}", *body])


# -- errors -----------------------------------------------------------------------------------------------


def public_errors() -> list[type[Exception]]:
    """Return every public exception, in the order of its module; first the errors."""
    return [
        each
        for module in (errors, steering)
        for each in vars(module).values()
        if inspect.isclass(each) and issubclass(each, Exception) and each.__module__ == "jobrunner"
    ]


def _errors() -> str:
    rows = [("error", "HTTP", "exit code", "meaning")]
    for each in public_errors():
        if issubclass(each, errors.JobRunnerError):
            kind = next(problems.KINDS[one] for one in each.__mro__ if one in problems.KINDS)
            code = code_of(each.__new__(each))
            name = f"[`{each.__name__}`](#jobrunner.core.errors.{each.__name__})"
            rows.append((name, str(kind.status), str(code), _first_line(each)))
    return _table(*rows)


def _steering() -> str:
    rows = [("exception", "effect")]
    rows += [
        (f"`{each.__name__}`", _first_line(each))
        for each in public_errors()
        if not issubclass(each, errors.JobRunnerError)
    ]
    return _table(*rows)


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0].replace("``", "`")


# -- HTTP -------------------------------------------------------------------------------------------------


@TaskRouter().task
async def _example() -> None:
    """Stands for a task of the application."""


@functools.cache
def operations() -> Sequence[tuple[str, str, dict[str, Any]]]:
    """Return method, path and OpenAPI operation of each route, mounted as the pages do it."""
    jobs = JobRunner()
    app = FastAPI(lifespan=jobs.lifespan)
    app.include_router(jobs.router(read=bearer("token"), arguments=bearer("other")), prefix="/jobs")
    app.include_router(jobs.status_router(bearer("token"), public=[_example]), prefix="/status")
    app.include_router(probes(), prefix="/health")
    return [
        (method.upper(), path, operation)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]


def _routes() -> str:
    rows = [("route", "what it does", "answers")]
    for method, path, operation in operations():
        parameters = operation.get("parameters", [])
        query = [f"`{one['name']}`" for one in parameters if one["in"] == "query"]
        what = " ".join((operation.get("description") or operation["summary"]).split())
        if query:
            what += f"<br>Query: {', '.join(query)}."
        answers = " ".join(code for code in operation["responses"] if code not in _COMMON)
        rows.append((f"`{method} {path}`", what, answers))
    return _table(*rows)


def _problems() -> str:
    kinds = [each for each in vars(problems).values() if isinstance(each, problems.Kind)]
    rows = [("status", "code", "title")]
    rows += [
        (str(kind.status), f"`{kind.code}`", kind.title)
        for kind in sorted(kinds, key=lambda kind: (kind.status, kind.code))
    ]
    return _table(*rows)


# -- command line -----------------------------------------------------------------------------------------


def commands() -> Iterator[click.Context]:
    """Yield a context for each command, groups left out, in the order of the help."""

    def below(
        command: click.Command, name: str, parent: click.Context | None
    ) -> Iterator[click.Context]:
        settings = {
            "terminal_width": _WIDTH,
            "max_content_width": _WIDTH,
            **command.context_settings,
        }
        context = click.Context(command, info_name=name, parent=parent, **settings)
        if not isinstance(command, click.Group):
            yield context
            return
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from below(found, child, context)

    return below(command_group(), "jobrunner", None)


def _commands() -> str:
    return "\n\n".join(
        f"### {each.command_path}\n\n```text\n{each.command.get_help(each)}\n```"
        for each in commands()
    )


def exit_codes() -> dict[str, str]:
    """Return what each exit code means, as the help has it."""
    return dict(re.findall(r"^  (\d[\d, ]*)  (.*)$", IN_WORDS, re.MULTILINE))


def _exit_codes() -> str:
    return _table(("code", "meaning"), *exit_codes().items())


# -- decisions --------------------------------------------------------------------------------------------


def _decisions() -> str:
    lines = []
    for page in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        heading = page.read_text(encoding="utf-8").partition("\n")[0]
        title = re.sub(r"^# (?:\d+[.:] )?", "", heading)
        lines.append(f"- {page.name[:4]}: [{title}]({page.name})")
    return "\n".join(lines)


# -- words of other queues --------------------------------------------------------------------------------

_PLACES: Final[dict[Place, tuple[str, str]]] = {
    "option": ("Options of a task or a job", ""),
    "runner option": ("Options of the application or worker", ""),
    "schedule option": ("Options of a schedule", ""),
    "steering option": ("Arguments of an exception that retries", "Retry"),
    "task": ("Methods of a task", "task"),
    "queue": ("Methods of the queue", "queue"),
    "runner": ("Methods of the application or worker", "jobs"),
    "job": ("Attributes of a job", "job"),
    "context": ("Attributes of the context in a task", "job"),
}


def _foreign_words() -> str:
    parts: list[str] = []
    for place, rows in FOREIGN_WORDS.items():
        title, name = _PLACES[place]
        cells = [
            (
                ", ".join(f"`{word}`" for word in row.theirs),
                row.line(name, row.theirs[0]).replace("`", "").replace("<", "&lt;"),
            )
            for row in rows
        ]
        parts.append(f"### {title}\n\n{_table(('theirs', 'write'), *cells)}")
    return "\n\n".join(parts)


MADE: Final[dict[str, Callable[[], str]]] = {
    "errors": _errors,
    "steering": _steering,
    "routes": _routes,
    "problems": _problems,
    "commands": _commands,
    "exit-codes": _exit_codes,
    "decisions": _decisions,
    "foreign-words": _foreign_words,
}

if __name__ == "__main__":
    for page in sorted(DOCS.rglob("*.md")):
        text = written(page)
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{page.relative_to(CHECKOUT)}\n")
