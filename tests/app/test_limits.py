"""The limit of mails per domain."""

from typing import Any

import pytest

from app.tasks.mail import send_reminder, send_welcome_email
from jobrunner import Task


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
