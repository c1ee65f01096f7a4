"""The application as a whole: its factory, its lock, its documents, its processes."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.app.shop import TOKEN, ShopClient, eventually, make_settings

ROOT = Path(__file__).parent.parent.parent


# -- the factory ----------------------------------------------------------------------------------


def test_two_apps_in_one_process_keep_to_themselves(tmp_path: Path) -> None:
    one, two = (make_settings(tmp_path / name) for name in ("one", "two"))
    with ShopClient(one, tested=False) as first, ShopClient(two, tested=False) as second:
        first.register("ada")
        second.register("grace")
        eventually(lambda: first.outbox() and second.outbox(), "both mails are sent")

        assert [mail["to"] for mail in first.outbox()] == ["ada@example.com"]
        assert [mail["to"] for mail in second.outbox()] == ["grace@example.com"]


def test_app_can_be_run_again_and_finds_its_jobs(settings: Settings) -> None:
    client = ShopClient(settings)
    with client:
        job_id = client.register("ada")
        client.finish(job_id)

    with client:
        assert client.job(job_id)["state"] == "succeeded"
        client.finish(client.register("grace"))


def test_app_that_is_closed_leaves_no_connection_to_its_file(
    shop: ShopClient, settings: Settings
) -> None:
    shop.finish(shop.register("ada"))

    shop.__exit__(None, None, None)

    assert not settings.database_path.with_name("shop.db-wal").exists()


# -- the lock -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/jobs", "/jobs/health", "/jobs/queues", "/jobs/dead-letters"])
@pytest.mark.parametrize("authorization", ["", "Bearer wrong", f"Basic {TOKEN}"])
def test_jobs_want_the_admin_token(shop: ShopClient, path: str, authorization: str) -> None:
    assert shop.get(path).status_code == 200
    assert shop.get(path, headers={"Authorization": authorization}).status_code == 401


def test_admin_token_is_made_and_told_once_if_none_is_set(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    without = settings.model_copy(update={"admin_token": None})
    with caplog.at_level(logging.WARNING, "app"), TestClient(create_app(without)) as client:
        (told,) = re.findall(r"SHOP_ADMIN_TOKEN .*: (\S+)$", caplog.text, re.MULTILINE)
        headers = {"Authorization": f"Bearer {told}"}

        assert len(told) >= 32
        assert client.get("/jobs", headers=headers).status_code == 200
        assert client.get("/jobs").status_code == 401


def test_admin_token_that_is_set_is_never_told(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), ShopClient(settings) as shop:
        shop.finish(shop.register("ada"))

    assert TOKEN not in caplog.text


# -- the documents --------------------------------------------------------------------------------


def test_openapi_describes_every_route(shop: ShopClient) -> None:
    document = shop.get("/openapi.json").json()

    methods = {path: sorted(operations) for path, operations in document["paths"].items()}
    assert (
        methods.items()
        >= {
            "/register": ["post"],
            "/subscribe": ["post"],
            "/orders": ["post"],
            "/orders/{order_id}": ["get"],
            "/stock": ["get", "post"],
            "/invoices/{invoice_id}": ["delete"],
            "/users/{user_id}": ["delete"],
            "/outbox": ["get"],
            "/jobs": ["get"],
            "/jobs/dead-letters/{id}/replay": ["post"],
        }.items()
    )
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            first = path.split("/")[1]
            assert operation["tags"] == [
                first if first in ("jobs", "health", "status") else "shop"
            ], path
            assert bool(operation.get("security")) == path.startswith("/jobs"), path


def test_docs_page_is_there(shop: ShopClient) -> None:
    assert shop.get("/docs").status_code == 200


# -- the processes --------------------------------------------------------------------------------


@contextmanager
def process(*command: str, cwd: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command of this Python; its standard error can be read line by line."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("SHOP_")}
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        env=env | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | variables,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def lines_until(running: subprocess.Popen[str], pattern: str) -> tuple[list[str], re.Match[str]]:
    """Read standard error up to a line that matches."""
    assert running.stderr is not None
    lines: list[str] = []
    for line in running.stderr:
        lines.append(line.rstrip("\n"))
        if match := re.search(pattern, line):
            return lines, match
    raise AssertionError("\n".join(["never said: " + pattern, *lines]))


COMMANDS = {
    "python": ("-m", "app", "serve", "--port", "0"),
    "uvicorn": ("-m", "uvicorn", "app.main:create_app", "--factory", "--port", "0"),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_first_run_needs_nothing(command: tuple[str, ...], tmp_path: Path) -> None:
    with process(*command, cwd=tmp_path) as running:
        lines, address = lines_until(running, r"running on (http://127\.0\.0\.1:\d+)")
        (token,) = re.findall(r"SHOP_ADMIN_TOKEN .*: (\S+)$", "\n".join(lines), re.MULTILINE)
        headers = {"Authorization": f"Bearer {token}"}
        with httpx2.Client(base_url=address[1], headers=headers, trust_env=False) as client:
            answer = client.post("/register", json={"username": "ada", "email": "a@example.com"})
            assert answer.status_code == 201
            assert client.get("/jobs/health").json()["status"] == "ok"
            # What has not been started at the signal is left for the next start.
            eventually(lambda: client.get("/outbox").json(), "the mail is sent")
        running.send_signal(signal.SIGTERM)
        lines_until(running, "Finished server process")
        assert running.wait(20) in (128 + signal.SIGTERM, -signal.SIGTERM)

    assert (tmp_path / "data" / "shop.db").exists()
    assert [path.suffix for path in (tmp_path / "data" / "outbox").iterdir()] == [".eml"]


def test_json_log_of_the_process_is_json_in_every_line(tmp_path: Path) -> None:
    command = ("-m", "app", "serve", "--port", "0", "--log-format", "json")
    with process(*command, cwd=tmp_path, SHOP_ADMIN_TOKEN=TOKEN) as running:
        lines, address = lines_until(running, r"running on (http://127\.0\.0\.1:\d+)")
        httpx2.post(
            f"{address[1]}/register",
            json={"username": "ada", "email": "ada@example.com"},
            trust_env=False,
        ).raise_for_status()
        more, _ = lines_until(running, "send_welcome_email")

    entries = [json.loads(line) for line in [*lines, *more]]
    assert {"time", "level", "logger", "message"} <= set(entries[0])
    (job,) = [entry for entry in entries if entry.get("task") == "send_welcome_email"]
    assert job["job_id"]
    assert job["attempt"] == 1


def test_settings_that_cannot_work_end_the_process_with_their_name(tmp_path: Path) -> None:
    with process("-m", "app", "serve", cwd=tmp_path, SHOP_SMTP_PORT="smtp") as running:
        lines, _ = lines_until(running, "SHOP_SMTP_PORT")

        assert running.wait(20) == 2
    assert "Traceback" not in "\n".join(lines)
