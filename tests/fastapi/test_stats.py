"""The route of statistics, and the revision of workers."""

from datetime import datetime

from tests.fastapi.conftest import Site
from tests.support.engine import next_round, producer_of


def test_stats_show_what_has_ended(site: Site) -> None:
    site.finished()

    async def write() -> None:
        producer_of(site.jobs)._statistics._period.end()
        await next_round(site.jobs)

    site.call(write)
    body = site.client.get("/jobs/stats").json()
    assert (body["per"], body["by"], len(body["buckets"])) == ("minute", "time", 60)
    assert (body["total"]["succeeded"], body["total"]["failed"], body["total"]["dead"]) == (1, 0, 0)
    assert 0 < body["total"]["run_p50"] < 30
    assert body["buckets"][0]["run_p50"] is None
    begin, end = (datetime.fromisoformat(body[name]) for name in ("since", "until"))
    assert (end - begin).total_seconds() == 3600

    by_task = site.client.get(
        "/jobs/stats", params={"by": "task", "per": "hour", "queue": "default"}
    )
    (bucket,) = by_task.json()["buckets"]
    assert (bucket["task"], bucket["queue"], bucket["succeeded"]) == ("greet", "default", 1)


def test_stats_refuse_a_window_or_a_word_that_means_nothing(shared: Site) -> None:
    get = shared.client.get
    for query in ("per=day", "by=tag", "since=yesterday", "last=5", "queue=a%20b"):
        assert get(f"/jobs/stats?{query}").status_code == 422, query
    refused = get("/jobs/stats?since=2026-01-01T00:00:00Z")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid-options")
    assert "minutes are kept for 6 hours" in refused.json()["detail"]


def test_stats_are_behind_the_lock(shared: Site) -> None:
    assert shared.client.get("/jobs/stats", headers={"Authorization": ""}).status_code == 401


def test_health_shows_the_revision_of_each_worker(shared: Site) -> None:
    body = shared.client.get("/jobs/health").json()
    assert [worker["revision"] for worker in body["workers"]] == [0]
