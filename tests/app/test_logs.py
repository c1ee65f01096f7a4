"""The log: one line per event, with the job it belongs to."""

import json
import logging

import pytest

from app import logs
from app.settings import LogFormat


def test_json_log_names_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "INFO")

    extra = {"job_id": "job-1", "task": "send_welcome_email", "attempt": 2}
    logging.getLogger("jobrunner.task").info("sent to %s\nand so on", "ada", extra=extra)

    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "level": "INFO",
        "logger": "jobrunner.task",
        "message": "sent to ada\nand so on",
        **extra,
    }


def test_text_log_names_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "INFO")

    extra = {"job_id": "job-1", "task": "send_welcome_email", "attempt": 2}
    logging.getLogger("jobrunner.task").info("sent", extra=extra)

    line = capsys.readouterr().err
    assert line.endswith(
        " INFO    jobrunner.task job_id=job-1 task=send_welcome_email attempt=2: sent\n"
    )


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_log_keeps_the_traceback(capsys: pytest.CaptureFixture[str], log_format: LogFormat) -> None:
    logs.configure(log_format, "INFO")

    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logging.getLogger("app").exception("it failed")

    line = capsys.readouterr().err
    text = json.loads(line)["traceback"] if log_format == "json" else line
    assert text.startswith("Traceback") or log_format == "text"
    assert "RuntimeError: broken" in text


def test_configure_again_replaces_what_was_there(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "INFO")
    logs.configure("json", "WARNING")

    logging.getLogger("app").info("not this")
    logging.getLogger("app").warning("this")

    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "this"


def test_text_log_is_one_line_whatever_stands_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "INFO")

    try:
        raise ValueError("x\n2026-11-28 ERROR jobrunner: forged\x9b2J")
    except ValueError:
        logging.getLogger("app").exception("mail to %s failed", "a@b.c\n2026-11-28 forged\x1b[2J")

    line, *trace = capsys.readouterr().err.rstrip("\n").split("\n")
    assert "mail to a@b.c\N{REPLACEMENT CHARACTER}2026-11-28 forged" in line
    assert trace
    assert all(part.startswith("  ") and part.isprintable() for part in trace)
