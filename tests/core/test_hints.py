"""The words of other job queues are answered with ours."""

import inspect
from typing import Any, get_args

import pytest

from jobrunner import Job, JobContext, JobQueue, JobRunner, Retry, Snooze
from jobrunner.core import hints
from jobrunner.core.clock import EPOCH
from jobrunner.tasks.options import JOB_OPTIONS, TASK_OPTIONS
from jobrunner.tasks.router import TaskRouter
from jobrunner.tasks.schedule_options import ScheduleOptions
from jobrunner.worker.settings import RUNNER_OPTIONS

router = TaskRouter()


@router.task
async def send_mail(email: str) -> None: ...


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("countdown", "delay="), ("_defer_by", "delay="), ("schedule_in", "delay="),
        ("eta", "run_at="), ("_defer_until", "run_at="), ("schedule_at", "run_at="), ("when", "run_at="),
        ("_job_id", "key="), ("task_id", "key="), ("queueing_lock", "key="), ("lock", "key="),
        ("_queue_name", "queue="), ("routing_key", "queue="),
        ("_expires", "expires="), ("max_age", "expires="), ("ttl", "expires="),
        ("max_retries", "max_attempts="), ("max_tries", "max_attempts="), ("retries", "max_attempts="),
        ("time_limit", "timeout="), ("job_timeout", "timeout="),
        ("at_front", "priority="), ("labels", "tag="),
        ("retry_backoff", "@task(wait="), ("autoretry_for", "@task(retry="), ("result_ttl", "@task(retention="),
        ("wait", "@task(wait="), ("retry", "@task(retry="), ("name", "@task(name="),
        ("link", "enqueue_chain("), ("depends_on", "enqueue_chain("), ("on_failure", "@jobs.on_dead"),
        ("args", "queue.enqueue(task.options(...), *args"),
    ],
)  # fmt: skip
def test_options_with_a_foreign_word_names_ours(word: str, ours: str) -> None:
    words: Any = {word: 1}
    with pytest.raises(TypeError) as caught:
        send_mail.options(**words)
    assert f"send_mail.options() has no option {word!r}" in str(caught.value)
    assert ours in str(caught.value)


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("max_retries", "max_attempts="), ("max_tries", "max_attempts="), ("retries", "max_attempts="),
        ("autoretry_for", "retry=retry_if_exception_type"), ("throws", "retry=retry_if_not_exception_type"),
        ("retry_backoff", "wait=wait_exponential_jitter"), ("min_backoff", "wait="),
        ("default_retry_delay", "wait=wait_fixed"), ("retry_delay", "wait=wait_fixed"),
        ("time_limit", "timeout="), ("soft_time_limit", "timeout="),
        ("bind", "`job: JobContext`"), ("pass_context", "`job: JobContext`"),
        ("acks_late", "nothing"), ("ignore_result", "nothing"), ("serializer", "nothing"),
        ("keep_result", "retention="), ("task_name", "name="), ("actor_name", "name="),
        ("queue_name", "queue="), ("max_concurrency", "concurrency=Concurrency("), ("max_age", "expires="),
        ("countdown", "task.options(delay="), ("eta", "task.options(run_at="),
        ("key", "task.options(key="), ("delay", "task.options(delay="), ("queueing_lock", "task.options(key="),
        ("retry_kwargs", "max_attempts="), ("retry_on_error", "nothing"), ("schedule", "@jobs.cron("),
    ],
)  # fmt: skip
def test_task_with_a_foreign_word_names_ours(word: str, ours: str) -> None:
    words: Any = {word: 1}
    with pytest.raises(TypeError) as caught:
        router.task(**words)
    assert f"@task() has no option {word!r}" in str(caught.value)
    assert ours in str(caught.value)


def test_router_with_a_foreign_word_names_ours() -> None:
    words: Any = {"max_retries": 3}
    with pytest.raises(
        TypeError, match=r"TaskRouter\(\) has no option 'max_retries': write max_attempts="
    ):
        TaskRouter(**words)


def test_options_with_a_word_of_nobodys_lists_what_there_is() -> None:
    words: Any = {"colour": 1}
    with pytest.raises(TypeError, match="has no option 'colour'; it has delay, run_at, priority"):
        send_mail.options(**words)


def test_options_with_several_foreign_words_answers_each() -> None:
    words: Any = {"countdown": 1, "max_retries": 3}
    with pytest.raises(TypeError, match=r"delay=.*; .*max_attempts="):
        send_mail.options(**words)


@pytest.mark.parametrize(
    "attribute",
    [
        "delay",
        "kiq",
        "send",
        "defer",
        "defer_async",
        "message",
        "queue_job",
        "apply",
        "perform_later",
    ],
)
def test_task_with_a_foreign_verb_gives_the_line_to_write(attribute: str) -> None:
    with pytest.raises(AttributeError, match=r"write await send_mail\.enqueue\(\.\.\.\)"):
        getattr(send_mail, attribute)


@pytest.mark.parametrize(
    "attribute",
    ["apply_async", "kicker", "configure", "send_with_options", "schedule", "enqueue_in"],
)
def test_task_with_a_foreign_verb_for_options_gives_the_line_to_write(attribute: str) -> None:
    with pytest.raises(AttributeError, match=r"send_mail\.options\(delay=60\)\.enqueue"):
        getattr(send_mail, attribute)


@pytest.mark.parametrize("attribute", ["s", "si", "signature"])
def test_task_with_a_foreign_signature_gives_the_call(attribute: str) -> None:
    with pytest.raises(AttributeError, match=r"send_mail\.call\(\.\.\.\)"):
        getattr(send_mail, attribute)


def test_task_with_an_attribute_of_nobodys_is_a_plain_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'AsyncTask' object has no attribute 'colour'"):
        _ = send_mail.colour  # type: ignore[attr-defined]
    assert not hasattr(send_mail, "__iter__")


@pytest.mark.parametrize(
    ("attribute", "line"),
    [
        ("enqueue_job", "await queue.enqueue(task, ...)"),
        ("send_task", "await queue.enqueue(task, ...)"),
        ("enqueue_in", "await queue.enqueue(task.options(delay=60), ...)"),
        ("fetch_job", "await queue.get(id)"),
        ("revoke", "await queue.cancel(id)"),
        ("requeue", "await queue.dead_letters.replay(id)"),
        ("pause_queue", "await queue.queues.pause(name)"),
        ("resume", "await queue.queues.resume(name)"),
    ],
)
def test_queue_with_a_foreign_verb_gives_the_line_to_write(attribute: str, line: str) -> None:
    queue = object.__new__(JobQueue)
    with pytest.raises(AttributeError) as caught:
        getattr(queue, attribute)
    assert str(caught.value).endswith(f"write {line}")
    assert (caught.value.name, caught.value.obj) == (attribute, queue)
    with pytest.raises(AttributeError, match="'JobQueue' object has no attribute 'colour'"):
        _ = queue.colour  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("attribute", "line"),
    [
        ("start", "FastAPI(lifespan=jobs.lifespan)"), ("run_worker_async", "jobs.run()"),
        ("shutdown", "jobs.running()"),
        ("periodic", "@jobs.every(minutes=5)"), ("scheduled_job", '@jobs.cron("0 8 * * *")'),
        ("add_schedule", "await jobs.schedules.upsert(id, task, cron=...)"),
        ("actor", "@jobs.task"), ("autodiscover_tasks", "jobs.include(router)"), ("get_jobs", "await jobs.list()"),
        ("enqueue_job", "await jobs.enqueue(task, ...)"),
    ],
)  # fmt: skip
def test_runner_with_a_foreign_verb_gives_the_line_to_write(attribute: str, line: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(JobRunner("sqlite:///unused.db"), attribute)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("broker", 'JobRunner("sqlite:///shop.db")'), ("redis_settings", "JobRunner("), ("dsn", "JobRunner("),
        ("max_jobs", 'queues={"default": 20}'), ("concurrency", 'queues={"default": 20}'),
        ("functions", "jobs.include(router)"), ("cron_jobs", "@jobs.cron("), ("on_startup", "jobs.running(app)"),
        ("timeout", "@task(timeout=...)"), ("max_attempts", "@task(max_attempts=...)"), ("queue", "@task(queue=...)"),
        ("max_tries", "@task(max_attempts=..."), ("job_timeout", "@task(timeout=...)"),
        ("keep_result", "retention=..."), ("delay", "task.options(delay=...)"),
        ("countdown", "task.options(delay=...)"),
        ("colour", "it has queues, work, durability"), ("colour", "timezone, revision, redact, session"),
    ],
)  # fmt: skip
def test_runner_with_a_foreign_word_names_ours(word: str, line: str) -> None:
    words: Any = {word: 1}
    with pytest.raises(TypeError) as caught:
        JobRunner("sqlite:///unused.db", **words)
    assert f"JobRunner() has no option {word!r}" in str(caught.value)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("misfire_grace_time", "grace=..."), ("coalesce", 'misfire="latest"'), ("max_instances", 'overlap="skip"'),
        ("start_date", "start=..."), ("days", "@jobs.every(timedelta(days=...))"), ("hour", '@jobs.cron("0 8 * * *")'),
        ("kwargs", "args={...}"),
    ],
)  # fmt: skip
def test_schedule_with_a_foreign_word_names_ours(word: str, line: str) -> None:
    words: Any = {word: 1}
    with pytest.raises(TypeError) as caught:
        router.every(**words)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("attribute", "line"),
    [
        ("get", "await job.result(timeout=10)"), ("wait_result", "await job.result(timeout=10)"),
        ("return_value", "await job.result(timeout=10)"),
        ("status", "(await job.refresh()).state"), ("ready", "(await job.refresh()).state"),
        ("get_status", "(await job.refresh()).state"), ("exc_info", "(await job.refresh()).history[-1].error"),
        ("abort", "await queue.cancel(job.id)"), ("revoke", "await queue.cancel(job.id)"),
        ("requeue", "await queue.dead_letters.replay(job.id)"), ("task_id", "job.id"),
    ],
)  # fmt: skip
def test_job_with_a_foreign_verb_gives_the_line_to_write(attribute: str, line: str) -> None:
    job = Job[None]("1", "send_mail", "default", "queued", EPOCH, EPOCH, 0, created=True)
    with pytest.raises(AttributeError) as caught:
        getattr(job, attribute)
    assert str(caught.value).endswith(f"write {line}")
    with pytest.raises(AttributeError, match="'Job' object has no attribute 'colour'"):
        _ = job.colour  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("attribute", "line"),
    [
        ("retry", "raise Retry(60)"), ("job_try", "job.attempt"), ("request", "job.attempt"), ("task_id", "job.id"),
        ("is_aborted", "job.cancelled"),
    ],
)  # fmt: skip
def test_context_with_a_foreign_verb_gives_the_line_to_write(attribute: str, line: str) -> None:
    job = object.__new__(JobContext)
    with pytest.raises(AttributeError) as caught:
        getattr(job, attribute)
    assert f"write {line}" in str(caught.value)
    with pytest.raises(AttributeError, match="'JobContext' object has no attribute 'colour'"):
        _ = job.colour  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("defer", "(delay=...)"), ("defer_by", "(delay=...)"), ("countdown", "(delay=...)"), ("eta", "(run_at=...)"),
        ("delay_ms", "(delay=...), in seconds"), ("max_retries", "@task(max_attempts=...)"), ("exc", "from error"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("steering", [Retry, Snooze])
def test_steering_with_a_foreign_word_names_ours(
    steering: type[Retry] | type[Snooze], word: str, line: str
) -> None:
    words: Any = {word: 1}
    with pytest.raises(TypeError) as caught:
        steering(**words)
    assert line in str(caught.value)


def test_no_foreign_word_is_one_of_ours() -> None:
    assert not _words("option") & (JOB_OPTIONS | TASK_OPTIONS)
    assert not _words("runner option") & RUNNER_OPTIONS
    assert not _words("schedule option") & ScheduleOptions.__annotations__.keys()
    assert not _words("steering option") & set(inspect.signature(Retry).parameters)
    assert not _words("task") & set(dir(send_mail))
    assert not _words("queue") & set(dir(JobQueue))
    assert not _words("runner") & set(dir(JobRunner))
    assert not _words("job") & set(dir(Job))
    assert not _words("context") & set(dir(JobContext))


def test_foreign_words_have_a_table_for_each_place_and_stand_there_once() -> None:
    assert list(hints.FOREIGN_WORDS) == list(get_args(hints.Place))
    for place, rows in hints.FOREIGN_WORDS.items():
        words = [word for row in rows for word in row.theirs]
        assert len(words) == len(set(words)), place
        assert all(row.ours for row in rows)


def _words(place: hints.Place) -> set[str]:
    return {word for row in hints.FOREIGN_WORDS[place] for word in row.theirs}
