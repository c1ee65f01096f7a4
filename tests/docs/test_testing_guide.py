"""The tests on the page about testing pass, as the page prints them."""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.processes import CHECKOUT

_PAGE = CHECKOUT / "docs/guides/testing.md"
_TITLED = re.compile(r'^```python title="([\w.]+)"\n(.*?)^```', re.DOTALL | re.MULTILINE)
_TOML = re.compile(r"^```toml\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.slow
@pytest.mark.process
def test_tests_of_the_page_pass(tmp_path: Path) -> None:
    text = _PAGE.read_text(encoding="utf-8")
    files: dict[str, str] = defaultdict(str)
    for name, code in _TITLED.findall(text):
        files[name] += code
    (files["pyproject.toml"],) = _TOML.findall(text)
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    count = files["test_shop.py"].count("def test_")

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
