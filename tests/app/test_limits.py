"""The limit of mails per domain, and a queue that is full."""

from typing import Any

import pytest

from app.tasks.mail import send_reminder, send_welcome_email
from jobrunner import Task
from tests.app.shop import ShopClient


@pytest.mark.parametrize(("task", "further"), [(send_reminder, ()), (send_welcome_email, ("ada",))])
def test_mails_to_one_domain_share_a_lane_over_spellings(
    task: Task[..., Any], further: tuple[str, ...]
) -> None:
    limits = task.spec.limits
    assert limits is not None
    assert limits.lane.concurrency == 10
    jobs = [
        task.call(email, *further).to_enqueue(id="id", now=1)
        for email in ("a@X.de", "b@x.de", "c@y.de")
    ]
    name = task.name
    assert [job.lane for job in jobs] == [f'{name}["x.de"]', f'{name}["x.de"]', f'{name}["y.de"]']


def test_full_queue_refuses_a_request_until_there_is_room(shop: ShopClient) -> None:
    mail = {"scope": "queue", "name": "mail"}
    shop.put("/jobs/limits", params=mail, json={"max_waiting": 2}).raise_for_status()
    first = shop.register("ada")
    shop.register("bob")
    refused = shop.post("/register", json={"username": "eve", "email": "eve@example.com"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert "where 2 wait and 2 may" in refused.json()["detail"]
    assert len(shop.jobs("send_welcome_email")) == 2
    shop.finish(first)
    shop.finish(shop.register("eve"))  # the refused request has stored no account
