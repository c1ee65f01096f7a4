"""The routes of queues and of health."""

from typing import Any

import pytest

from tests.fastapi.conftest import Site
from tests.support.engine import worker_of


def test_pause_and_resume_of_a_queue_show_in_the_list(site: Site) -> None:
    def mail() -> dict[str, Any]:
        queues: list[dict[str, Any]] = site.client.get("/jobs/queues").json()["items"]
        (queue,) = [queue for queue in queues if queue["name"] == "mail"]
        return queue

    assert (mail()["paused"], mail()["slots"]) == (False, 5)
    answer = site.client.post("/jobs/queues/mail/pause")
    assert (answer.status_code, answer.json()) == (200, {"name": "mail", "paused": True})
    assert mail()["paused"] is True
    answer = site.client.post("/jobs/queues/mail/resume")
    assert answer.json() == {"name": "mail", "paused": False}
    assert mail()["paused"] is False


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_F17_pause_of_a_queue_that_cannot_be_is_refused(shared: Site, verb: str) -> None:
    client = shared.client
    unknown = client.post(f"/jobs/queues/mial/{verb}")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown-queue")
    for name in ("a%00b", "%0a", "m%C3%A4il", "a b", "q" * 201, "%ff"):
        assert client.post(f"/jobs/queues/{name}/{verb}").status_code == 422


def test_health_of_a_working_site_is_ok(shared: Site) -> None:
    answer = shared.client.get("/jobs/health")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["problems"], body["working"]) == ("ok", [], True)
    assert all(worker["id"].isdigit() for worker in body["workers"])


def test_health_of_a_stopping_site_is_unavailable_and_says_so(site: Site) -> None:
    async def stop() -> None:
        worker_of(site.jobs).begin_stop()

    site.call(stop)
    answer = site.client.get("/jobs/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "stopping")
    assert answer.headers["content-type"] == "application/json"
