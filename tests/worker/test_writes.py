"""``job.write()``: rows of the application in the transaction that settles the job, both or neither."""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tenacity import wait_none

from jobrunner import Bury, InvalidWrite, JobContext, JobRunner, Snooze, Task
from jobrunner.store.sqlite.sql import task_writes
from jobrunner.testing import JobTester, Run
from jobrunner.worker.grace import Grace
from tests.support.engine import Gate, on_writer, supervisor_of

Write = Callable[..., object]


@pytest.fixture
def jobs(tmp_db: Path) -> JobRunner:
    with contextlib.closing(sqlite3.connect(tmp_db)) as db:
        db.execute("CREATE TABLE words (word TEXT NOT NULL, UNIQUE (word))")
    return JobRunner(tmp_db, queues={"default": 8})


def words(jobs: JobRunner) -> list[str]:
    with contextlib.closing(sqlite3.connect(jobs.settings.store)) as db:
        return [word for (word,) in db.execute("SELECT word FROM words ORDER BY word")]


def add(connection: sqlite3.Connection, word: str) -> None:
    connection.execute("INSERT INTO words VALUES (?)", (word,))


def on_file(jobs: JobRunner) -> JobTester:
    """Return a tester on the file with the table of words."""
    return JobTester(jobs, store=jobs.settings.store)


def writing(jobs: JobRunner, function: Write) -> Task[[str], str]:
    """Return a task that writes with the function."""

    @jobs.task(max_attempts=2, wait=wait_none())
    async def write(job: JobContext, word: str) -> str:
        job.write(function, word)
        return word

    return write


async def run_together(t: JobTester, write: Task[[str], str], *words: str) -> dict[str, Run[str]]:
    """Run a job for each word, all claimed in one round; return their runs by word."""
    for word in words:
        await write.enqueue(word)
    await t.run_until_idle()
    runs = {run.args["word"]: run for run in t.runs(write)}
    assert runs.keys() == set(words)
    return runs


# -- what is written -----------------------------------------------------------------------------------


async def test_writes_of_a_success_are_there_with_it(jobs: JobRunner) -> None:
    write = writing(jobs, add)
    async with on_file(jobs) as t:
        assert (await t.perform(write, "one")).outcomes == ["succeeded"]
        assert words(jobs) == ["one"]


async def test_writes_of_def_tasks_are_done_in_order_with_all_their_arguments(
    jobs: JobRunner,
) -> None:
    def rename(connection: sqlite3.Connection, old: str, *, new: str) -> None:
        assert connection.execute("UPDATE words SET word = ? WHERE word = ?", (new, old)).rowcount

    @jobs.task
    def work(job: JobContext) -> None:
        job.write(add, "a")
        job.write(rename, "a", new="b")

    async with on_file(jobs) as t:
        await t.perform(work, until="succeeded")
        assert words(jobs) == ["b"]


async def test_many_jobs_write_in_few_transactions(jobs: JobRunner) -> None:
    write, many = writing(jobs, add), [f"{n:03}" for n in range(200)]
    async with on_file(jobs) as t:
        runs = await run_together(t, write, *many)
        assert {run.state for run in runs.values()} == {"succeeded"}
        assert words(jobs) == many


@pytest.mark.parametrize("end", ["fails", "snoozes", "is buried", "is cancelled", "is given back"])
async def test_writes_of_an_attempt_that_does_not_succeed_are_not_done(
    jobs: JobRunner, end: str
) -> None:
    gate = Gate()

    @jobs.task(max_attempts=1)
    async def work(job: JobContext) -> None:
        job.write(add, f"{end} {job.attempt}")
        match end:
            case "fails":
                raise ValueError
            case "snoozes":
                raise Snooze(3600)
            case "is buried":
                raise Bury("enough")
        await gate.enter()

    async with jobs.running():
        job = await work.enqueue()
        if end == "is cancelled":
            await gate.arrival()
            await jobs.cancel(job.id)
        elif end == "is given back":
            await gate.arrival()
            supervisor = supervisor_of(jobs)
            await supervisor.stop_all(Grace(0))
    async with jobs.running(work=False):
        assert (await jobs.get(job.id)).state in {"dead", "scheduled", "cancelled", "queued"}
        assert words(jobs) == []


# -- F11: a write that fails --------------------------------------------------------------------------------


async def test_F11_write_that_raises_fails_the_attempt_and_leaves_nothing(jobs: JobRunner) -> None:
    calls: list[str] = []

    def raise_at_first(connection: sqlite3.Connection, word: str) -> None:
        add(connection, f"{word} {len(calls)}")
        calls.append(word)
        if len(calls) == 1:
            raise RuntimeError("after the row")

    write = writing(jobs, raise_at_first)
    async with on_file(jobs) as t:
        run = await t.perform(write, "word")
        assert run.outcomes == ["failed", "succeeded"]
        first = run.job.history[0]
        assert (first.error_type, first.error) == ("RuntimeError", "after the row")
        assert "raise_at_first" in (first.traceback or "")
        assert words(jobs) == ["word 1"]


async def test_F11_write_that_fails_each_time_is_a_dead_letter_and_harms_nobody(
    jobs: JobRunner,
) -> None:
    def twice(connection: sqlite3.Connection, word: str) -> None:
        add(connection, word)
        if word.startswith("bad"):
            add(connection, word)

    write = writing(jobs, twice)
    async with on_file(jobs) as t:
        runs = await run_together(t, write, "a", "bad 1", "b", "bad 2", "c")
        assert {word for word, run in runs.items() if run.state == "dead"} == {"bad 1", "bad 2"}
        dead = runs["bad 1"]
        assert (dead.reason, dead.outcomes) == ("exhausted", ["failed", "failed"])
        assert dead.error_type == "sqlite3.IntegrityError"
        assert words(jobs) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT OR ROLLBACK INTO words VALUES ('a'), ('a')",
        "INSERT INTO words VALUES (NULL)",
        "SELECT * FROM nowhere",
    ],
)
async def test_F11_write_that_takes_the_whole_round_along_is_left_out_of_it(
    jobs: JobRunner, statement: str
) -> None:
    def write(connection: sqlite3.Connection, word: str) -> None:
        add(connection, word)
        if word == "bad":
            connection.execute(statement)

    task = writing(jobs, write)
    async with on_file(jobs) as t:
        runs = await run_together(t, task, "x", "bad", "y")
        assert {word for word, run in runs.items() if run.state == "dead"} == {"bad"}
        assert words(jobs) == ["x", "y"]


async def test_F11_rollback_that_the_function_hides_is_found(jobs: JobRunner) -> None:
    def write(connection: sqlite3.Connection, word: str) -> None:
        with contextlib.suppress(sqlite3.IntegrityError):
            connection.execute("INSERT OR ROLLBACK INTO words VALUES ('a'), ('a')")

    task = writing(jobs, write)
    async with on_file(jobs) as t:
        await t.perform(task, "word", until="dead")
        assert words(jobs) == []


async def test_F11_statement_that_is_left_unfinished_is_ended_with_the_function(
    jobs: JobRunner,
) -> None:
    kept = []

    def write(connection: sqlite3.Connection, word: str) -> None:
        if word == "bad":
            cursor = connection.execute("INSERT INTO words VALUES ('p'), ('q') RETURNING word")
            kept.append(cursor)
        else:
            add(connection, word)

    task = writing(jobs, write)
    async with on_file(jobs) as t:
        runs = await run_together(t, task, "x", "bad", "y")
        assert {run.state for run in runs.values()} == {"succeeded"}
        assert len(kept) == 1
        assert words(jobs) == ["p", "q", "x", "y"]


# -- F12, F13: what is not the function's ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "harm",
    [
        lambda c: c.commit(),
        lambda c: c.rollback(),
        lambda c: c.execute("COMMIT"),
        lambda c: c.execute("ROLLBACK"),
        lambda c: c.execute("BEGIN"),
        lambda c: c.execute("SAVEPOINT mine"),
        lambda c: c.execute("RELEASE jobrunner_item -- mine"),
        lambda c: c.execute("PRAGMA synchronous = OFF"),
        lambda c: c.execute("ATTACH ':memory:' AS other"),
        lambda c: c.executescript("INSERT INTO words VALUES ('script')"),
        lambda c: c.__exit__(None, None, None),
        lambda c: c.close(),
    ],
)
async def test_F12_function_cannot_end_or_split_the_transaction(
    jobs: JobRunner, harm: Callable[[sqlite3.Connection], object]
) -> None:
    def write(connection: sqlite3.Connection, word: str) -> None:
        add(connection, word)
        if word != "good":
            harm(connection)

    task = writing(jobs, write)
    async with on_file(jobs) as t:
        runs = await run_together(t, task, "bad", "good")
        assert (runs["bad"].state, runs["bad"].error_type) == ("dead", "InvalidWrite"), runs["bad"]
        assert runs["good"].state == "succeeded"
        assert words(jobs) == ["good"]
        assert (await jobs.health()).status == "ok"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE jobrunner_jobs SET state = 'succeeded'",
        "INSERT INTO words SELECT id FROM JOBRUNNER_JOBS",
        "DELETE FROM jobrunner_dead_letters",
        "DROP TABLE jobrunner_meta",
        "ALTER TABLE jobrunner_jobs ADD COLUMN mine TEXT",
        "CREATE TRIGGER mine AFTER INSERT ON jobrunner_jobs BEGIN DELETE FROM words; END",
        "CREATE INDEX mine ON jobrunner_jobs (task)",
    ],
)
async def test_F13_tables_of_the_queue_are_closed_to_the_function(
    jobs: JobRunner, statement: str
) -> None:
    def write(connection: sqlite3.Connection, word: str) -> None:
        with contextlib.suppress(sqlite3.Error):  # a function that swallows it is refused as well
            connection.execute(statement)

    task = writing(jobs, write)
    async with on_file(jobs) as t:
        run = await t.perform(task, "word", until="dead")
        assert run.error_type == "InvalidWrite"
        assert "a table of jobrunner's" in (run.error or "")
        assert words(jobs) == []


async def test_F13_a_column_of_the_applications_may_have_our_prefix(jobs: JobRunner) -> None:
    def write(connection: sqlite3.Connection, word: str) -> None:
        connection.execute("CREATE TABLE calls (jobrunner_id TEXT)")
        connection.execute("INSERT INTO calls (jobrunner_id) VALUES (?)", (word,))
        connection.execute("UPDATE calls SET jobrunner_id = 'b'")
        assert connection.execute("SELECT jobrunner_id FROM calls").fetchall() == [("b",)]

    task = writing(jobs, write)
    async with on_file(jobs) as t:
        await t.perform(task, "a", until="succeeded")


async def test_connection_comes_back_as_it_was_lent(jobs: JobRunner) -> None:
    def write(connection: sqlite3.Connection, word: str) -> None:
        connection.row_factory = sqlite3.Row
        connection.text_factory = bytes

    task = writing(jobs, write)
    async with on_file(jobs) as t:
        for word in ("a", "b"):
            await t.perform(task, word, until="succeeded")
        assert await on_writer(jobs, lambda c: (c.row_factory, c.text_factory)) == (None, str)


# -- B5: the budget ---------------------------------------------------------------------------------------------


async def test_B5_statement_over_the_budget_is_cut_short_and_fails_the_attempt(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_writes, "BUDGET_S", 0.02)

    def write(connection: sqlite3.Connection, word: str) -> None:
        add(connection, word)
        if word == "slow":
            connection.execute(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
                " INSERT INTO words SELECT 'slow ' || i FROM n"
            )

    task = writing(jobs, write)
    async with on_file(jobs) as t:
        runs = await run_together(t, task, "slow", "quick")
        assert runs["slow"].outcomes == ["timed_out", "timed_out"]
        assert "write" in (runs["slow"].error or "")
        assert runs["quick"].state == "succeeded"
        assert words(jobs) == ["quick"]


async def test_B5_python_over_the_budget_fails_the_attempt(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_writes, "BUDGET_S", 0.0)

    def write(connection: sqlite3.Connection, word: str) -> None:
        add(connection, word)
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass

    task = writing(jobs, write)
    async with on_file(jobs) as t:
        assert (await t.perform(task, "slow")).outcomes == ["timed_out", "timed_out"]
        assert words(jobs) == []


# -- refused at the call -------------------------------------------------------------------------------------------


async def coroutine_function(connection: sqlite3.Connection) -> None: ...


@pytest.mark.parametrize("what", [coroutine_function, "INSERT", None])
async def test_write_of_what_is_no_plain_function_is_refused_at_the_call(
    jobs: JobRunner, what: Any
) -> None:
    @jobs.task(max_attempts=1)
    async def work(job: JobContext) -> None:
        with pytest.raises(InvalidWrite, match="def"):
            job.write(what)

    async with on_file(jobs) as t:
        await t.perform(work, until="succeeded")


async def test_write_that_returns_a_coroutine_fails_the_attempt(jobs: JobRunner) -> None:
    task = writing(jobs, lambda connection, word: coroutine_function(connection))
    async with on_file(jobs) as t:
        assert (await t.perform(task, "word")).error_type == "InvalidWrite"


async def test_write_that_yields_fails_the_attempt(jobs: JobRunner) -> None:
    def add_lazily(connection: sqlite3.Connection, word: str) -> Iterator[None]:
        add(connection, word)
        yield

    task = writing(jobs, add_lazily)
    async with on_file(jobs) as t:
        run = await t.perform(task, "one", until="dead")
        assert "a generator would not run" in (run.error or "")
        assert words(jobs) == []


@pytest.mark.parametrize("verb", ["enqueue", "cancel", "run"])
async def test_write_that_would_wait_for_the_queue_fails_the_attempt(
    jobs: JobRunner, verb: str
) -> None:
    """Its thread is the one that writes: without this nobody would write any more."""

    @jobs.task
    async def nothing() -> None: ...

    def ask(connection: sqlite3.Connection, id: str) -> None:
        add(connection, id)
        match verb:
            case "enqueue":
                jobs.sync.enqueue(nothing)
            case "cancel":
                jobs.sync.cancel(id)
            case _:
                jobs.sync.run(jobs.get(id))

    task = writing(jobs, ask)
    async with on_file(jobs) as t:
        run = await t.perform(task, "one", until="dead")
        assert "enqueue in the task" in (run.error or "")
        assert words(jobs) == []
