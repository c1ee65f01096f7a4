"""The Python blocks of every page type-check, and run."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import PageError, pages
from tests.docs.checks import run, type_errors
from tests.docs.modules import Part, parts_of
from tests.support import scripts
from tests.support.processes import CHECKOUT

IN_A_PROCESS = ["docs/monitoring.md"]
"""Pages whose code sets what a process has once: OpenTelemetry's provider of tracers."""


def of(page: str) -> list[Part]:
    return parts_of(page, (CHECKOUT / page).read_text(encoding="utf-8"))


def errors_of(page: str) -> list[str]:
    """Run the blocks of a page; return the errors, which begin with page and line."""
    return [error for part in of(page) if (error := run(part)) is not None]


@pytest.mark.slow
@pytest.mark.rest
def test_blocks_of_all_pages_type_check(tmp_path: Path) -> None:
    # In one run of mypy, which reads the library and the frameworks once.
    parts = [part for page in pages() for part in of(page)]

    assert type_errors(parts, tmp_path) == []


@pytest.mark.parametrize("page", [page for page in pages() if page not in IN_A_PROCESS])
def test_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert errors_of(page) == []


@pytest.mark.parametrize("page", IN_A_PROCESS)
def test_blocks_that_change_their_process_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = (
        "import sys\nfrom tests.docs.test_blocks import errors_of\nprint(errors_of(sys.argv[1]))"
    )

    assert scripts.run(script, page).splitlines()[0] == "[]"


# -- the rules ------------------------------------------------------------------------------------------------

SHOP = """
# A page

```python title="shop/mail.py"
from jobrunner import TaskRouter

tasks = TaskRouter(prefix="mail.")


@tasks.task
async def send(email: str) -> int: ...
```

- indented

  ```python
  import shop.mail
  from shop.mail import send

  name = shop.mail.send.name
  ```

<!-- python
from jobrunner import JobRunner

jobs = JobRunner("sqlite:///shop.db")
jobs.include(shop.mail.tasks)
-->

```python
job = await jobs.enqueue(send, "ann@example.com")
assert await job.result() == "it is not run"  # type: ignore[comparison-overlap]
```

and then

```python
print(job.id.upper())
job = 7
```

```python title="shop/mail.py"
seen = send.name
```

```python {.theirs title="tasks.py"}
from celery import Celery
```

<!-- python: new page -->

```python title="shop.py"
send = 1
```

```python {.not-run}
import shop

shop.send.bit_length()
raise SystemExit
```
"""


@pytest.mark.slow
@pytest.mark.rest
def test_page_within_the_rules_type_checks_and_runs(tmp_path: Path) -> None:
    parts = parts_of("a page.md", SHOP)

    assert [sorted(part.modules) for part in parts] == [["page", "shop.mail"], ["page", "shop"]]
    assert type_errors(parts, tmp_path) == []
    assert [run(part) for part in parts] == [None, None]


WRONG = """
```python title="shop.py"
from jobrunner import JobRunner

jobs = JobRunner("sqlite:///shop.db")


@jobs.task
async def send(email: str) -> None: ...
```

```python
from shop import jobs, send

await jobs.enqueue(
    send,
    7,
)
await jobs.enqueue(send)
await jobs.enqeue(send, "ann@example.com")
await missing()
send.nme
jobs.task(queu="mail")
```
"""


@pytest.mark.slow
@pytest.mark.rest
def test_wrong_code_is_found_with_page_line_and_kind(tmp_path: Path) -> None:
    found = type_errors(parts_of("docs/a.md", WRONG), tmp_path)

    kinds = [re.fullmatch(r"docs/a\.md:(\d+): error: .* \[([a-z-]+)\]", line) for line in found]
    assert [(int(kind[1]), kind[2]) for kind in kinds if kind is not None] == [
        (17, "arg-type"),
        (19, "call-arg"),
        (20, "attr-defined"),
        (21, "name-defined"),
        (22, "attr-defined"),
        (23, "call-overload"),
    ]


def test_error_of_executed_code_has_its_line() -> None:
    (part,) = parts_of("docs/a.md", "# A\n\n```python\nx = 1\n\n\ny = x / 0\n```\n")

    assert run(part) == "docs/a.md:7: ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```python\nx = \n```\n", "docs/a.md:2: this is not Python: invalid syntax"),
        (
            "```python {.theirs}\n\nreturn 1\n```\n",
            "docs/a.md:3: this is not Python: 'return' outside function",
        ),
        ("\n```python\nx = 1\n", "docs/a.md:2: what begins here has no end, a line ```"),
        ("<!-- python\nx = 1\n", "docs/a.md:1: what begins here has no end, a line -->"),
        ("<!-- python: new -->\n", "docs/a.md:1: no rule of tests/docs knows the comment"),
        ("```py\nx = 1\n```\n", "docs/a.md:1: no rule of tests/docs knows this fence"),
        ("```python {.their}\nx = 1\n```\n", "docs/a.md:1: no rule of tests/docs knows this fence"),
    ],
    ids=["syntax", "their syntax", "fence", "comment", "unknown comment", "language", "class"],
)
def test_page_that_breaks_a_rule_is_refused(text: str, said: str) -> None:
    with pytest.raises(PageError, match=rf"^{re.escape(said)}"):
        parts_of("docs/a.md", text)
