"""The words of other job queues, and ours for them: nobody should have to guess twice.

Half of all users come from Celery, ARQ, RQ, Dramatiq, Huey, Taskiq or Procrastinate, with their words in the fingers.
"""

from collections.abc import Collection, Iterable
from typing import Final, NoReturn

_RUNS = "max_attempts=..., which counts all runs: the first one and the retries"
_CONTEXT = "`job: JobContext` as the function's first parameter"
_BACKOFF = "wait=wait_exponential_jitter(max=300), a strategy of tenacity"
_RETRY_ON = "retry=retry_if_exception_type(...), a predicate of tenacity"
_NOT_ON = "retry=retry_if_not_exception_type(...), a predicate of tenacity"
_NOTHING = "nothing: that is how it always is here"
_FEW_SLOTS = (
    'a queue with few slots: queues={"default": 20, "name": 1} at the JobRunner, queue="name" at the task; slots are'
    " per process, so two processes run two at once"
)

_JOB_OPTIONS: Final = {
    "delay": ("countdown", "_defer_by", "schedule_in", "delay_ms", "delay_s", "in_", "defer", "defer_by"),
    "run_at": ("eta", "_defer_until", "schedule_at", "run_date", "scheduled_at", "when", "at", "defer_until"),
    "key": (
        "_job_id", "job_id", "task_id", "queueing_lock", "lock", "unique", "unique_key", "dedup_key", "singleton_key",
    ),
    "queue": ("_queue_name", "queue_name", "routing_key", "exchange"),
    "expires": ("_expires", "expires_in", "max_age", "misfire_grace_time", "ttl", "deadline"),
    "tag": ("tags", "labels", "description", "meta", "headers"),
    "priority": ("at_front",),
}  # fmt: skip

_INSTEAD: Final[dict[str, str]] = {
    **{theirs: f"{ours}=..." for ours, words in _JOB_OPTIONS.items() for theirs in words},
    **dict.fromkeys(("max_retries", "max_tries", "_max_tries", "retries", "attempts", "tries"), _RUNS),
    **dict.fromkeys(("bind", "pass_context", "context", "with_context"), _CONTEXT),
    **dict.fromkeys(
        ("retry_backoff", "retry_backoff_max", "retry_jitter", "min_backoff", "max_backoff", "backoff",
         "exponential_wait"),
        _BACKOFF,
    ),
    **dict.fromkeys(
        ("default_retry_delay", "retry_delay", "retry_wait"), "wait=wait_fixed(...), a strategy of tenacity"
    ),
    **dict.fromkeys(("autoretry_for", "retry_on", "retry_for", "retry_when", "retry_exceptions"), _RETRY_ON),
    **dict.fromkeys(("dont_autoretry_for", "discard_on", "throws", "skip_exceptions"), _NOT_ON),
    **dict.fromkeys(("time_limit", "soft_time_limit", "job_timeout", "_timeout", "timeout_ms"), "timeout=..."),
    **dict.fromkeys(("keep_result", "result_ttl", "result_expires", "keep_result_s"), "retention=..."),
    **dict.fromkeys(("task_name", "actor_name", "fn_name"), "name=..."),
    **dict.fromkeys(("rate_limit", "concurrency"), _FEW_SLOTS),
    **dict.fromkeys(("acks_late", "reject_on_worker_lost", "track_started", "store_result"), _NOTHING),
    "ignore_result": "nothing: a task that returns None stores no result",
    "failure_ttl": "dead_letter_retention=... at the JobRunner",
    **dict.fromkeys(("link", "depends_on", "pipe_target"),
                    "await queue.enqueue_chain([first.call(...), second.call(...)])"),
    **dict.fromkeys(("link_error", "on_failure"), "@jobs.on_dead above a function, which is told of every dead letter"),
    "on_success": "@jobs.on_succeeded above a function, which is told of every success",
    **dict.fromkeys(("args", "kwargs"), "them at the call: await queue.enqueue(task.options(...), *args, **kwargs)"),
    **dict.fromkeys(("retry_kwargs", "retry_policy"), _RUNS),
    **dict.fromkeys(("retry_on_error", "store_results"), _NOTHING),
    "schedule": '@jobs.cron("0 8 * * *") above the task',
    "serializer": "nothing: pydantic writes the arguments as their annotations say",
}  # fmt: skip

_SLOTS: Final = 'queues={"default": 20}, the slots of each queue in one process'
_STORE: Final = 'the file, JobRunner("sqlite:///shop.db"): there is no broker'
_LIFESPAN: Final = "`async with jobs.running(app):` in a lifespan of your own, with what is to come before and after it"
_RUNNER_OPTIONS: Final[dict[str, str]] = {
    **dict.fromkeys(("broker", "backend", "result_backend", "broker_url", "url", "dsn", "redis_settings", "redis",
                     "connector", "redis_pool", "database", "path"), _STORE),
    **dict.fromkeys(("max_jobs", "concurrency", "workers", "max_workers", "worker_concurrency", "threads", "slots"),
                    _SLOTS),
    **dict.fromkeys(("functions", "tasks", "include", "imports", "import_paths"),
                    "@jobs.task above each function, or jobs.include(router)"),
    **dict.fromkeys(("cron_jobs", "beat_schedule", "schedules"), '@jobs.cron("0 8 * * *") above the task'),
    **dict.fromkeys(("on_startup", "on_shutdown", "startup", "shutdown"), _LIFESPAN),
    **dict.fromkeys(("session_factory", "session_maker"), "session=..., the dependency that yields the session"),
    **dict.fromkeys(("shutdown_timeout", "graceful_timeout", "job_completion_wait"), "grace=..."),
    **dict.fromkeys(("poll_delay", "poll_interval", "fetch_job_polling_interval"), _NOTHING),
}  # fmt: skip
"""Those of a ``JobRunner`` alone, before the ones above."""

_SCHEDULE_WORDS: Final[dict[str, str]] = {
    "misfire_grace_time": "grace=...",
    "coalesce": 'misfire="latest" for one job, "all" for each of those that were missed',
    "max_instances": 'overlap="skip" for one at a time',
    **dict.fromkeys(("unique", "max_running_jobs"), 'overlap="skip" for one at a time'),
    **dict.fromkeys(("start_date", "start_time"), "start=..."),
    **dict.fromkeys(("end_date", "end_time"), "end=..."),
    "kwargs": "args={{...}}, by name",
    "replace_existing": _NOTHING,
    **dict.fromkeys(("days", "weeks"),
                    "@jobs.every(timedelta({word}=...)) above the task, every=timedelta({word}=...) at upsert"),
    **dict.fromkeys(("second", "minute", "hour", "day", "weekday", "day_of_week", "month", "month_of_year",
                     "day_of_month"),
                    '@jobs.cron("0 8 * * *") above the task, cron="0 8 * * *" at upsert: minute, hour, day of month,'
                    " month, day of week"),
}  # fmt: skip

_ENQUEUE: Final = "await {name}.enqueue(...)"
_WITH_OPTIONS: Final = "await {name}.options(delay=60).enqueue(...)"
_CALL: Final = "{name}.call(...), and hand it to queue.enqueue_many([...])"
_TASK_ATTRIBUTES: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("delay", "kiq", "send", "defer", "defer_async", "message", "queue_job", "apply", "submit", "push", "aenqueue",
         "perform_later", "perform_async", "enqueue_async", "run_async"),
        _ENQUEUE,
    ),
    **dict.fromkeys(
        ("apply_async", "kicker", "configure", "send_with_options", "message_with_options", "schedule",
         "schedule_by_time", "enqueue_in", "enqueue_at", "set", "with_options"),
        _WITH_OPTIONS,
    ),
    **dict.fromkeys(("s", "si", "signature", "subtask"), _CALL),
    **dict.fromkeys(("map", "starmap", "chunks", "batch_defer", "batch_defer_async", "enqueue_many"),
                    "await queue.enqueue_many([{name}.call(x) for x in ...])"),
    **dict.fromkeys(("then", "pipe", "link", "message_with_pipeline"),
                    "await queue.enqueue_chain([{name}.call(...), ...])"),
    **dict.fromkeys(("call_local", "fn", "func", "original_func", "run"),
                    "{name}(...), the task is still its function"),
    **dict.fromkeys(("schedule_by_cron", "schedule_by_interval"), "await jobs.schedules.upsert(id, {name}, cron=...)"),
    "AsyncResult": "await queue.get(id, {name})",
    "request": "`job: JobContext` as the function's first parameter, and job.id, job.attempt",
    "revoke": "await queue.cancel(id), for a job; `jobs.schedules.pause(id)` for a schedule",
    "retry": "raise Retry(delay) inside the function",
}  # fmt: skip

_QUEUE_ATTRIBUTES: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("enqueue_job", "send_task", "defer", "defer_async", "add_job", "submit", "put", "push", "send", "kiq", "add",
         "enqueue_async", "delay", "aenqueue", "add_task"),
        "await {name}.enqueue(task, ...)",
    ),
    **dict.fromkeys(
        ("apply_async", "enqueue_in", "enqueue_at", "enqueue_call_later", "schedule", "configure_task", "enqueue_with"),
        "await {name}.enqueue(task.options(delay=60), ...)",
    ),
    **dict.fromkeys(("enqueue_all", "insert_many", "add_jobs", "batch"),
                    "await {name}.enqueue_many([task.call(...), ...])"),
    **dict.fromkeys(("chain", "pipeline", "add_chain"), "await {name}.enqueue_chain([task.call(...), ...])"),
    **dict.fromkeys(("get_job", "fetch_job", "job", "AsyncResult", "find"), "await {name}.get(id)"),
    **dict.fromkeys(("abort", "abort_job", "cancel_job", "cancel_job_by_id", "revoke", "revoke_by_id"),
                    "await {name}.cancel(id)"),
    **dict.fromkeys(("failed", "failed_job_registry", "dead_letter", "dlq"), "{name}.dead_letters"),
    **dict.fromkeys(("requeue", "retry", "retry_job", "retry_job_by_id"), "await {name}.dead_letters.replay(id)"),
    **dict.fromkeys(("pause", "pause_queue"), "await {name}.queues.pause(name)"),
    **dict.fromkeys(("resume", "resume_queue", "unpause_queue"), "await {name}.queues.resume(name)"),
    "all_queues": "await {name}.queues.list()",
}  # fmt: skip

_RUNNING: Final = "FastAPI(lifespan=jobs.lifespan), `async with jobs.running():`, or in a process of its own jobs.run()"
_REPEAT: Final = '@jobs.cron("0 8 * * *") or @jobs.every(minutes=5) above the task'
_RUNNER_ATTRIBUTES: Final[dict[str, str]] = {
    **dict.fromkeys(("start", "startup", "open", "open_async", "run_worker", "run_worker_async", "worker_main",
                     "listen", "start_in_background", "run_until_stopped", "shutdown", "stop", "close", "close_async"),
                    _RUNNING),
    **dict.fromkeys(("periodic", "periodic_task", "scheduled_job", "add_periodic_task", "on_after_configure",
                     "crontab"), _REPEAT),
    "add_schedule": "await jobs.schedules.upsert(id, task, cron=...)",
    **dict.fromkeys(("remove_job", "remove_schedule"), "await jobs.cancel(id), or await jobs.schedules.remove(id)"),
    **dict.fromkeys(("pause_job", "pause_schedule"), "await jobs.schedules.pause(id)"),
    **dict.fromkeys(("resume_job", "unpause_schedule"), "await jobs.schedules.resume(id)"),
    **dict.fromkeys(("reschedule_job", "modify_job"), "await jobs.schedules.upsert(id, task, cron=...)"),
    **dict.fromkeys(("get_jobs", "queued_jobs", "jobs", "all_job_results"), "await jobs.list()"),
    **dict.fromkeys(("actor", "shared_task", "register_task", "job"), "@jobs.task"),
    **dict.fromkeys(("autodiscover_tasks", "add_tasks_from", "include_router", "include_tasks"),
                    "jobs.include(router)"),
    **dict.fromkeys(("on_startup", "on_shutdown", "on_event"), _LIFESPAN),
    **dict.fromkeys(("middleware", "add_middleware", "add_middlewares", "with_middlewares", "on_job_start",
                     "on_job_end", "before_process", "after_process", "task_prerun", "task_postrun",
                     "pre_execute", "post_execute"),
                    "@jobs.around_attempt above an `async def` with one `yield`"),
}  # fmt: skip

_RESULT: Final = "await {name}.result(timeout=10)"
_STATE: Final = "(await {name}.refresh()).state"
_JOB_ATTRIBUTES: Final[dict[str, str]] = {
    **dict.fromkeys(("get", "get_result", "wait_result", "wait", "return_value", "latest_result", "result_info",
                     "join"), _RESULT),
    **dict.fromkeys(("status", "get_status", "info", "ready", "is_ready", "successful", "failed", "is_finished",
                     "is_failed", "is_queued", "is_started"), _STATE),
    **dict.fromkeys(("exc_info", "traceback", "error"), "(await {name}.refresh()).history[-1].error"),
    **dict.fromkeys(("cancel", "abort", "revoke"), "await queue.cancel({name}.id)"),
    **dict.fromkeys(("requeue", "retry", "replay"), "await queue.dead_letters.replay({name}.id)"),
    **dict.fromkeys(("task_id", "job_id", "uuid"), "{name}.id"),
}  # fmt: skip

_CONTEXT_ATTRIBUTES: Final[dict[str, str]] = {
    **dict.fromkeys(("job_id", "task_id"), "{name}.id"),
    **dict.fromkeys(("job_try", "retries", "attempts", "request"), "{name}.attempt, 1 for the first run"),
    **dict.fromkeys(("is_aborted", "should_abort", "is_cancelled", "aborted"), "{name}.cancelled"),
    "retry": "raise Retry(60)",
    "defer": "raise Snooze(60), which costs no attempt",
}  # fmt: skip

JOB_OPTIONS: Final = (
    "delay", "run_at", "priority", "key", "queue", "expires", "max_attempts", "timeout", "tag",
)  # fmt: skip
"""The options of one job; ``Task.options`` takes them."""

TASK_OPTIONS: Final = (
    "name", "queue", "priority", "max_attempts", "wait", "stop", "retry", "timeout", "expires", "retention", "aliases",
)  # fmt: skip
"""The options of a task; ``@task(...)`` takes them."""

RUNNER_OPTIONS: Final = (
    "queues", "work", "durability", "session", "grace", "retention", "keep_finished", "dead_letter_retention",
    "unknown_task_after", "timezone", "revision",
)  # fmt: skip
"""The options of a runner; ``JobRunner(...)`` takes them."""


def option_for(word: str) -> str | None:
    """Return our option of one job that a word means, be it ours or another queue's; None if it means none."""
    if word in JOB_OPTIONS:
        return word
    ours = _INSTEAD.get(word, "").partition("=")[0]
    return ours if ours in JOB_OPTIONS else None


def refuse_words(call: str, words: Iterable[str], taken: Collection[str]) -> NoReturn:
    """Raise TypeError for options that a call does not have, with what to write in their place.

    Args:
        call: as the caller wrote it, e.g. ``@task`` or ``send_mail.options``.
        words: the keywords that it does not know.
        taken: the keywords that it knows.
    """
    raise TypeError("; ".join(_refusal(call, word, taken) for word in words))


def task_attribute(task: str, attribute: str) -> str | None:
    """Return what to write for an attribute that tasks of another queue have; None if it is not known."""
    return _advice(_TASK_ATTRIBUTES, task, attribute)


def queue_attribute(queue: str, attribute: str) -> str | None:
    """Return what to write for an attribute that queues or clients of another kind have; None if not known.

    Args:
        queue: how the object is called in the answer, e.g. ``queue`` or ``jobs``.
        attribute: the name that was looked up.
    """
    return _advice(_QUEUE_ATTRIBUTES, queue, attribute)


def runner_attribute(attribute: str) -> str | None:
    """Return what to write for an attribute that the app or scheduler of another queue has; None if it is not known."""
    return _advice(_RUNNER_ATTRIBUTES, "jobs", attribute) or queue_attribute("jobs", attribute)


def job_attribute(attribute: str) -> str | None:
    """Return what to write for an attribute that jobs and results of another queue have; None if it is not known."""
    return _advice(_JOB_ATTRIBUTES, "job", attribute)


def context_attribute(attribute: str) -> str | None:
    """Return what to write for an attribute that a running task of another queue has; None if it is not known."""
    return _advice(_CONTEXT_ATTRIBUTES, "job", attribute)


def schedule_word(word: str) -> str | None:
    """Return what to write for a keyword that schedules of another kind have; None if it is not known."""
    instead = _SCHEDULE_WORDS.get(word)
    return None if instead is None else f"write {instead.format(word=word)}"


def _advice(known: dict[str, str], name: str, attribute: str) -> str | None:
    instead = known.get(attribute)
    if instead is None:
        return None
    return f"{name}.{attribute} is another job queue's word: write {instead.format(name=name)}"


def _refusal(call: str, word: str, taken: Collection[str]) -> str:
    at_runner = "queues" in taken
    instead = _RUNNER_OPTIONS.get(word) if at_runner else None
    if instead is not None:
        return f"{call}() has no option {word!r}: write {instead}"
    if word in TASK_OPTIONS and ("delay" in taken or at_runner):
        return f"{call}() has no option {word!r}: it is the task's, write @task({word}=...)"
    if word in JOB_OPTIONS and ("aliases" in taken or at_runner):
        return f"{call}() has no option {word!r}: it is each job's, write task.options({word}=...)"
    if word in ("wait", "stop", "retry", "retention", "name", "aliases"):
        return f"{call}() has no option {word!r}: write it at @task({word}=...)"
    instead = _INSTEAD.get(word)
    if instead is None:
        return f"{call}() has no option {word!r}; it has {', '.join(taken)}"
    ours = instead.partition("=")[0]
    if ours in TASK_OPTIONS and ours not in taken and (at_runner or ours not in JOB_OPTIONS):
        instead = f"it at the task: @task({instead})"
    elif ours in JOB_OPTIONS and ours not in taken:
        instead = f"task.options({instead})"
    return f"{call}() has no option {word!r}: write {instead}"
