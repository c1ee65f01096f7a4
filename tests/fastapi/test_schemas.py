"""The fields of the public dataclasses in the bodies of the jobs router, and their JSON."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import BaseModel

from jobrunner import (
    Attempt,
    DeadLetter,
    Health,
    Job,
    QueueInfo,
    Schedule,
    ScheduleTick,
    Step,
    WorkerInfo,
)
from jobrunner.core.job import JobBody, Payload
from jobrunner.fastapi.api.dead_letter_schemas import DeadLetterBody, DeadLetterSummaryBody
from jobrunner.fastapi.api.health_schemas import HealthBody, WorkerBody
from jobrunner.fastapi.api.job_schemas import (
    AttemptBody,
    JobArgumentsBody,
    JobDetailBody,
    JobSummaryBody,
)
from jobrunner.fastapi.api.queue_schemas import QueueBody
from jobrunner.fastapi.api.schedule_schemas import ScheduleBody, ScheduleSummaryBody, TickBody

BEGIN = datetime(2026, 11, 22, 8, 0, 0, 123456, tzinfo=UTC)
END = BEGIN + timedelta(hours=1)
BEGIN_JSON, END_JSON = '"2026-11-22T08:00:00.123456Z"', '"2026-11-22T09:00:00.123456Z"'

STEP = Step(kind="signal", name="approved", at=BEGIN, timed_out=True)
STEP_JSON = f'{{"kind":"signal","name":"approved","at":{BEGIN_JSON},"timed_out":true}}'
ATTEMPT = Attempt(
    attempt=1,
    started_at=BEGIN,
    finished_at=END,
    outcome="failed",
    error_type="ValueError",
    error="bad é",
    traceback="T",
    worker=4611686018427387905,
)
ATTEMPT_JSON = (
    f'{{"attempt":1,"started_at":{BEGIN_JSON},"finished_at":{END_JSON},"outcome":"failed",'
    '"error_type":"ValueError","error":"bad é","traceback":"T","worker":"4611686018427387905"}'
)
JOB: Job[Any] = Job(
    id="i",
    task="t",
    queue="q",
    state="queued",
    run_at=BEGIN,
    created_at=BEGIN,
    attempt=2,
    created=True,
    history=(ATTEMPT,),
    steps=(STEP,),
    key="k",
    tag=None,
    replay_of="r",
    replays=3,
    schedule="s",
    scheduled_for=END,
    chain="c",
    after="f",
)
FIELDS_JSON = (
    f'"id":"i","task":"t","queue":"q","state":"queued","run_at":{BEGIN_JSON},"created_at":{BEGIN_JSON},'
    '"attempt":2'
)
SUMMARY_JSON = (
    f'{FIELDS_JSON},"key":"k","tag":null,"replay_of":"r","replays":3,"schedule":"s",'
    f'"scheduled_for":{END_JSON},"chain":"c","after":"f","trace_id":null,"batch":null,"progress":null,"waits":null'
)
LETTER = DeadLetter(
    id="i",
    task="t",
    queue="q",
    reason="buried",
    error_type="E",
    error="e",
    traceback="T",
    args={"a": [1, None, 1.5]},
    attempt=5,
    created_at=BEGIN,
    died_at=END,
    key="k",
    tag=None,
    replays=1,
    replay_of=None,
    replayed_as="n",
    group="0f",
    chain=None,
    after=None,
    history=(ATTEMPT,),
)
LETTER_JSON = (
    '"id":"i","task":"t","queue":"q","reason":"buried","error_type":"E","error":"e","args":{"a":[1,null,1.5]},'
    f'"attempt":5,"created_at":{BEGIN_JSON},"died_at":{END_JSON},"key":"k","tag":null,"replays":1,'
    '"replay_of":null,"replayed_as":"n","chain":null,"after":null,"trace_id":null,"group":"0f","batch":null'
)
WORKER = WorkerInfo(4611686018427387905, 7, "h", BEGIN, END, False, {"default": 2}, 3, 1)
WORKER_JSON = (
    f'{{"id":"4611686018427387905","pid":7,"host":"h","started_at":{BEGIN_JSON},"beat_at":{END_JSON},'
    '"stalled":false,"queues":{"default":2},"revision":3,"running":1}'
)
SCHEDULE = Schedule(
    id="s",
    task="t",
    source="code",
    description="d",
    cron=None,
    timezone=None,
    every=timedelta(hours=1),
    run_at=None,
    args=MappingProxyType({"a": [1]}),
    misfire="latest",
    grace=timedelta(seconds=60, microseconds=100_001),
    cap=1,
    overlap="skip",
    jitter=timedelta(0),
    start=BEGIN,
    end=None,
    paused=False,
    disabled=False,
    next_at=END,
    last_at=None,
    last_job=None,
    fired=1,
    skipped=2,
    revision=3,
)
SCHEDULE_JSON = (
    '"id":"s","task":"t","source":"code","description":"d","cron":null,"timezone":null,"every":3600.0,'
    '"run_at":null,"misfire":"latest","grace":60.100001,"cap":1,"overlap":"skip","jitter":0.0,'
    f'"start":{BEGIN_JSON},"end":null,"paused":false,"disabled":false,"next_at":{END_JSON},"last_at":null,'
    '"last_job":null,"fired":1,"skipped":2,"revision":3'
)


@pytest.mark.parametrize(
    ("body", "value", "json"),
    [
        (JobBody, JOB, f'{{{FIELDS_JSON},"created":true}}'),
        (JobSummaryBody, JOB, f"{{{SUMMARY_JSON}}}"),
        (
            JobDetailBody,
            JOB,
            f'{{{SUMMARY_JSON},"history":[{ATTEMPT_JSON}],"steps":[{STEP_JSON}]}}',
        ),
        (
            JobArgumentsBody,
            Payload("i", "t", {"a": 1}, [1], None, {"step s": 1}),
            '{"id":"i","task":"t","args":{"a":1},"result":[1],"result_omitted":null,"steps":{"step s":1}}',
        ),
        (AttemptBody, ATTEMPT, ATTEMPT_JSON),
        (DeadLetterSummaryBody, LETTER, f"{{{LETTER_JSON}}}"),
        (
            DeadLetterBody,
            LETTER,
            f'{{{LETTER_JSON},"traceback":"T","history":[{ATTEMPT_JSON}]}}',
        ),
        (
            QueueBody,
            QueueInfo("mail", 5, False, 1, 2, 3, 4, BEGIN, False),
            (
                '{"name":"mail","slots":5,"paused":false,"paused_at":null,"queued":1,"scheduled":2,"blocked":3,"running":4,'
                f'"oldest_due_at":{BEGIN_JSON},"complete":false}}'
            ),
        ),
        (WorkerBody, WORKER, WORKER_JSON),
        (
            HealthBody,
            Health("ok", ("p",), True, True, 2, ("x",), {"t": BEGIN}, (WORKER,), "1"),
            (
                '{"status":"ok","problems":["p"],"ready":true,"working":true,"running":2,"stuck_threads":["x"],'
                f'"unknown_tasks":{{"t":{BEGIN_JSON}}},"workers":[{WORKER_JSON}],"version":"1","error":null,"failing_chores":[],'
                '"failing_schedules":[],"deadlocks":[],"lanes":{}}'
            ),
        ),
        (ScheduleSummaryBody, SCHEDULE, f"{{{SCHEDULE_JSON}}}"),
        (ScheduleBody, SCHEDULE, f'{{{SCHEDULE_JSON},"args":{{"a":[1]}}}}'),
        (
            TickBody,
            ScheduleTick(BEGIN, END, 3, "fired", "j"),
            f'{{"at":{BEGIN_JSON},"until":{END_JSON},"count":3,"outcome":"fired","job":"j"}}',
        ),
    ],
)
def test_body_is_this_json_to_the_byte(body: type[BaseModel], value: object, json: str) -> None:
    assert body.model_validate(value).model_dump_json() == json


@pytest.mark.parametrize(
    ("body", "cls", "hidden"),
    [
        (JobSummaryBody, Job, {"created", "history", "steps"}),
        (JobDetailBody, Job, {"created"}),
        (DeadLetterSummaryBody, DeadLetter, {"traceback", "history"}),
        (DeadLetterBody, DeadLetter, set()),
        (AttemptBody, Attempt, set()),
        (QueueBody, QueueInfo, set()),
        (WorkerBody, WorkerInfo, set()),
        (HealthBody, Health, set()),
        (ScheduleSummaryBody, Schedule, {"args"}),
        (ScheduleBody, Schedule, set()),
        (TickBody, ScheduleTick, set()),
    ],
)
def test_T8_body_hides_these_fields_and_no_others(
    body: type[BaseModel], cls: type[Any], hidden: set[str]
) -> None:
    assert body.model_fields.keys() == {field.name for field in fields(cls)} - hidden


def test_T8_arguments_and_results_of_jobs_are_in_no_body_but_their_own() -> None:
    for body in (JobBody, JobSummaryBody, JobDetailBody):
        assert not {"args", "result", "_stored_args"} & body.model_fields.keys()
