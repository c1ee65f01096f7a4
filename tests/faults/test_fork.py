"""Forked children of a process with an open runner: each verb is refused at once, and the parent loses nothing."""

import json
import os
import signal
from pathlib import Path

from tests.support.processes import child
from tests.support.scripts import run

PRELUDE = """
import asyncio, json, os, signal, sqlite3, sys, threading, warnings
from jobrunner import JobRunner
from jobrunner.prometheus import JobCollector
from jobrunner.queue.queue import joined
from jobrunner.queue.sync import SyncQueue

file = sys.argv[1]
jobs = JobRunner(file)

@jobs.task
async def note(number: int) -> int:
    return number

@jobs.task(max_attempts=1)
async def fail() -> None:
    raise RuntimeError("no")

def in_child(do) -> int:
    # Later Pythons warn of a fork beside threads.
    warnings.simplefilter("ignore", DeprecationWarning)
    if (pid := os.fork()) == 0:
        # What hangs ends by a signal, which the parent sees.
        signal.alarm(10)
        do()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

VERBS = """
with jobs.sync.running():
    job = jobs.sync.enqueue(note, 1)
    letter = jobs.sync.enqueue(fail)
    for one in (job, letter):
        try:
            jobs.sync.run(one.result(timeout=15))
        except Exception as error:
            assert type(error).__name__ == "JobDead", error
    batch = jobs.sync.enqueue_batch([note.options(delay=3600).call(1)])
    queue, dead, schedules = jobs._open, jobs.dead_letters, jobs.schedules
    jobs.sync.run(schedules.upsert("s", note, every=3600, args=[1]))
    jobs._status._paths["note"] = "/status/{id}"  # as if an application had a status router
    connection = sqlite3.connect(file)
    view = SyncQueue(joined(queue, connection))
    blocking = {
        "sync.enqueue of a view": lambda: view.enqueue(note, 1),
        "sync.enqueue": lambda: jobs.sync.enqueue(note, 1),
        "sync.enqueue of a route": lambda: SyncQueue(queue).enqueue(note, 1),
        "sync.enqueue through a session": lambda: jobs.sync.enqueue(note.options(session=connection), 1),
        "sync.enqueue_many": lambda: jobs.sync.enqueue_many([note.call(1)]),
        "sync.enqueue_chain": lambda: jobs.sync.enqueue_chain([note.call(1)]),
        "sync.enqueue_batch": lambda: jobs.sync.enqueue_batch([note.call(1)]),
        "sync.get": lambda: jobs.sync.get(job.id),
        "sync.cancel": lambda: jobs.sync.cancel(job.id),
        "sync.run": lambda: jobs.sync.run(jobs.list()),
        "metrics": lambda: list(JobCollector(jobs).collect()),
    }
    awaited = {
        "task.enqueue": lambda: note.enqueue(1),
        "enqueue": lambda: jobs.enqueue(note, 1),
        "enqueue through a session": lambda: jobs.enqueue(note.options(session=connection), 1),
        "enqueue_many": lambda: jobs.enqueue_many([note.call(1)]),
        "enqueue_chain": lambda: jobs.enqueue_chain([note.call(1)]),
        "enqueue_batch": lambda: jobs.enqueue_batch([note.call(1)]),
        "enqueue_batch through a session": lambda: jobs.enqueue_batch([note.options(session=connection).call(1)]),
        "batches.get": lambda: jobs.batches.get(batch.id),
        "batches.list": lambda: jobs.batches.list(),
        "batches.retry": lambda: jobs.batches.retry(batch.id),
        "batches.cancel": lambda: jobs.batches.cancel(batch.id),
        "batches.add": lambda: jobs.batches.add(batch.id, [note.call(1)]),
        "batch.wait": lambda: batch.wait(),
        "batch.results": lambda: batch.results(),
        "get": lambda: jobs.get(job.id),
        "list": lambda: jobs.list(),
        "cancel": lambda: jobs.cancel(job.id),
        "cancel_all": lambda: jobs.cancel_all(),
        "reschedule": lambda: jobs.reschedule(job.id, 60),
        "reschedule_all": lambda: jobs.reschedule_all(60),
        "queues": lambda: jobs.queues.list(),
        "pause": lambda: jobs.queues.pause("default"),
        "resume": lambda: jobs.queues.resume("default"),
        "limits.set": lambda: jobs.limits.set(queue="default", concurrency=4),
        "limits.reset": lambda: jobs.limits.reset(queue="default"),
        "limits.list": lambda: jobs.limits.list(),
        "health": lambda: jobs.health(),
        "signal": lambda: jobs.signal(job.id, "approved"),
        "stats": lambda: jobs.stats(),
        "audit.list": lambda: jobs.audit.list(),
        "job.result": lambda: job.result(timeout=5),
        "job.refresh": lambda: job.refresh(),
        "respond": lambda: jobs.respond(job),
        "dead_letters.list": lambda: dead.list(),
        "dead_letters.groups": lambda: dead.groups(),
        "dead_letters.count": lambda: dead.count(),
        "dead_letters.get": lambda: dead.get(letter.id),
        "dead_letters.replay": lambda: dead.replay(letter.id),
        "dead_letters.replay with arguments": lambda: dead.replay(letter.id, args={}),
        "dead_letters.replay_all": lambda: dead.replay_all(),
        "dead_letters.delete": lambda: dead.delete(letter.id),
        "dead_letters.delete_all": lambda: dead.delete_all(),
        "schedules.get": lambda: schedules.get("s"),
        "schedules.list": lambda: schedules.list(),
        "schedules.ticks": lambda: schedules.ticks("s"),
        "schedules.upsert": lambda: schedules.upsert("t", note, every=60, args=[1]),
        "schedules.pause": lambda: schedules.pause("s"),
        "schedules.resume": lambda: schedules.resume("s"),
        "schedules.remove": lambda: schedules.remove("s"),
        "schedules.run_now": lambda: schedules.run_now("s"),
    }

    async def wait_for(call):
        return await call()

    def try_all() -> None:
        said = {}
        tries = blocking | {name: lambda call=call: asyncio.run(wait_for(call)) for name, call in awaited.items()}
        for name, call in tries.items():
            try:
                said[name] = f"answered {call()}"
            except Exception as error:
                said[name] = f"{type(error).__name__}: {error}"
        print(json.dumps(said), flush=True)

    assert in_child(try_all) == 0
    health = jobs.sync.run(jobs.health())
    assert health.status == "ok", health.problems
    connection.close()
"""


def test_every_verb_in_a_forked_child_is_refused_at_once(tmp_db: Path) -> None:
    said = json.loads(run(PRELUDE + VERBS, tmp_db))
    assert len(said) == 61
    wrong = {
        verb: answer
        for verb, answer in said.items()
        if not answer.startswith("NotRunning: this process was forked while ")
    }
    assert wrong == {}


def test_fork_in_a_thread_of_the_application_is_refused_there(tmp_db: Path) -> None:
    script = """
async def main() -> None:
    def enqueue() -> None:
        try:
            jobs.sync.enqueue(note, 1)
        except Exception as error:
            print(type(error).__name__, "spawn" in str(error), flush=True)

    async with jobs.running():
        assert await asyncio.wait_for(asyncio.to_thread(in_child, enqueue), 15) == 0
        assert (await jobs.list()).items == []

asyncio.run(main())
"""
    assert run(PRELUDE + script, tmp_db) == "NotRunning True"


def test_child_that_ends_well_leaves_the_parents_locks_files_and_doorbell(tmp_db: Path) -> None:
    """It leaves the ``with`` block, and Python's own way out closes and collects whatever it finds."""
    script = """
from jobrunner.store.sqlite.host.locks import take_if_dead, worker_files
from pathlib import Path

def look() -> None:
    folder = Path(f"{file}-jobrunner")
    (lock,) = worker_files(folder).values()
    assert take_if_dead(lock) == "alive"
    assert sorted(path.name for path in folder.parent.iterdir() if path.name.startswith("jobs.db")) == [
        "jobs.db", "jobs.db-jobrunner", "jobs.db-shm", "jobs.db-wal"
    ]

warnings.simplefilter("ignore", DeprecationWarning)
with jobs.sync.running() as running:
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
    else:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        # Asked from a process that has none of the locks.
        assert in_child(look) == 0
        bells = [row.doorbell for row in jobs.sync.run(running._open._parts.store.workers.list())]
        assert all(os.path.exists(bell) for bell in bells), bells
        job = jobs.sync.enqueue(note, 7)
        print(jobs.sync.run(job.result(timeout=15)))
if pid == 0:
    sys.exit(0)
"""
    assert run(PRELUDE + script, tmp_db) == "7"


def test_multiprocessing_by_fork_is_refused_on_the_same_file_and_by_spawn_works(
    tmp_db: Path, tmp_path: Path
) -> None:
    module = tmp_path / "crunching.py"
    module.write_text(
        PRELUDE.replace("sys.argv[1]", "os.environ['FILE']")
        + """
def open_it(name: str, answers) -> None:
    signal.alarm(20)
    try:
        with (jobs if name == "the same" else JobRunner(name)).sync.running(work=False) as opened:
            answers.put(opened.sync.run(opened.health()).status)
    except Exception as error:
        answers.put(f"{type(error).__name__}: {error}")
"""
    )
    script = f"""
import multiprocessing, os, sys, warnings
sys.path.insert(0, {str(tmp_path)!r})
os.environ["FILE"] = file = sys.argv[1]
import crunching
warnings.simplefilter("ignore", DeprecationWarning)

def ask(method: str, name: str) -> str:
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    process = context.Process(target=crunching.open_it, args=(name, answers))
    process.start()
    answer = answers.get()
    process.join()
    assert process.exitcode == 0
    return answer

if __name__ == "__main__":
    print(ask("fork", "the same"))  # before it is open: as gunicorn does with --preload
    with crunching.jobs.sync.running():
        print(ask("fork", "the same"))
        print(ask("fork", file))
        print(ask("fork", file + ".other"))
        print(ask("spawn", "the same"))
    print(ask("fork", "the same"))
"""
    before, same_runner, same_file, other_file, spawned, after = run(script, tmp_db).splitlines()
    assert (before, other_file, spawned, after) == ("ok", "ok", "ok", "ok")
    for refused in (same_runner, same_file):
        assert refused.startswith("AlreadyRunning: this process was forked while ")
        assert "spawn" in refused


async def test_signal_to_a_forked_child_of_a_task_ends_the_child_and_not_the_worker(
    tmp_db: Path,
) -> None:
    """The child shares the socket by which the parent's loop learns of signals."""
    async with child("run", tmp_db) as worker, child("client", tmp_db) as client:
        await worker.heard("ready")
        await client.heard("open")
        client.send("fork")
        forked = await worker.heard("forked")
        os.kill(forked["pid"], signal.SIGTERM)
        ended = await worker.heard("child ended")
        assert ended["code"] == -signal.SIGTERM
        # It still works.
        client.send("hold a")
        await client.heard("stored")
        id = (await client.heard("stored"))["id"]
        await worker.heard("held")
        client.send(f"cancel {id}")
        assert (await client.heard("cancelled"))["status"] == "requested"
        worker.send_signal(signal.SIGTERM)
        await worker.heard("closed")
        assert await worker.ended() == 0


def test_signal_that_comes_in_the_middle_of_a_fork_reaches_the_child_alone(tmp_db: Path) -> None:
    """The child is hit before it has the default handlers again, while it still shares the parent's socket."""
    script = """
import asyncio, os, signal

os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
from jobrunner.runner.shutdown import handled

async def main():
    heard = []
    with handled(heard.append):
        child = os.fork()
        if child == 0:
            os._exit(0)
        _, status = os.waitpid(child, 0)
        for _ in range(3):  # turns of the loop, in each of which it looks at its socket
            await asyncio.sleep(0)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    print(os.WTERMSIG(status), heard, mask)

asyncio.run(main())
"""
    assert run(script, tmp_db) == f"{signal.SIGTERM:d} [] set()"
