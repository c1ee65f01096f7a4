"""The tests on the pages pass, as the pages print them."""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.processes import CHECKOUT

_PAGES = ("guides/testing.md", "tutorial.md")
_TITLED = re.compile(r'^```python title="([\w.]+)"\n(.*?)^```', re.DOTALL | re.MULTILINE)
_TOML = re.compile(r"^```toml\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("page", _PAGES)
def test_tests_of_the_page_pass(tmp_path: Path, page: str) -> None:
    text = (CHECKOUT / "docs" / page).read_text(encoding="utf-8")
    files: dict[str, str] = defaultdict(str)
    for name, code in _TITLED.findall(text):
        files[name] += code
    # Without settings the plugin for async tests warns of its own future.
    settings = _TOML.findall(text) or [
        '[tool.pytest.ini_options]\nasyncio_default_fixture_loop_scope = "function"\n'
    ]
    (files["pyproject.toml"],) = settings
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    count = sum(text.count("def test_") for name, text in files.items() if name.startswith("test_"))

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} passed" in done.stdout
