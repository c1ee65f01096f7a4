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
    **dict.fromkeys(("rate_limit", "concurrency"), 'a queue with few slots: queues={"name": 1} at the JobRunner'),
    **dict.fromkeys(("acks_late", "reject_on_worker_lost", "track_started", "store_result"), _NOTHING),
    "ignore_result": "nothing: a task that returns None stores no result",
    "failure_ttl": "dead_letter_retention=... at the JobRunner",
    "serializer": "nothing: pydantic writes the arguments as their annotations say",
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
    **dict.fromkeys(("map", "starmap", "chunks", "batch_defer", "enqueue_many"),
                    "await queue.enqueue_many([{name}.call(x) for x in ...])"),
    **dict.fromkeys(("then", "pipe", "link", "message_with_pipeline"),
                    "await queue.enqueue_chain([{name}.call(...), ...])"),
    "call_local": "{name}(...), the task is still its function",
    "fn": "{name}(...), the task is still its function",
    "func": "{name}(...), the task is still its function",
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
}  # fmt: skip

JOB_OPTIONS: Final = (
    "delay", "run_at", "priority", "key", "queue", "expires", "max_attempts", "timeout", "tag",
)  # fmt: skip
"""The options of one job; ``Task.options`` takes them."""

TASK_OPTIONS: Final = (
    "name", "queue", "priority", "max_attempts", "wait", "stop", "retry", "timeout", "expires", "retention", "aliases",
)  # fmt: skip
"""The options of a task; ``@task(...)`` takes them."""


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


def _advice(known: dict[str, str], name: str, attribute: str) -> str | None:
    instead = known.get(attribute)
    if instead is None:
        return None
    return f"{name}.{attribute} is another job queue's word: write {instead.format(name=name)}"


def _refusal(call: str, word: str, taken: Collection[str]) -> str:
    if word in TASK_OPTIONS and "delay" in taken:
        return f"{call}() has no option {word!r}: it is the task's, write @task({word}=...)"
    if word in JOB_OPTIONS and "aliases" in taken:
        return f"{call}() has no option {word!r}: it is each job's, write task.options({word}=...)"
    if word in ("wait", "stop", "retry", "retention", "name", "aliases"):
        return f"{call}() has no option {word!r}: write it at @task({word}=...)"
    instead = _INSTEAD.get(word)
    if instead is None:
        return f"{call}() has no option {word!r}; it has {', '.join(taken)}"
    ours = instead.partition("=")[0]
    if ours in JOB_OPTIONS and ours not in taken:
        instead = f"task.options({instead})"
    elif ours in TASK_OPTIONS and ours not in taken:
        instead = f"it at the task: @task({instead})"
    return f"{call}() has no option {word!r}: write {instead}"
