"""The jobs router's page in OpenAPI: complete, and true."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.openapi.models import OpenAPI
from pydantic import BaseModel, TypeAdapter

from jobrunner import JobRunner
from jobrunner.fastapi import bearer
from jobrunner.fastapi.api import (
    audit_schemas,
    batch_schemas,
    dead_letter_schemas,
    health_schemas,
    job_schemas,
    queue_schemas,
    schedule_schemas,
)
from jobrunner.fastapi.api.problems import MEDIA_TYPE, JobProblem
from jobrunner.queue.filters import DEFAULT_ROWS, MOST_ROWS

METHODS = {"get", "put", "post", "delete"}


@pytest.fixture
def jobs(tmp_db: Path) -> JobRunner:
    """Return a runner that stays closed."""
    return JobRunner(f"sqlite:///{tmp_db}")


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """Return the OpenAPI page of an app with the router alone."""
    jobs = JobRunner("never-opened.db")
    app = FastAPI()
    app.include_router(jobs.router(read=bearer("reader")), prefix="/jobs")
    return app.openapi()


def operations(page: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each operation with its method and path."""
    for path, item in page["paths"].items():
        for method in METHODS & item.keys():
            yield f"{method.upper()} {path}", item[method]


def references(node: object) -> Iterator[str]:
    """Yield every ``$ref`` below a node."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_page_has_every_route(page: dict[str, Any]) -> None:
    assert {name for name, _ in operations(page)} == {
        "GET /jobs",
        "GET /jobs/dead-letters",
        "GET /jobs/dead-letters/groups",
        "GET /jobs/dead-letters/{id}",
        "POST /jobs/dead-letters/{id}/replay",
        "POST /jobs/{id}/signals/{name}",
        "POST /jobs/dead-letters/replay",
        "DELETE /jobs/dead-letters/{id}",
        "GET /jobs/batches",
        "GET /jobs/batches/{id}",
        "GET /jobs/batches/{id}/graph",
        "POST /jobs/batches/{id}/cancel",
        "POST /jobs/batches/{id}/retry",
        "GET /jobs/queues",
        "POST /jobs/queues/{name}/pause",
        "POST /jobs/queues/{name}/resume",
        "GET /jobs/limits",
        "PUT /jobs/limits",
        "DELETE /jobs/limits",
        "GET /jobs/schedules",
        "GET /jobs/schedules/{id}",
        "GET /jobs/schedules/{id}/ticks",
        "PUT /jobs/schedules/{id}",
        "DELETE /jobs/schedules/{id}",
        "POST /jobs/schedules/{id}/run",
        "POST /jobs/schedules/{id}/pause",
        "POST /jobs/schedules/{id}/resume",
        "GET /jobs/stats",
        "GET /jobs/audit",
        "GET /jobs/health",
        "GET /jobs/{id}",
        "POST /jobs/{id}/cancel",
        "POST /jobs/{id}/reschedule",
        "POST /jobs/cancel",
        "POST /jobs/reschedule",
    }


def test_page_is_valid_and_every_reference_leads_somewhere(page: dict[str, Any]) -> None:
    OpenAPI.model_validate(page)
    known = {f"#/components/schemas/{name}" for name in page["components"]["schemas"]}
    assert set(references(page)) <= known


def test_every_operation_is_described(page: dict[str, Any]) -> None:
    for name, operation in operations(page):
        assert operation["tags"] == ["jobs"], name
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["security"] == [{"bearer": []}], name
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], (name, parameter["name"])
        for status, response in operation["responses"].items():
            assert response["description"], (name, status)


def test_every_good_answer_but_an_empty_one_has_a_schema(page: dict[str, Any]) -> None:
    for name, operation in operations(page):
        (good,) = [
            response
            for status, response in operation["responses"].items()
            if status.startswith("2")
        ]
        if name.startswith("DELETE"):
            assert "content" not in good
        else:
            assert "$ref" in good["content"]["application/json"]["schema"], name


def test_every_operation_documents_its_problems_as_one_schema_with_examples(
    page: dict[str, Any],
) -> None:
    for name, operation in operations(page):
        bad = {
            status: response
            for status, response in operation["responses"].items()
            if not status.startswith("2")
        }
        assert {"401", "403", "503"} <= bad.keys(), name
        assert ("422" in bad) == bool(operation.get("parameters") or "requestBody" in operation), (
            name
        )
        for status, response in bad.items():
            content = response["content"][MEDIA_TYPE]
            assert content["schema"] == {"$ref": "#/components/schemas/JobProblem"}, (name, status)
            assert content["examples"], (name, status)
            for code, example in content["examples"].items():
                problem = JobProblem.model_validate(example["value"])
                assert (problem.code, str(problem.status)) == (code, status)
            if not (status == "503" and name == "GET /jobs/health"):
                assert list(response["content"]) == [MEDIA_TYPE], (name, status)
    assert "HTTPValidationError" not in page["components"]["schemas"]


ALWAYS = {
    "unauthorized",
    "forbidden",
    "not-running",
    "store-unavailable",
    "store-unusable",
}
OF_CHANGES = {"cross-origin", "store-busy", "outcome-unknown", "store-full"}
OF_BODIES = {"bad-request", "too-large", "not-json"}


@pytest.mark.parametrize(
    ("operation", "codes"),
    [
        ("GET /jobs", {"invalid-request", "invalid-options", "invalid-cursor"}),
        ("GET /jobs/{id}", {"invalid-request", "not-found"}),
        ("GET /jobs/queues", set()),
        ("GET /jobs/health", set()),
        ("GET /jobs/stats", {"invalid-request", "invalid-options"}),
        ("GET /jobs/audit", {"invalid-request", "invalid-options", "invalid-cursor"}),
        ("GET /jobs/limits", {"invalid-request", "invalid-options"}),
        (
            "PUT /jobs/limits",
            OF_CHANGES
            | OF_BODIES
            | {"invalid-request", "invalid-options", "unknown-queue", "unknown-task"},
        ),
        (
            "DELETE /jobs/limits",
            OF_CHANGES | {"invalid-request", "invalid-options", "unknown-queue", "unknown-task"},
        ),
        ("GET /jobs/schedules", {"invalid-request", "invalid-options"}),
        (
            "GET /jobs/schedules/{id}/ticks",
            {"invalid-request", "invalid-options", "schedule-not-found"},
        ),
        ("POST /jobs/{id}/cancel", OF_CHANGES | {"invalid-request", "not-found"}),
        (
            "POST /jobs/{id}/reschedule",
            OF_CHANGES
            | OF_BODIES
            | {"invalid-request", "invalid-options", "not-found", "not-waiting"},
        ),
        (
            "POST /jobs/cancel",
            OF_CHANGES | OF_BODIES | {"invalid-request", "invalid-options"},
        ),
        (
            "POST /jobs/reschedule",
            OF_CHANGES | OF_BODIES | {"invalid-request", "invalid-options"},
        ),
        ("POST /jobs/queues/{name}/pause", OF_CHANGES | {"invalid-request", "unknown-queue"}),
        (
            "POST /jobs/dead-letters/{id}/replay",
            OF_CHANGES
            | OF_BODIES
            | {"invalid-request", "invalid-options", "invalid-arguments", "not-found"}
            | {"key-taken", "already-replayed", "no-handler"},
        ),
        (
            "POST /jobs/dead-letters/replay",
            OF_CHANGES | OF_BODIES | {"invalid-request", "invalid-options"},
        ),
        (
            "PUT /jobs/schedules/{id}",
            OF_CHANGES
            | OF_BODIES
            | {"invalid-request", "invalid-schedule", "invalid-arguments", "unknown-task"}
            | {"declared-in-code"},
        ),
        (
            "DELETE /jobs/schedules/{id}",
            OF_CHANGES | {"invalid-request", "schedule-not-found", "declared-in-code"},
        ),
        (
            "POST /jobs/schedules/{id}/run",
            OF_CHANGES | {"invalid-request", "schedule-not-found", "no-handler"},
        ),
    ],
)
def test_operation_documents_the_problems_it_can_have_and_no_others(
    page: dict[str, Any], operation: str, codes: set[str]
) -> None:
    responses = dict(operations(page))[operation]["responses"]
    documented = [
        code
        for response in responses.values()
        for code in response.get("content", {}).get(MEDIA_TYPE, {}).get("examples", ())
    ]
    assert sorted(documented) == sorted(ALWAYS | codes)


def test_health_documents_both_of_its_503(page: dict[str, Any]) -> None:
    content = page["paths"]["/jobs/health"]["get"]["responses"]["503"]["content"]
    assert content["application/json"]["schema"]["$ref"].endswith("/HealthBody")
    assert content[MEDIA_TYPE]["schema"]["$ref"].endswith("/JobProblem")


@pytest.mark.parametrize(
    "model",
    [
        model
        for module in (
            audit_schemas,
            batch_schemas,
            dead_letter_schemas,
            health_schemas,
            job_schemas,
            queue_schemas,
            schedule_schemas,
        )
        for model in vars(module).values()
        if isinstance(model, type)
        and issubclass(model, BaseModel)
        and model.__module__ == module.__name__
    ],
)
def test_examples_of_bodies_are_valid(model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    for example in schema.get("examples", ()):
        model.model_validate(example)
    for field in model.model_fields.values():
        for example in field.examples or ():
            TypeAdapter(field.rebuild_annotation()).validate_python(example)


def test_operations_of_two_routers_in_one_app_have_names_of_their_own(jobs: JobRunner) -> None:
    app = FastAPI()
    app.include_router(jobs.router(insecure=True), prefix="/jobs")
    app.include_router(jobs.router(insecure=True), prefix="/admin/mail-jobs")
    page = app.openapi()  # a duplicate would be a warning
    names = [operation["operationId"] for _, operation in operations(page)]
    assert len(set(names)) == len(names) == 70
    assert page["paths"]["/jobs/{id}"]["get"]["operationId"] == "jobs_get_job"
    assert page["paths"]["/admin/mail-jobs"]["get"]["operationId"] == "admin_mail_jobs_list_jobs"


def test_models_of_the_app_keep_their_names(jobs: JobRunner) -> None:
    class Problem(BaseModel):
        x: int

    class Health(BaseModel):
        y: int

    app = FastAPI()
    app.include_router(jobs.router(insecure=True), prefix="/jobs")

    @app.get("/mine")
    async def mine() -> Problem | Health:
        raise NotImplementedError

    page = app.openapi()
    assert {"Problem", "Health", "JobProblem", "HealthBody"} <= page["components"]["schemas"].keys()


def test_page_of_an_open_router_asks_for_no_token(jobs: JobRunner) -> None:
    app = FastAPI()
    app.include_router(jobs.router(insecure=True), prefix="/jobs")
    page = app.openapi()
    assert "securitySchemes" not in page["components"]
    for name, operation in operations(page):
        assert "security" not in operation, name
        assert "401" not in operation["responses"], name


def test_names_in_filters_are_those_that_can_be_stored(page: dict[str, Any]) -> None:
    parameters = {
        parameter["name"]: parameter["schema"]
        for parameter in page["paths"]["/jobs"]["get"]["parameters"]
    }
    assert parameters["key"]["anyOf"][0]["maxLength"] == 500
    assert parameters["tag"]["anyOf"][0]["maxLength"] == 200
    assert parameters["limit"]["maximum"] == MOST_ROWS
    assert parameters["limit"]["default"] == DEFAULT_ROWS
