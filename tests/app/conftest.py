"""A shop in a directory of the test's own."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.settings import Settings
from tests.app.shop import ShopClient, make_settings
from tests.app.smtp import SmtpServer, smtp_server


@pytest.fixture(autouse=True, scope="module")
def _no_settings_from_outside() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("SHOP_"):
                patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    with log_as_before():
        yield


@contextmanager
def log_as_before() -> Iterator[None]:
    """Undo what the application does to the log of the whole process, which here is the tests'."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings for a shop whose mail goes to the outbox."""
    return make_settings(tmp_path)


@pytest.fixture
def shop(settings: Settings) -> Iterator[ShopClient]:
    """A running shop whose mail goes to the outbox; its daily report is paused."""
    with ShopClient(settings) as client:
        client.pause_report()
        yield client


@pytest.fixture
def smtp() -> Iterator[SmtpServer]:
    """A mail server that wants no login."""
    with smtp_server() as server:
        yield server


@pytest.fixture
def mailing_shop(tmp_path: Path, smtp: SmtpServer) -> Iterator[ShopClient]:
    """A running shop whose mail goes to ``smtp``; its daily report is paused."""
    settings = make_settings(
        tmp_path, smtp_host=smtp.hostname, smtp_port=smtp.port, smtp_starttls=False
    )
    with ShopClient(settings) as client:
        client.pause_report()
        yield client
