"""Assertions find calls by task, arguments and options, and say what was enqueued instead."""

import threading
from datetime import timedelta
from typing import Any

import pytest

from jobrunner import InvalidArguments, InvalidOptions, JobRunner, Task, TaskRouter, UnknownTask
from jobrunner.testing import JobTester
from tests.testing.site import count_letters, make_app, remind, send_welcome

OTHER = TaskRouter()


@OTHER.task
async def elsewhere() -> None: ...


async def test_finds_a_call_by_its_arguments_however_they_are_passed() -> None:
    async with JobTester(make_app) as t:
        await count_letters.enqueue("ada", times=2)

        t.assert_enqueued(count_letters, "ada", 2)
        t.assert_enqueued(count_letters, word="ada", times=2)
        t.assert_enqueued(count_letters)
        (job,) = t.assert_enqueued(count_letters, "ada", 2, state="queued")
        assert job.args == {"word": "ada", "times": 2}
        with pytest.raises(AssertionError):
            t.assert_enqueued(count_letters, "ada")  # a left-out default is another call


async def test_keyword_of_the_task_is_the_tasks() -> None:
    async with JobTester(make_app) as t:
        await count_letters.enqueue("ada", times=2)
        # `times` is a parameter of this task, so it does not count jobs.
        t.assert_enqueued(count_letters, word="ada", times=2)
        with pytest.raises(AssertionError):
            t.assert_enqueued(count_letters, word="ada", times=1)


async def test_times_is_exact_and_by_default_at_least_one() -> None:
    async with JobTester(make_app) as t:
        for _ in range(2):
            await send_welcome.enqueue("ada")
        t.assert_enqueued(send_welcome, "ada")
        t.assert_enqueued(send_welcome, "ada", times=2)
        with pytest.raises(AssertionError, match=r"expected 1 job of .*, found 2"):
            t.assert_enqueued(send_welcome, "ada", times=1)
        wrong: list[Any] = [0, -1, True, 1.5]
        for times in wrong:
            with pytest.raises(InvalidOptions, match="assert_nothing_enqueued"):
                t.assert_enqueued(send_welcome, "ada", times=times)


async def test_options_of_the_job_count_beside_the_arguments() -> None:
    async with JobTester(make_app) as t:
        called = remind.options(delay=3600, key="k", tag="t", priority=5, queue="mail")
        await called.enqueue("ada")

        t.assert_enqueued(remind, "ada", queue="mail", key="k", tag="t", state="scheduled")
        t.assert_enqueued(called, "ada")
        t.assert_enqueued(remind.options(delay=timedelta(hours=1)))
        t.assert_enqueued(
            remind.options(run_at=t.now + timedelta(hours=1), expires=None, timeout=None), "ada"
        )
        for wrong in (
            remind.options(delay=3601),
            remind.options(priority=4),
            remind.options(expires=60),
            remind.options(max_attempts=2),
        ):
            with pytest.raises(AssertionError):
                t.assert_enqueued(wrong, "ada")
        with pytest.raises(AssertionError):
            t.assert_enqueued(remind, "ada", queue="default")


async def test_a_job_counts_in_every_state() -> None:
    async with JobTester(make_app) as t:
        await t.perform(send_welcome, "nobody")
        t.assert_enqueued(send_welcome, "nobody", state="dead")
        with pytest.raises(AssertionError):
            t.assert_enqueued(send_welcome, "nobody", state="queued")


async def test_failure_shows_the_difference_and_all_that_was_enqueued() -> None:
    async with JobTester(make_app) as t:
        await send_welcome.enqueue("bob")
        await remind.options(delay=86_400).enqueue("bob")
        with pytest.raises(AssertionError) as failure:
            t.assert_enqueued(send_welcome, "ada", queue="mail", times=1)
    lines = str(failure.value).splitlines()
    assert [line for line in lines if line and not line.startswith("?")] == [
        "expected 1 job of send_welcome(email='ada') queue='mail', found 0",
        "- send_welcome(email='ada') queue='mail'",
        "+ send_welcome(email='bob') queue='mail' state='queued'",
        "enqueued:",
        "  send_welcome(email='bob') queue='mail' state='queued'",
        "  remind(email='bob') delay=86400 queue='default' state='scheduled'",
    ]


async def test_failure_without_any_job_says_so() -> None:
    async with JobTester(make_app) as t:
        with pytest.raises(AssertionError, match="found 0\nnothing was enqueued"):
            t.assert_enqueued(send_welcome, "ada")


async def test_failure_lists_twenty_jobs_at_most() -> None:
    async with JobTester(make_app) as t:
        for number in range(23):
            await send_welcome.enqueue(f"a{number}")
        with pytest.raises(AssertionError, match=r"a19.*\n  and 3 more$"):
            t.assert_enqueued(remind)


async def test_nothing_enqueued_is_none_at_all_or_none_of_a_task_or_no_such_call() -> None:
    async with JobTester(make_app) as t:
        t.assert_nothing_enqueued()
        await send_welcome.enqueue("ada")
        t.assert_nothing_enqueued(remind)
        t.assert_nothing_enqueued(send_welcome, "bob")
        t.assert_nothing_enqueued(send_welcome.options(queue="default"))
        for call in ((), (send_welcome,), (send_welcome, "ada")):
            with pytest.raises(AssertionError, match=r"found 1:\n  send_welcome\(email='ada'\)"):
                t.assert_nothing_enqueued(*call)


async def test_arguments_that_do_not_fit_the_task_are_refused() -> None:
    async with JobTester(make_app) as t:
        with pytest.raises(InvalidArguments):
            t.assert_enqueued(send_welcome, 7)  # type: ignore[arg-type]
        with pytest.raises(InvalidArguments):
            await t.perform(count_letters, "ada", times="x")  # type: ignore[arg-type]


async def test_task_of_no_runner_under_test_is_refused() -> None:
    async with JobTester(make_app) as t:
        with pytest.raises(UnknownTask, match=r"jobs\.include\(router\)"):
            t.assert_enqueued(elsewhere)
        with pytest.raises(UnknownTask, match=r"jobs\.include\(router\)"):
            t.assert_nothing_enqueued(elsewhere)
        with pytest.raises(UnknownTask, match=r"@jobs\.task"):
            await t.perform(print)  # type: ignore[call-overload]


@pytest.fixture
def failing(jobs: JobRunner) -> Task[[], None]:
    """Return a task of ``jobs`` that always becomes a dead letter."""

    @jobs.task(max_attempts=1)
    async def fails() -> None:
        raise ValueError("no")

    return fails


async def test_strict_tester_fails_for_a_dead_letter_that_nobody_has_read(
    jobs: JobRunner, failing: Task[[], None]
) -> None:
    t = JobTester(jobs, strict=True)
    await t.__aenter__()
    await jobs.enqueue(failing)
    await t.run_until_idle()
    with pytest.raises(AssertionError, match=r"strict:\n  fails\(\).*state='dead'"):
        await t.__aexit__(None, None, None)


async def test_strict_tester_passes_what_the_test_has_read(
    jobs: JobRunner, failing: Task[[], None]
) -> None:
    async with JobTester(jobs, strict=True) as t:
        await jobs.enqueue(failing)
        await t.run_until_idle()
        assert len(t.dead_letters) == 1
    async with JobTester(jobs, strict=True) as t:
        assert (await t.perform(failing)).state == "dead"


async def test_strict_tester_names_jobs_whose_code_does_not_end() -> None:
    jobs = JobRunner("sqlite:///never.db", grace=0)
    go_on = threading.Event()

    @jobs.task
    def hangs() -> None:
        go_on.wait(20)

    async def hurries() -> None:
        async with JobTester(jobs, strict=True) as t:
            job = await jobs.enqueue(hangs)
            with pytest.raises(TimeoutError, match=f"still run: hangs {job.id}"):
                await t.run_until_idle(timeout=0.05)
            go_on.set()

    with pytest.raises(AssertionError, match=r"hangs [-\w]+ does not end"):
        await hurries()


async def test_tester_that_is_not_strict_passes_dead_letters(
    jobs: JobRunner, failing: Task[[], None]
) -> None:
    async with JobTester(jobs) as t:
        await jobs.enqueue(failing)
        await t.run_until_idle()


async def test_list_reads_by_task_and_state() -> None:
    async with JobTester(make_app) as t:
        await t.perform(send_welcome, "nobody")
        await remind.enqueue("ada")
        assert [job.task for job in t.list()] == ["send_welcome", "remind"]
        assert [job.task for job in t.list(remind)] == ["remind"]
        assert [job.task for job in t.list(state="dead")] == ["send_welcome"]
        (letter,) = t.dead_letters
        assert (letter.reason, letter.args) == ("buried", {"email": "nobody"})
        assert [one.outcome for one in letter.history] == ["failed"]
