"""The reference pages have every public name, and what they repeat of the code is as the code has it."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import jobrunner
import jobrunner.fastapi
import jobrunner.sqlalchemy
from jobrunner.queue.filters import DeadLetterFilter, JobFilter
from jobrunner.tasks.options import JobOptions, TaskDefaults, TaskOptions
from jobrunner.tasks.schedule_options import ScheduleOptions
from jobrunner.worker.settings import RunnerOptions
from tests.docs.docstrings import description, fenced
from tests.docs.tables import DOCS, MADE, exit_codes, operations, public_errors, written
from tests.docs.test_links import PAGES
from tests.support.processes import CHECKOUT

REFERENCE: Final = {
    page.stem: page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md")
}
RENDERED: Final = {
    name
    for page in REFERENCE.values()
    for name in re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)
}
"""The names that mkdocstrings renders."""

WITH_PARTS: Final = [
    page for page in sorted(DOCS.rglob("*.md")) if "<!-- made: " in page.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("page", WITH_PARTS, ids=lambda page: page.stem)
def test_parts_that_are_made_from_the_code_are_up_to_date(page: Path) -> None:
    up_to_date = page.read_text(encoding="utf-8") == written(page)

    assert up_to_date, "run .venv/bin/python -m tests.docs.tables, and commit what it has written"


def test_every_part_that_can_be_made_is_on_a_page() -> None:
    named = [
        re.findall("<!-- made: (.*) -->", page.read_text(encoding="utf-8")) for page in WITH_PARTS
    ]

    assert sorted(name for names in named for name in names) == sorted(MADE)


def test_public_names_are_on_the_reference_pages() -> None:
    errors = {error.__name__ for error in public_errors()}
    missing = {
        name
        for name in jobrunner.__all__
        if f"jobrunner.{name}" not in RENDERED and name not in errors and name != "__version__"
    }
    assert missing == set()

    for module, page in ((jobrunner.fastapi, "fastapi"), (jobrunner.sqlalchemy, "sqlalchemy")):
        assert [
            name for name in module.__all__ if not re.search(rf"\b{name}\b", REFERENCE[page])
        ] == []


def test_errors_routes_and_exit_codes_are_on_the_reference_pages() -> None:
    assert [
        each.__name__ for each in public_errors() if f"`{each.__name__}`" not in REFERENCE["errors"]
    ] == []
    assert "jobrunner.core.errors" in RENDERED
    routes = [f"`{method} {path}`" for method, path, _ in operations()]
    assert len(routes) > 20
    assert [route for route in routes if route not in REFERENCE["http"]] == []
    assert [code for code in exit_codes() if f"| {code} |" not in REFERENCE["cli"]] == []


_PATH: Final = re.compile(r"(?<![\w.-])/(?:jobs|health)(?:/[\w{}$:-]+)+")


def routes() -> Iterator[re.Pattern[str]]:
    """Yield a pattern of each route's path; an id stands on a page as ``{id}``, ``$id`` or a UUID."""
    for _, path, _ in operations():
        any_name = path.startswith(("/jobs/queues/", "/jobs/schedules/")) or "/signals/" in path
        name = r"[^/]+" if any_name else r"(?:\{\w+\}|\$\w+|[0-9a-f-]{36})"
        yield re.compile(
            "".join(name if part[:1] == "{" else part for part in re.split(r"(\{\w+\})", path))
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_routes_on_the_page_exist(page: Path) -> None:
    patterns = list(routes())
    found = _PATH.findall(page.read_text(encoding="utf-8"))
    found = [path for path in found if not path.startswith("/jobs/ui")]  # the dashboard

    assert [path for path in found if not any(one.fullmatch(path) for one in patterns)] == []


OPTIONS: Final = [
    RunnerOptions,
    TaskDefaults,
    TaskOptions,
    JobOptions,
    ScheduleOptions,
    JobFilter,
    DeadLetterFilter,
]


@pytest.mark.parametrize("options", OPTIONS)
def test_options_are_on_the_reference_pages(options: type) -> None:
    assert f"{options.__module__}.{options.__name__}" in RENDERED


@pytest.mark.parametrize("options", OPTIONS[:5])
def test_every_option_has_a_docstring(options: type) -> None:
    source = (
        CHECKOUT.joinpath(*options.__module__.split("."))
        .with_suffix(".py")
        .read_text(encoding="utf-8")
    )
    (body,) = (
        node.body
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == options.__name__
    )
    documented = [
        field.target.id
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    ]
    assert set(documented) == {
        field.target.id
        for field in body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }


def test_examples_of_docstrings_become_fenced_blocks() -> None:
    assert fenced("A queue.\n\nWrite::\n\n    x = 1\n\n    y = {\n        2\n    }\n\nMore.\n") == (
        "A queue.\n\nWrite:\n\n```python\nx = 1\n\ny = {\n    2\n}\n```\n\nMore.\n"
    )
    assert fenced("::\n\n    x") == "```python\nx\n```\n\n"
    assert fenced("::\n\n    a\n    └── b\n") == "```text\na\n└── b\n```\n\n"
    assert fenced("Args:\n    a: b\n") == "Args:\n    a: b\n"


def test_descriptions_of_fields_become_docstrings() -> None:
    assert description("field(metadata=doc('the ' 'id', example=1))") == "the id"
    assert description("field(metadata=doc(example=1))") is None
    assert description("7") is None
