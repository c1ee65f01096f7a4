"""Tables are drawn for people, and plain for everybody else; what a job stored stays text."""

import ast
import asyncio
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from jobrunner import JobRunner, cli
from jobrunner.cli import command_group
from jobrunner.cli.filters import instant
from jobrunner.cli.output import say_fields, say_table
from jobrunner.core.clock import utcnow
from jobrunner.runner.shutdown import SIGNALS
from tests.cli.conftest import Stored
from tests.support.forks import fork
from tests.support.processes import CHECKOUT


def on_a_terminal(*words: str, columns: int = 200) -> str:
    """Run a command on a terminal; return what it has shown."""
    ours, theirs = pty.openpty()
    _, ended = fork(
        ["-m", "jobrunner.cli", *words],
        [theirs, theirs, theirs],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT), "COLUMNS": str(columns), "TERM": "xterm"},
        cwd=CHECKOUT,
        is_command=True,
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # how Linux says that the other side is gone
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    with ended:
        assert int(ended.recv(64)) == 0, shown
    return shown.decode()


def test_table_on_a_terminal_is_drawn_and_cuts_no_id(stored: Stored) -> None:
    at = ("--store", str(stored.path))
    shown = on_a_terminal("jobs", "list", *at)
    assert stored.done in shown
    assert "\t" not in shown
    assert "─" in shown
    for columns in (20, 40, 60, 80, 100, 120):
        narrow = on_a_terminal("dead", "list", *at, columns=columns)
        assert all(id in narrow for id in stored.dead)
        # Folded at its words or not at all.
        assert "exhausted" in narrow
        assert "attempt" in narrow
    assert "no jobs match" in on_a_terminal("jobs", "list", "--tag", "nobody", *at)


def test_many_on_a_terminal_are_replayed_with_a_bar(stored: Stored) -> None:
    shown = on_a_terminal("dead", "replay", "--all", "--yes", "--store", str(stored.path))
    assert "3 replayed" in shown
    assert "100%" in shown


def test_colours_are_left_out_where_they_are_not_wanted(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\x1b[32m" in on_a_terminal("doctor", "--store", str(stored.path))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in on_a_terminal("doctor", "--store", str(stored.path))


@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["text", "json"])
def test_letters_that_the_output_does_not_have_are_escaped(
    tmp_path: Path, as_json: tuple[str, ...]
) -> None:
    path = tmp_path / "\N{GREEK SMALL LETTER ALPHA}.db"
    answer = subprocess.run(
        [sys.executable, "-m", "jobrunner.cli", "doctor", *as_json, "--store", path],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (8, b"")
    if as_json:
        assert json.loads(answer.stdout)["store"] == str(path)
    else:
        assert rb"\u03b1.db" in answer.stdout


@pytest.mark.parametrize("to", [">&-", "> /dev/full"])
def test_answer_that_nobody_can_take_ends_in_a_line_at_most(stored: Stored, to: str) -> None:
    answer = subprocess.run(
        [
            "/bin/sh",
            "-c",
            f'"$0" -m jobrunner.cli status --store "$1" {to}',
            sys.executable,
            stored.path,
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    said = {">&-": (0, ""), "> /dev/full": (1, "Error: No space left on device\n")}
    assert (answer.returncode, answer.stderr) == said[to]


def test_drawn_table_shows_brackets_and_backslashes_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for text in ("[red]", "list[0]", r"C:\[temp]", "[/]", "end\\"):
        say_table(("error",), [(text,)], empty="-")
        assert text in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, -signal.SIGTERM)], ids=str
)
def test_question_is_ended_by_the_first_signal(stored: Stored, number: int, code: int) -> None:
    ours, theirs = pty.openpty()
    words = ("dead", "delete", "--all", "--store", str(stored.path))
    command = subprocess.Popen(
        [sys.executable, "-m", "jobrunner.cli", *words],
        cwd=CHECKOUT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        shown = b""
        while b"delete 3 dead letter(s)?" not in shown:
            shown += os.read(ours, 65536)
        # Until it sleeps at the terminal: Python's input() does not see a signal that comes right before.
        while "\nState:\tS" not in Path(f"/proc/{command.pid}/status").read_text():
            pass
        command.send_signal(number)
        assert command.wait(10) == code
    finally:
        command.kill()
        command.wait()
        os.close(ours)


def test_table_without_rich_is_aligned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rich.box", None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    say_table(("id", "task"), [("1", "greet"), ("200", "x")], empty="-")
    assert capsys.readouterr().out == "id   task\n1    greet\n200  x\n"


def test_control_characters_of_a_job_do_not_reach_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    evil = "a\x1b[2Jb\tc\nd"
    say_table(("error",), [(evil,)], empty="-")
    say_fields({"error": evil, "missing": None})
    assert capsys.readouterr().out == ("error\na\\x1b[2Jb c d\nerror  a\\x1b[2Jb c\n       d\n")


EVIL = "a\x1b[2J\x9b2J\u202eb\u2028c\x7f\n! forged\r"
"""A tag may hold nothing of it, an error and an argument all of it."""


def commands_about(store: Path, id: str) -> list[tuple[str, ...]]:
    return [
        ("status",),
        ("jobs", "list"),
        ("jobs", "show", id),
        ("jobs", "cancel", id),
        ("jobs", "cancel", "--task", EVIL, "--dry-run"),
        ("jobs", "reschedule", id, "--in", "1h"),
        ("dead", "list"),
        ("dead", "show", id),
        ("dead", "show", EVIL),
        ("dead", "replay", "--task", EVIL),
        ("dead", "replay", id),
        ("queues", "list"),
        ("queues", "pause", EVIL),
        ("backup", str(store.parent / EVIL / "x")),
        ("doctor",),
    ]


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """Restore the signal handlers that commands install, since they expect a process of their own."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
async def evil(tmp_path: Path) -> tuple[Path, str]:
    """Store a dead letter whose error, argument and task are evil, in a file of such a name."""
    path = tmp_path / f"s{EVIL.strip()}.db"
    jobs = JobRunner(path)
    died = asyncio.Event()
    jobs.on_dead(lambda _: died.set())

    @jobs.task(max_attempts=1)
    async def fail(text: str) -> None:
        raise LookupError(text)

    async with jobs.running():
        job = await jobs.enqueue(fail, EVIL)
        await asyncio.wait_for(died.wait(), 15)
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("UPDATE jobrunner_dead_letters SET error = ?, task = ?", (EVIL, f"t{EVIL}"))
    return path, job.id


@pytest.mark.usefixtures("signal_handlers")
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_no_command_lets_stored_text_steer_the_terminal(
    evil: tuple[Path, str], *, as_json: bool
) -> None:
    path, id = evil
    for words in commands_about(path, id):
        answer = CliRunner().invoke(
            command_group(), [*words, "--store", str(path), *(["--json"] if as_json else [])]
        )
        shown = answer.stdout + answer.stderr
        assert shown, (words, answer)
        assert not isinstance(answer.exception, UnicodeError), words
        lines = shown.split("\n")
        assert all(line.replace("\t", "").isprintable() for line in lines), (words, lines)
        assert not any(line.startswith("! forged") for line in lines), words
        if as_json and answer.exit_code == 0:
            json.loads(answer.stdout)


def test_commands_print_nothing_but_constants_past_the_escaping() -> None:
    for path in Path(cli.__file__).parent.rglob("*.py"):
        if path.name == "output.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "click.echo"):
                continue
            said = [part for argument in node.args for part in ast.walk(argument)]
            assert not any(isinstance(part, ast.JoinedStr) for part in said), ast.unparse(node)


def test_time_is_how_long_ago_or_iso() -> None:
    assert abs(utcnow() - timedelta(hours=24) - instant("24h")) < timedelta(minutes=1)
    assert instant("2026-11-22T08:00:00+02:00") == datetime(2026, 11, 22, 6, tzinfo=UTC)
    assert instant("2026-11-22T08:00:00Z").tzinfo is UTC


@pytest.mark.parametrize(
    "text", ["", "h", "24x", "-3h", "²h", "99999999999999d", "2026-11-22T08:00"]
)
def test_time_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        instant(text)
