"""The pytest plugin: the fixtures ``job_tester`` and ``sync_job_tester``.

They find the application by the setting ``jobrunner_app`` of pytest, or by the fixture ``job_tester_app``.
"""

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from jobrunner.testing.sync import SyncJobTester
    from jobrunner.testing.tester import JobTester

_ADVICE = (
    "the testers of jobrunner do not know the application. Write in pyproject.toml\n"
    "    [tool.pytest.ini_options]\n"
    '    jobrunner_app = "shop.main:create_app"\n'
    "or in conftest.py\n"
    "    @pytest.fixture\n"
    "    def job_tester_app(tmp_path): return create_app(Settings(database=tmp_path / 'shop.db'))"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the settings of the fixtures."""
    parser.addini(
        "jobrunner_app",
        "the application that job_tester and sync_job_tester open: module:name of an application, a JobRunner or a"
        " function that makes one",
        default="",
    )
    parser.addini(
        "jobrunner_strict",
        "true to fail tests that end with running, stuck or dead jobs which they have not read",
        type="bool",
        default=False,
    )


@pytest.fixture
def job_tester_app(pytestconfig: pytest.Config) -> Any:
    """Return the application or runner under test; override this fixture to make it in another way."""
    named: str = pytestconfig.getini("jobrunner_app")
    if not named:
        raise pytest.UsageError(_ADVICE)
    return _load(named, pytestconfig)


@pytest.fixture
def job_tester_store() -> Any:
    """Return the file of the tester's store, None for a temporary one; override it for the engine's file."""
    return None


def _load(named: str, config: pytest.Config) -> Any:
    """Return the object that ``module:name`` names."""
    module, _, path = named.partition(":")
    if not module or not path:
        raise pytest.UsageError(f'jobrunner_app = "{named}" is not of the form "shop.main:app"')
    root = str(config.rootpath)
    if root not in sys.path:
        sys.path.insert(0, root)
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise pytest.UsageError(
            f'jobrunner_app = "{named}" names no application: {error}'
        ) from error
    return found


@pytest.fixture
def sync_job_tester(
    job_tester_app: Any, job_tester_store: Any, pytestconfig: pytest.Config
) -> "Iterator[SyncJobTester]":
    """Return an open ``SyncJobTester``; open the application behind it, with ``TestClient(sync_job_tester.app)``."""
    from jobrunner.testing.sync import SyncJobTester  # noqa: PLC0415 - pytest imports this module at every start

    strict = pytestconfig.getini("jobrunner_strict")
    with SyncJobTester(job_tester_app, store=job_tester_store, strict=strict) as tester:
        yield tester


async def _job_tester(
    job_tester_app: Any, job_tester_store: Any, pytestconfig: pytest.Config
) -> "AsyncIterator[JobTester]":
    """Return an open ``JobTester``; its application is open too."""
    from jobrunner.testing.tester import JobTester  # noqa: PLC0415 - as above

    strict = pytestconfig.getini("jobrunner_strict")
    async with JobTester(job_tester_app, store=job_tester_store, strict=strict) as tester:
        yield tester


_fixture: Any = pytest.fixture  # other plugins, such as anyio's, run async fixtures of pytest
with contextlib.suppress(ImportError):
    from pytest_asyncio import fixture as _fixture

job_tester = _fixture(_job_tester, name="job_tester")
