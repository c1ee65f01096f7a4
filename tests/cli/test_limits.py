"""The commands of limits."""

import pytest

from jobrunner.fastapi.api.limit_schemas import LimitPageBody
from tests.cli.commands import RUNNER, jobrunner
from tests.cli.conftest import Stored

APP = ("--app", RUNNER, "--factory")


async def test_limits_are_set_listed_and_reset(stored: Stored) -> None:
    at = ("--store", stored.path)
    words = ("set", "task", "sync", "--concurrency", "4", "--rate", "100/1m", "--burst", "5")
    answer = await jobrunner("limits", *words, *at, *APP, env=stored.env)
    assert answer.code == 0, answer.err
    assert "100" in answer.out
    lane = ("lane", "sync[ 42 ]")
    answer = await jobrunner(
        "limits", "set", *lane, "--concurrency", "1", "--json", *at, *APP, env=stored.env
    )
    assert (answer.json["scope"], answer.json["name"]) == ("lane", "sync[42]")
    await jobrunner("limits", "set", "queue", "mail", "--max-waiting", "9", *at)

    rows = (await jobrunner("limits", "list", *at)).rows
    assert [(row["scope"], row["name"], row["concurrency"], row["rate"]) for row in rows] == [
        ("lanes", "sync", "2", "-"),
        ("queue", "mail", "-", "-"),
        ("task", "sync", "4", "100/60s"),
        ("lane", "sync[42]", "1", "-"),
    ]
    page = (await jobrunner("limits", "list", "--limit", "1", "--json", *at)).json
    body = LimitPageBody.model_validate(page)
    assert body.model_dump(mode="json") == page  # what the route answers
    following = await jobrunner("limits", "list", "--cursor", page["next_cursor"], "--json", *at)
    assert [one["name"] for one in following.json["items"]] == ["mail", "sync", "sync[42]"]

    reset = ("limits", "reset", "lane", "sync[42]", *at, *APP)
    answer = await jobrunner(*reset, env=stored.env)
    assert answer.out == "the limit of lane sync[42] is reset\n"
    answer = await jobrunner(*reset, "--json", env=stored.env)
    assert answer.json == {"reset": False}


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("set", "tenant", "7", "--concurrency", "1"), 2, "'tenant' is not one of"),
        (("set", "queue", "mail"), 2, "no number is given"),
        (("set", "queue", "mail", "--concurrency", "0"), 2, "is not a whole number"),
        (("set", "queue", "mail", "--rate", "fast"), 2, "write 100/60s"),
        (("set", "queue", "mail", "--rate", "5/1y"), 2, "is not a duration"),
        (("set", "queue", "mail", "--rate", "5/0s"), 2, "per"),
        (("set", "queue", "mail", "--burst", "5"), 2, "add --rate"),
        (("set", "task", "sync", "--concurrency", "1"), 4, "give --app"),
        (("reset", "task", "sync"), 4, "give --app"),
        (("list", "--cursor", "?"), 2, "is not from a page of limits"),
    ],
)
async def test_a_wrong_command_says_what_to_write(
    stored: Stored, words: tuple[str, ...], code: int, hint: str
) -> None:
    answer = await jobrunner("limits", *words, "--store", stored.path)
    assert (answer.code, hint in answer.err) == (code, True), (answer.code, answer.err)
