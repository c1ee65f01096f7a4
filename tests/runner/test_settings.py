"""Settings of a runner, and the errors for invalid ones before any job runs."""

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobrunner import ConfigurationError, InvalidTask, JobRunner, QueueSettings, Rate
from jobrunner.core.redaction import Redaction
from jobrunner.worker.settings import RUNNER_OPTIONS, Settings

DAY_US = 24 * 3600 * 1_000_000


def test_settings_left_out_are_the_documented_ones() -> None:
    assert JobRunner().settings == Settings(
        store="sqlite:///jobs.db",
        queues={"default": QueueSettings(20)},
        work=True,
        durability="full",
        grace_s=10.0,
        retention_us=7 * DAY_US,
        keep_finished=1_000_000,
        dead_letter_retention_us=90 * DAY_US,
        unknown_task_after_us=7 * DAY_US,
        timezone="UTC",
        revision=0,
        redact=Redaction.of(
            {"password", "secret", "client_secret", "token", "access_token", "refresh_token"}
            | {"api_key", "private_key", "authorization"}
        ),
    )


def test_settings_hold_every_option() -> None:
    held = {f.name.removesuffix("_us").removesuffix("_s") for f in dataclasses.fields(Settings)}
    assert held == {"store", *RUNNER_OPTIONS}


def test_settings_given_are_kept() -> None:
    settings = JobRunner(
        Path("some.db"),
        queues={"a": 1, "b-c.d:e": 10_000},
        work=False,
        durability="normal",
        grace=timedelta(minutes=1),
        retention=0,
        keep_finished=0,
        dead_letter_retention=1.5,
        unknown_task_after=timedelta(hours=1),
        timezone="Europe/Berlin",
        revision=7,
        redact=["card_number", "PIN"],
    ).settings
    assert settings.redact == Redaction.of({"cardNumber", "pin"})
    assert (settings.timezone, settings.revision) == ("Europe/Berlin", 7)
    assert (settings.store, settings.work, settings.durability) == ("some.db", False, "normal")
    assert dict(settings.slots) == {"a": 1, "b-c.d:e": 10_000}
    assert (settings.grace_s, settings.retention_us, settings.keep_finished) == (60, 0, 0)
    assert settings.dead_letter_retention_us == 1_500_000


def test_settings_do_not_follow_a_mapping_that_is_changed_later() -> None:
    queues = {"default": 1}
    jobs = JobRunner(queues=queues)
    queues["mail"] = 1
    assert dict(jobs.settings.slots) == {"default": 1}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"queues": {}}, "queues="),
    ({"queues": ["default"]}, 'write queues={"default": 20}'),
    ({"queues": {"default": 0}}, "'default' has 0 slots"),
    ({"queues": {"default": -1}}, "slots"),
    ({"queues": {"default": 1.5}}, "slots"),
    ({"queues": {"default": True}}, "slots"),
    ({"queues": {"default": 10_001}}, "from 1 to 10,000"),
    ({"queues": {"bad name": 1}}, "is not a name"),
    ({"queues": {"": 1}}, "is not a name"),
    ({"durability": "extra"}, '"full"'),
    ({"durability": None}, '"normal"'),
    ({"grace": -1}, "grace"),
    ({"grace": float("nan")}, "grace"),
    ({"grace": "10"}, "grace"),
    ({"retention": -1}, "retention"),
    ({"retention": timedelta(days=40_000)}, "retention"),
    ({"dead_letter_retention": float("inf")}, "dead_letter_retention"),
    ({"unknown_task_after": None}, "unknown_task_after"),
    ({"keep_finished": -1}, "keep_finished"),
    ({"keep_finished": 1.0}, "keep_finished"),
    ({"redact": "password"}, 'write redact={"password", "card_number"}'),
    ({"redact": None}, "redact=None is not a set of names"),
    ({"redact": ["password", 5]}, "redact holds 5"),
    ({"redact": ["_"]}, "redact holds '_'"),
]


@pytest.mark.parametrize(("settings", "said"), BAD, ids=str)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        JobRunner(**settings)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "store",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        ":memory:",
        "",
        "file:jobs.db?mode=memory",
        "sqlite://host/jobs.db",
        "sqlite:///jobs.db?mode=ro",
        "redis://localhost",
    ],
)
def test_store_that_cannot_be_is_refused(store: str) -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite:///"):
        JobRunner(store)


@pytest.mark.parametrize("form", ["path", "text", "url", "url of a driver"])
async def test_store_is_named_in_several_forms(tmp_path: Path, form: str) -> None:
    file = tmp_path / "a b.db"
    forms: dict[str, str | Path] = {
        "path": file,
        "text": str(file),
        "url": f"sqlite:///{file}",
        "url of a driver": f"sqlite+aiosqlite:///{file}",
    }
    async with JobRunner(forms[form]).running(work=False):
        assert file.exists()


async def test_store_that_is_relative_lies_where_the_process_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = JobRunner("sqlite:///here.db")
    monkeypatch.chdir(tmp_path)
    async with jobs.running(work=False):
        assert (tmp_path / "here.db").exists()


def test_settings_read_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE", "STORE", "QUEUES", "GRACE", "DURABILITY"):
        monkeypatch.setenv(f"JOBRUNNER_{name}", "nonsense")
    assert JobRunner().settings.durability == "full"


def test_runner_takes_no_defaults_of_tasks() -> None:
    """Defaults of tasks belong to a router or to the task."""
    with pytest.raises(TypeError):
        JobRunner(max_attempts=3)  # type: ignore[call-arg]


def test_router_default_that_cannot_be_is_refused() -> None:
    from jobrunner import TaskRouter  # noqa: PLC0415 - of this test alone

    with pytest.raises(InvalidTask, match="TaskRouter: timeout=0"):
        TaskRouter(timeout=0)


def test_queue_settings_have_slots_and_limits() -> None:
    mail = QueueSettings(50, concurrency=100, rate_limit=Rate(500, per=60), max_waiting=10_000)
    jobs = JobRunner(queues={"default": 20, "mail": mail})
    assert jobs.settings.slots == {"default": 20, "mail": 50}
    assert jobs.settings.queues["mail"] == mail


@pytest.mark.parametrize(
    "make",
    [
        lambda: QueueSettings(5, concurrency=0),
        lambda: QueueSettings(5, max_waiting=100_001),
        lambda: QueueSettings(5, rate_limit=9),  # type: ignore[arg-type]
        lambda: QueueSettings(5, rate_limit=Rate(9, by="account_id")),
        lambda: JobRunner(queues={"mail": QueueSettings(0)}),
    ],
)
def test_wrong_queue_settings_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError, match="write"):
        make()
