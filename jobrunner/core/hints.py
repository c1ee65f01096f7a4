"""Maps the words of other job queues to ours, for error messages.

Half of all users come from Celery, ARQ, RQ, Dramatiq, Huey, Taskiq or Procrastinate and type the words that they know.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, NoReturn, TypeVar

T = TypeVar("T")

Place = Literal[
    "option",
    "runner option",
    "schedule option",
    "steering option",
    "task",
    "queue",
    "runner",
    "job",
    "context",
]
"""The place of a foreign word: a keyword of a task or job, of another call, or an attribute of an object."""


class ForeignWords(NamedTuple):
    """Words of other job queues with one meaning, and what to write instead."""

    theirs: tuple[str, ...]
    ours: str
    """The text to write, with ``{name}`` for the user's object or call and ``{word}`` for the foreign word."""

    def line(self, name: str, word: str) -> str:
        """Return what to write instead of one of the words."""
        return self.ours.replace("{name}", name).replace("{word}", word)


def _row(theirs: str, ours: str) -> ForeignWords:
    return ForeignWords(tuple(theirs.split()), ours)


_NOTHING: Final = "nothing: that is how it always is here"
_LIFESPAN: Final = "`async with jobs.running(app):` in a lifespan of your own, with what is to come before and after it"

FOREIGN_WORDS: Final[Mapping[Place, tuple[ForeignWords, ...]]] = {
    "option": (
        _row("countdown _defer_by schedule_in delay_ms delay_s in_ defer defer_by", "delay=..."),
        _row("eta _defer_until schedule_at run_date scheduled_at when at defer_until", "run_at=..."),
        _row("_job_id job_id task_id queueing_lock lock unique unique_key dedup_key singleton_key", "key=..."),
        _row("_queue_name queue_name routing_key exchange", "queue=..."),
        _row("_expires expires_in max_age misfire_grace_time ttl deadline", "expires=..."),
        _row("tags labels description meta headers", "tag=..."),
        _row("at_front", "priority=..."),
        _row(
            "max_retries max_tries _max_tries retries attempts tries retry_kwargs retry_policy",
            "max_attempts=..., which counts all runs: the first one and the retries",
        ),
        _row("bind pass_context context with_context", "`job: JobContext` as the function's first parameter"),
        _row(
            "retry_backoff retry_backoff_max retry_jitter min_backoff max_backoff backoff exponential_wait",
            "wait=wait_exponential_jitter(max=300), a strategy of tenacity",
        ),
        _row("default_retry_delay retry_delay retry_wait", "wait=wait_fixed(...), a strategy of tenacity"),
        _row(
            "autoretry_for retry_on retry_for retry_when retry_exceptions",
            "retry=retry_if_exception_type(...), a predicate of tenacity",
        ),
        _row(
            "dont_autoretry_for discard_on throws skip_exceptions",
            "retry=retry_if_not_exception_type(...), a predicate of tenacity",
        ),
        _row("time_limit soft_time_limit job_timeout _timeout timeout_ms", "timeout=..."),
        _row("keep_result result_ttl result_expires keep_result_s", "retention=..."),
        _row("task_name actor_name fn_name", "name=..."),
        _row(
            "max_concurrency concurrency_limit limits_concurrency concurrency_key",
            "concurrency=Concurrency(10, by=...)",
        ),
        _row("rate_limit_per rate limiter throttle", "rate_limit=Rate(100, per=60)"),
        _row("acks_late reject_on_worker_lost track_started store_result retry_on_error store_results", _NOTHING),
        _row("ignore_result", "nothing: a task that returns None stores no result"),
        _row("failure_ttl", "dead_letter_retention=... at the JobRunner"),
        _row("link depends_on pipe_target", "await queue.enqueue_chain([first.call(...), second.call(...)])"),
        _row("link_error on_failure", "@jobs.on_dead above a function, which is called with each dead letter"),
        _row("on_success", "@jobs.on_succeeded above a function, which is called with each success"),
        _row("args kwargs", "them at the call: await queue.enqueue(task.options(...), *args, **kwargs)"),
        _row("schedule", '@jobs.cron("0 8 * * *") above the task'),
        _row("serializer", "nothing: pydantic writes the arguments as their annotations say"),
    ),
    "runner option": (
        _row(
            "broker backend result_backend broker_url url dsn redis_settings redis connector redis_pool database"
            " path",
            'the file, JobRunner("sqlite:///shop.db"): there is no broker',
        ),
        _row(
            "max_jobs concurrency workers max_workers worker_concurrency threads slots",
            'queues={"default": 20}, the slots of each queue in one process',
        ),
        _row(
            "functions tasks include imports import_paths",
            "@jobs.task above each function, or jobs.include(router)",
        ),
        _row("cron_jobs beat_schedule schedules", '@jobs.cron("0 8 * * *") above the task'),
        _row("on_startup on_shutdown startup shutdown", _LIFESPAN),
        _row("session_factory session_maker", "session=..., the dependency that yields the session"),
        _row("shutdown_timeout graceful_timeout job_completion_wait", "grace=..."),
        _row("poll_delay poll_interval fetch_job_polling_interval", _NOTHING),
        _row(
            "task_always_eager always_eager immediate is_async burst",
            "async with JobTester(app) as t: in the test, with JobTester of jobrunner.testing",
        ),
    ),
    "schedule option": (
        _row("misfire_grace_time", "grace=..."),
        _row("coalesce", 'misfire="latest" for one job, "all" for each of those that were missed'),
        _row("max_instances unique max_running_jobs", 'overlap="skip" for one at a time'),
        _row("start_date start_time", "start=..."),
        _row("end_date end_time", "end=..."),
        _row("kwargs", "args={...}, by name"),
        _row("replace_existing", _NOTHING),
        _row(
            "days weeks",
            "@jobs.every(timedelta({word}=...)) above the task, every=timedelta({word}=...) at upsert",
        ),
        _row(
            "second minute hour day weekday day_of_week month month_of_year day_of_month",
            '@jobs.cron("0 8 * * *") above the task, cron="0 8 * * *" at upsert: minute, hour, day of month,'
            " month, day of week",
        ),
    ),
    "steering option": (
        _row("defer defer_by countdown in_ wait after", "{name}(delay=...)"),
        _row("delay_ms delay_s seconds", "{name}(delay=...), in seconds"),
        _row("eta when at retry_at defer_until", "{name}(run_at=...)"),
        _row("max max_retries max_tries max_attempts", "@task(max_attempts=...)"),
        _row("exc", "raise {name}(...) from error"),
    ),
    "task": (
        _row(
            "delay kiq send defer defer_async message queue_job apply submit push aenqueue perform_later"
            " perform_async enqueue_async run_async",
            "await {name}.enqueue(...)",
        ),
        _row(
            "apply_async kicker configure send_with_options message_with_options schedule schedule_by_time"
            " enqueue_in enqueue_at set with_options",
            "await {name}.options(delay=60).enqueue(...)",
        ),
        _row("s si signature subtask", "{name}.call(...), and hand it to queue.enqueue_many([...])"),
        _row(
            "map starmap chunks batch_defer batch_defer_async enqueue_many",
            "await queue.enqueue_many([{name}.call(x) for x in ...])",
        ),
        _row("then pipe link message_with_pipeline", "await queue.enqueue_chain([{name}.call(...), ...])"),
        _row("call_local fn func original_func run", "{name}(...), the task is still its function"),
        _row("schedule_by_cron schedule_by_interval", "await jobs.schedules.upsert(id, {name}, cron=...)"),
        _row("AsyncResult", "await queue.get(id, {name})"),
        _row("request", "`job: JobContext` as the function's first parameter, and job.id, job.attempt"),
        _row("revoke", "await queue.cancel(id), for a job; `jobs.schedules.pause(id)` for a schedule"),
        _row("retry", "raise Retry(delay) inside the function"),
    ),
    "queue": (
        _row(
            "enqueue_job send_task defer defer_async add_job submit put push send kiq add enqueue_async delay"
            " aenqueue add_task",
            "await {name}.enqueue(task, ...)",
        ),
        _row(
            "apply_async enqueue_in enqueue_at enqueue_call_later schedule configure_task enqueue_with",
            "await {name}.enqueue(task.options(delay=60), ...)",
        ),
        _row("enqueue_all insert_many add_jobs", "await {name}.enqueue_many([task.call(...), ...])"),
        _row(
            "batch chord group new_batch enqueue_group",
            "await {name}.enqueue_batch([task.call(...), ...], then=task.call(...))",
        ),
        _row("chain pipeline add_chain", "await {name}.enqueue_chain([task.call(...), ...])"),
        _row("get_job fetch_job job AsyncResult find", "await {name}.get(id)"),
        _row("abort abort_job cancel_job cancel_job_by_id revoke revoke_by_id", "await {name}.cancel(id)"),
        _row(
            "purge discard_all empty flush cancel_all_jobs delete_all drain clear",
            'await {name}.cancel_all(queue="default"), which also asks running jobs to stop',
        ),
        _row(
            "reschedule_job change_execution_time run_now set_scheduled_at move_job",
            "await {name}.reschedule(id, run_at=...), or await {name}.reschedule(id, 0) for now;"
            " await {name}.reschedule_all(0, tag=...) for many",
        ),
        _row("failed failed_job_registry dead_letter dlq", "{name}.dead_letters"),
        _row("requeue retry retry_job retry_job_by_id", "await {name}.dead_letters.replay(id)"),
        _row("pause pause_queue", "await {name}.queues.pause(name)"),
        _row("resume resume_queue unpause_queue", "await {name}.queues.resume(name)"),
        _row("all_queues", "await {name}.queues.list()"),
    ),
    "runner": (
        _row(
            "start startup open open_async run_worker run_worker_async worker_main listen start_in_background"
            " run_until_stopped shutdown stop close close_async",
            "FastAPI(lifespan=jobs.lifespan), `async with jobs.running():`, or in a separate process jobs.run()",
        ),
        _row(
            "periodic periodic_task scheduled_job add_periodic_task on_after_configure crontab",
            '@jobs.cron("0 8 * * *") or @jobs.every(minutes=5) above the task',
        ),
        _row("add_schedule modify_job", "await jobs.schedules.upsert(id, task, cron=...)"),
        _row(
            "reschedule_job",
            "await jobs.reschedule(id, run_at=...), or await jobs.schedules.upsert(id, task, cron=...)",
        ),
        _row("remove_job remove_schedule", "await jobs.cancel(id), or await jobs.schedules.remove(id)"),
        _row("pause_job pause_schedule", "await jobs.schedules.pause(id)"),
        _row("resume_job unpause_schedule", "await jobs.schedules.resume(id)"),
        _row("get_jobs queued_jobs jobs all_job_results", "await jobs.list()"),
        _row("actor shared_task register_task job", "@jobs.task"),
        _row("autodiscover_tasks add_tasks_from include_router include_tasks", "jobs.include(router)"),
        _row("on_startup on_shutdown on_event", _LIFESPAN),
        _row(
            "middleware add_middleware add_middlewares with_middlewares on_job_start on_job_end before_process"
            " after_process task_prerun task_postrun pre_execute post_execute",
            "@jobs.around_attempt above an `async def` with one `yield`",
        ),
    ),
    "job": (
        _row(
            "get get_result wait_result wait return_value latest_result result_info join",
            "await {name}.result(timeout=10)",
        ),
        _row(
            "status get_status info ready is_ready successful failed is_finished is_failed is_queued is_started",
            "(await {name}.refresh()).state",
        ),
        _row("exc_info traceback error", "(await {name}.refresh()).history[-1].error"),
        _row("cancel abort revoke", "await queue.cancel({name}.id)"),
        _row("requeue retry replay", "await queue.dead_letters.replay({name}.id)"),
        _row("task_id job_id uuid", "{name}.id"),
    ),
    "context": (
        _row("job_id task_id", "{name}.id"),
        _row("job_try retries attempts request", "{name}.attempt, 1 for the first run"),
        _row("is_aborted should_abort is_cancelled aborted", "{name}.cancelled"),
        _row("retry", "raise Retry(60)"),
        _row("defer", "raise Snooze(60), which costs no attempt"),
        _row(
            "update_state set_progress update_progress update_meta save_meta",
            "{name}.progress(done, total, message)",
        ),
    ),}  # fmt: skip
"""Every foreign word that has an answer, by its place; a word occurs once per place."""

_ROWS: Final[Mapping[Place, Mapping[str, ForeignWords]]] = {
    place: {word: row for row in rows for word in row.theirs}
    for place, rows in FOREIGN_WORDS.items()
}


def answer_to(place: Place, word: str, name: str = "") -> str | None:
    """Return what to write instead of a foreign word; None if the word is not known.

    Args:
        place: The place of the word.
        word: The keyword or the attribute.
        name: The object or the call, as its user writes it.
    """
    row = _ROWS[place].get(word)
    return None if row is None else row.line(name, word)


def answers_foreign_words(*places: Place, name: str | None = None) -> Callable[[type[T]], type[T]]:
    """Return a class decorator that answers the attributes of other job queues.

    The answer is an AttributeError with the line to write. It is a decorator so that type checkers see no
    ``__getattr__``: with one they would accept any attribute.

    Args:
        places: The places whose words are answered. The first place that knows a word wins.
        name: The name of an instance in messages. By default its ``__name__``, which a task takes from its function.
    """

    def answer(self: Any, attribute: str) -> NoReturn:
        called = name or self.__dict__.get("__name__", "task")
        for place in places:
            line = answer_to(place, attribute, called)
            if line is not None:
                advice = f"{called}.{attribute} is another job queue's word: write {line}"
                raise AttributeError(advice, name=attribute, obj=self)
        advice = f"{type(self).__name__!r} object has no attribute {attribute!r}"
        raise AttributeError(advice, name=attribute, obj=self)

    def decorate(cls: type[T]) -> type[T]:
        cls.__getattr__ = answer  # type: ignore[attr-defined]
        return cls

    return decorate
