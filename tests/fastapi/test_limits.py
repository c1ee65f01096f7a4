"""The routes of limits."""

from typing import Any

import pytest

from tests.fastapi.conftest import Site

RATE = {"limit": 100, "per": 60.0, "burst": 1}


def listed(site: Site) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the limits in force, page by page of two, by scope and name."""
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        answer = site.client.get("/jobs/limits", params=query)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        found += body["items"]
        if body["next_cursor"] is None:
            return {(one["scope"], one["name"]): one for one in found}
        query["cursor"] = body["next_cursor"]


def sync(site: Site) -> str:
    """Return the stored name of the task with limits."""
    return next(name for name in site.jobs.tasks if name.endswith("sync"))


def test_limits_are_set_listed_and_reset_by_scope_and_name(site: Site) -> None:
    task = sync(site)
    before = listed(site)
    assert set(before) == {("task", task), ("lanes", task)}
    assert before["task", task] == {
        "scope": "task",
        "name": task,
        "concurrency": 9,
        "rate_limit": None,
        "max_waiting": None,
        "set_at": None,
    }
    numbers: dict[tuple[str, str], dict[str, Any]] = {
        ("queue", "mail"): {"max_waiting": 7, "concurrency": 3},
        ("task", task): {"rate_limit": RATE},
        ("lanes", task): {"concurrency": 1},
        ("lane", f'{task}["a/b?#%]"]'): {"concurrency": 5},
    }
    for (scope, name), body in numbers.items():
        where = {"scope": scope, "name": name}
        answer = site.client.put("/jobs/limits", params=where, json=body)
        assert answer.status_code == 200, answer.text
        assert {**answer.json(), **body} == answer.json()
        assert answer.json()["set_at"] is not None
    after = listed(site)
    assert set(after) == {*before, *numbers}
    assert after["task", task]["concurrency"] == 9  # what is not given does not change
    for scope, name in numbers:
        where = {"scope": scope, "name": name}
        for _ in range(2):
            assert site.client.delete("/jobs/limits", params=where).status_code == 204
    assert listed(site) == before


@pytest.mark.parametrize(
    ("scope", "name", "body", "code"),
    [
        ("queue", "mial", {"concurrency": 1}, "unknown-queue"),
        ("task", "sinc", {"concurrency": 1}, "unknown-task"),
        ("lane", "sinc[1]", {"concurrency": 1}, "unknown-task"),
        ("lane", "{sync}[1,2]", {"concurrency": 1}, "invalid-options"),
        ("lane", "{sync}[NaN", {"concurrency": 1}, "invalid-options"),
        ("lane", "{sync}[a]", {"concurrency": 1}, "invalid-options"),
        ("lanes", "{greet}", {"concurrency": 1}, "invalid-options"),
        ("task", "{sync}", {"max_waiting": 1}, "invalid-options"),
        ("task", "{sync}", {}, "invalid-options"),
        ("task", "{sync}", {"rate_limit": {"limit": 1, "per": 1e12}}, "invalid-options"),
        ("task", "{sync}", {"concurrency": 0}, "invalid-request"),
        ("task", "{sync}", {"concurrency": True}, "invalid-request"),
        ("task", "{sync}", {"rate_limit": {"limit": 1, "per": 0}}, "invalid-request"),
        ("task", "{sync}", {"concurency": 1}, "invalid-request"),
        ("tenant", "{sync}", {"concurrency": 1}, "invalid-request"),
        ("task", "", {"concurrency": 1}, "invalid-request"),
    ],
)
def test_F17_a_limit_that_cannot_be_is_refused_and_nothing_is_stored(
    shared: Site, scope: str, name: str, body: dict[str, Any], code: str
) -> None:
    before = listed(shared)
    where = {"scope": scope, "name": name.format(sync=sync(shared), greet=shared.greet.name)}
    answer = shared.client.put("/jobs/limits", params=where, json=body)
    assert answer.status_code == (404 if code == "unknown-queue" else 422)
    assert answer.json()["code"] == code
    assert listed(shared) == before


def test_a_cursor_of_another_list_is_refused(shared: Site) -> None:
    answer = shared.client.get("/jobs/limits", params={"cursor": "?"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-options")
