"""The schedules of the shop: the daily report, and the clean-up of tokens."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from freezegun.api import FrozenDateTimeFactory

from app.database import Token
from app.settings import Settings
from app.tasks.tokens import hash_of
from jobrunner import Cron, InvalidSchedule
from tests.app.shop import ShopClient, make_settings


@pytest.fixture
def shop(settings: Settings) -> Iterator[ShopClient]:
    """A running shop with its daily report."""
    with ShopClient(settings) as client:
        yield client


def run(shop: ShopClient, schedule: str) -> str:
    """Run a schedule now; return its job's id when it has succeeded."""
    answer = shop.post(f"/jobs/schedules/{schedule}/run")
    assert answer.status_code == 202, answer.text
    id = str(answer.json()["id"])
    shop.finish(id)
    return id


def test_shop_has_its_two_schedules_in_its_own_time(shop: ShopClient) -> None:
    clean_up, report = shop.get("/jobs/schedules").json()["items"]
    assert (clean_up["id"], clean_up["description"]) == ("clean_up_tokens", "Every 15 minutes")
    assert report["id"] == "send_daily_report"
    assert report["description"] == "At 08:00 every day (Europe/Berlin)"
    following = datetime.fromisoformat(report["next_at"])
    assert following == Cron("0 8 * * *", "Europe/Berlin").next_after(
        following - timedelta(hours=1)
    )


def test_daily_report_counts_the_last_day_up_to_its_tick(
    frozen: FrozenDateTimeFactory, shop: ShopClient
) -> None:
    shop.finish(shop.register("ada"))
    shop.post("/orders", json={"email": "ada@example.com", "item": "engine"}).raise_for_status()
    shop.t.travel_to("2026-03-04 08:00", zone="Europe/Berlin")
    (report,) = [mail for mail in shop.outbox() if mail["to"] == "owner@localhost"]
    text = (shop.shop.state.services.settings.outbox_dir / report["file"]).read_text(
        encoding="utf-8"
    )
    assert "1 new users, 1 orders." in text


def test_token_confirms_its_address_once(shop: ShopClient) -> None:
    shop.finish(shop.post_job("/confirmations", {"email": "ada@example.com"}))
    (mail,) = shop.outbox()
    text = (shop.shop.state.services.settings.outbox_dir / mail["file"]).read_text(encoding="utf-8")
    token = text.split()[-1]
    assert shop.post("/confirmations/wrong").status_code == 404
    assert shop.post(f"/confirmations/{token}").json() == {"email": "ada@example.com"}
    assert shop.post(f"/confirmations/{token}").status_code == 404


def test_clean_up_deletes_the_tokens_whose_time_is_over_and_no_others(
    settings: Settings,
) -> None:
    with ShopClient(settings) as shop:
        now = datetime.now(UTC)  # noqa: TID251 - as the shop does
        database = shop.shop.state.services.database

        async def add(name: str, expires_at: datetime) -> None:
            async with database.writing() as session:
                session.add(Token(hash=hash_of(name), email="a@b.c", expires_at=expires_at))

        assert shop.portal is not None
        shop.portal.call(add, "old", now - timedelta(seconds=1))
        shop.portal.call(add, "good", now + timedelta(hours=1))
        run(shop, "clean_up_tokens")
        assert shop.post("/confirmations/old").status_code == 404
        assert shop.post("/confirmations/good").status_code == 200


def test_unknown_timezone_is_refused_at_start(settings: Settings) -> None:
    wrong = make_settings(settings.data_dir, timezone="Berlin")
    with pytest.raises(InvalidSchedule, match="not in the time zone database"):
        ShopClient(wrong)
