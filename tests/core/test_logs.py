"""Our own log lines: one each whatever their values hold, and summed up when too many are alike."""

import io
import logging
import os
import re
import signal
import threading
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from freezegun.api import FrozenDateTimeFactory

import jobrunner
from jobrunner.core.clock import now_us
from jobrunner.core.escape import escaped, escaped_json
from jobrunner.core.logs import MOST_KINDS, WHOLE, LineFormatter, Log, Repeats, log_of, repeats

CONTROLS = "".join(
    map(
        chr,
        (
            *range(0x20),
            *range(0x7F, 0xA0),
            0x061C,
            0x200E,
            0x200F,
            *range(0x2028, 0x202F),
            *range(0x2066, 0x206A),
            0xD800,
            0xDFFF,
        ),
    )
)
FORGED = "2026-11-28 12:00:00 ERROR jobrunner: all jobs are lost"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Have what the logger ``jobrunner`` writes, as the standard formatter lays it out."""
    logger, stream = logging.getLogger("jobrunner"), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def log() -> Log:
    return log_of("jobrunner")


class Vicious:
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("control", CONTROLS, ids=lambda one: f"U+{ord(one):04X}")
def test_control_character_of_a_value_is_written_out(
    control: str, log: Log, stream: io.StringIO
) -> None:
    log.error("%s failed: %s", f"a{control}b", ValueError(f"c{control}d"))
    said = stream.getvalue()
    assert control == "\n" or control not in said
    assert said.count("\n") == 1
    written = control.encode("unicode_escape").decode()
    assert said == f"ERROR jobrunner: a{written}b failed: c{written}d\n"
    assert said.isprintable() or said[:-1].isprintable()


def test_letters_of_any_language_are_left_alone() -> None:
    text = "Grüße, 東京, שלום, 👩‍👩‍👧, \N{NO-BREAK SPACE}x"
    assert escaped(text) == text
    assert escaped("a\tb\nc\x1b", lines=True) == "a\tb\nc\\x1b"
    assert escaped_json('{\n"a": "é\x9b\u202e\x7f"}') == '{\n"a": "é\\u009b\\u202e\\u007f"}'


def test_traceback_cannot_look_like_the_next_line(log: Log, stream: io.StringIO) -> None:
    try:
        raise ValueError(f"x\n{FORGED}\r{FORGED}\x85\x1b[2J")
    except ValueError as error:
        log.error("failed: %s", error, exc_info=error)
    first, *others = stream.getvalue().rstrip("\n").split("\n")
    assert first.startswith("ERROR jobrunner: failed: x\\n2026")
    assert others[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") for line in others)
    assert not {"\r", "\x85", "\x1b"} & set(stream.getvalue())


def test_formatter_of_the_commands_does_the_same_for_every_logger() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter("%(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("tests.core.test_logs")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        logger.error("a\n%s", FORGED)
        try:
            raise ValueError(f"b\n{FORGED}\x9b")
        except ValueError:
            logger.exception("c\x1b")
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
    lines = stream.getvalue().rstrip("\n").split("\n")
    assert lines[0] == f"ERROR tests.core.test_logs: a\\n{FORGED}"
    assert lines[1] == "ERROR tests.core.test_logs: c\\x1b"
    assert all(line.startswith("  ") for line in lines[2:])
    assert "\x9b" not in stream.getvalue()


def test_record_names_its_place_template_and_numbers(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    error = KeyError("k")
    with caplog.at_level(logging.INFO, "jobrunner"):
        log.info("%d of %s took %.1f s", 3, "x\n", 1.25, extra={"job_id": "7"})
        log.error("it failed: %s", Vicious(), exc_info=error)
    first, second = caplog.records
    assert (first.filename, first.funcName) == (
        "test_logs.py",
        "test_record_names_its_place_template_and_numbers",
    )
    assert (first.msg, first.args) == ("%d of %s took %.1f s", (3, "x\\n", 1.25))
    assert first.__dict__["job_id"] == "7"
    assert second.filename == "test_logs.py"
    assert second.exc_info is not None
    assert second.exc_info[1] is error
    assert second.getMessage() == "it failed: <Vicious, which cannot be shown: RuntimeError>"


def test_every_module_writes_its_lines_by_this_way() -> None:
    root = Path(jobrunner.__file__).parent
    direct = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r'getLogger\("', path.read_text())
    }
    # The second one is the users' logger, `job.logger`.
    assert direct == {"tasks/job_logger.py"}


# -- floods -------------------------------------------------------------------------------------------


def test_outage_is_summed_up(log: Log, stream: io.StringIO, frozen: FrozenDateTimeFactory) -> None:
    for number in range(4_295):
        log.warning("job %s failed: %s", number, "connection refused", like="mail")
        frozen.tick(75 / 4_295)
        repeats.flush(now_us())
    for _ in range(60):
        frozen.tick(1)
        repeats.flush(now_us())
    lines = stream.getvalue().splitlines()
    whole = [line for line in lines if line.startswith("WARNING jobrunner: job")]
    more = [line for line in lines if "more like this" in line]
    assert len(whole) == WHOLE
    assert len(lines) <= WHOLE + 5
    summed = [int(re.match(r"WARNING jobrunner: (\d+) more", line)[1]) for line in more]  # type: ignore[index]
    assert sum(summed) + len(whole) == 4_295
    assert re.fullmatch(
        r"WARNING jobrunner: \d+ more like this in the last 30 s: job \d+ failed: connection refused",
        more[0],
    )
    assert lines[-1] == (
        "WARNING jobrunner: over: 4295 lines like this in 75 s, of which the last was: job 4294 failed:"
        " connection refused"
    )


def test_lines_that_are_not_alike_are_written_whole(
    log: Log, stream: io.StringIO, frozen: FrozenDateTimeFactory
) -> None:
    for number in range(50):
        log.error("schedule %s cannot be fired", number, like=number)
        log.debug("tick")
    assert len(stream.getvalue().splitlines()) == 100


def test_steady_line_is_no_flood(
    log: Log, stream: io.StringIO, frozen: FrozenDateTimeFactory
) -> None:
    for _ in range(200):
        log.error("slow")
        frozen.tick(4)
    assert stream.getvalue() == "ERROR jobrunner: slow\n" * 200


def test_clock_that_is_set_back_silences_nothing(
    log: Log, stream: io.StringIO, frozen: FrozenDateTimeFactory
) -> None:
    for _ in range(WHOLE + 5):
        log.error("busy")
    frozen.tick(-3600)
    repeats.flush(now_us())
    assert stream.getvalue().splitlines()[-1].startswith("ERROR jobrunner: 5 more like this")
    frozen.tick(31)
    repeats.flush(now_us())
    log.error("busy")
    assert stream.getvalue().splitlines()[-1] == "ERROR jobrunner: busy"


def test_end_of_a_runner_sums_up_what_was_not_written(
    log: Log, stream: io.StringIO, frozen: FrozenDateTimeFactory
) -> None:
    for _ in range(WHOLE + 2):
        log.error("busy")
    repeats.end()
    repeats.end()
    log.error("busy")
    assert stream.getvalue().splitlines()[WHOLE:] == [
        "ERROR jobrunner: 2 more like this in the last 0 s: busy",
        "ERROR jobrunner: busy",
    ]


def test_kinds_that_are_counted_are_bounded(log: Log, frozen: FrozenDateTimeFactory) -> None:
    counting = Repeats()
    for number in range(MOST_KINDS * 2):
        assert counting.admit(log, logging.ERROR, "x", (), number)
    assert len(counting._series) == MOST_KINDS


def test_line_that_is_not_written_keeps_no_frame(log: Log, frozen: FrozenDateTimeFactory) -> None:
    class Big:
        pass

    def fail() -> "weakref.ref[Big]":
        big = Big()
        for _ in range(WHOLE):
            log.error("failed: %s", "v")
        try:
            raise ValueError(big)
        except ValueError as error:
            log.error("failed: %s", error, exc_info=error)
        return weakref.ref(big)

    assert fail()() is None


class Destroyed:
    """Stands for what the collector destroys in the midst of counting, and which logs that it goes."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def __hash__(self) -> int:
        self.log.error("gone")
        return 1


@pytest.mark.parametrize("known", [0, MOST_KINDS])
def test_line_that_is_logged_while_one_is_counted_is_written(
    log: Log, stream: io.StringIO, frozen: FrozenDateTimeFactory, known: int
) -> None:
    for number in range(known):
        log.error("%d", number, like=number)
    frozen.tick(31)
    writes = threading.Thread(
        target=log.error, args=("full",), kwargs={"like": Destroyed(log)}, daemon=True
    )
    writes.start()
    writes.join(10)
    assert not writes.is_alive()
    said = stream.getvalue().splitlines()
    assert said[-1] == "ERROR jobrunner: full"
    assert "ERROR jobrunner: gone" in said


def test_line_that_is_logged_while_others_are_summed_up_is_written(
    log: Log, stream: io.StringIO, frozen: FrozenDateTimeFactory
) -> None:
    log.error("full", like=Destroyed(log))
    frozen.tick(31)
    repeats.flush(now_us())
    assert stream.getvalue().splitlines()[-1] == "ERROR jobrunner: gone"


def test_child_of_a_fork_logs_though_another_thread_was_counting(
    log: Log, stream: io.StringIO
) -> None:
    counting, forked = threading.Event(), threading.Event()

    class Slow:
        def __hash__(self) -> int:
            counting.set()
            forked.wait(10)
            return 1

    other = threading.Thread(target=log.error, args=("slow",), kwargs={"like": Slow()})
    other.start()
    assert counting.wait(10)
    with warnings.catch_warnings():
        # Later Pythons warn of a fork beside threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(10)
        log.error("in the child")
        os._exit(0 if "in the child" in stream.getvalue() else 1)
    forked.set()
    other.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
