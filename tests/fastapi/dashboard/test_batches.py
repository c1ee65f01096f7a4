"""Tests the pages of batches, and the places of jobs in their graph."""

from typing import Any

import pytest

from jobrunner import Batch
from jobrunner.core.model import JobRow, State
from jobrunner.core.workflows import BatchGraph, EdgeRow
from jobrunner.fastapi.dashboard.graphs import graph_of
from tests.fastapi.dashboard.conftest import NOBODY, PATIENCE_S, Board, text_of


def a_batch(board: Board, *, waits: bool = False) -> Batch[Any]:
    """Return a batch of a greeting, a letter after it that dies, and two callbacks."""
    tasks = board.jobs.tasks
    greet = next(task for name, task in tasks.items() if name.endswith("greet"))
    letter = next(task for name, task in tasks.items() if name.endswith("write_letter"))

    async def store() -> Batch[Any]:
        first = (greet.options(delay=3600) if waits else greet).call("ada")
        batch: Batch[Any] = await board.jobs.enqueue_batch(
            [first, letter.call("nowhere").after(first)],
            then=greet.call("then"),
            at_end=greet.call("end"),
            name="doc <7>",
        )
        if not waits:
            await batch.wait(PATIENCE_S)
        return batch

    return board.call(store)


def test_list_shows_batches_by_state_and_name(board: Board) -> None:
    assert "No batches" in text_of(board.get("batches"))
    batch = a_batch(board)
    page = board.get("batches")
    assert "doc <7>" in text_of(page)
    assert "2 of 2" in text_of(page)
    assert f'href="./batches/{batch.id}"' in page.text
    assert "No batches" in text_of(board.get("batches?state=running"))
    assert "doc <7>" in text_of(board.get("batches?state=failed"))
    assert "No batches" in text_of(board.get("batches?name=other"))


def test_page_shows_numbers_callbacks_and_the_graph(board: Board) -> None:
    batch = a_batch(board)
    page = board.get(f"batches/{batch.id}")
    text = text_of(page)
    assert "doc <7>" in text
    assert "2 of 2 ended" in text
    assert batch.then is not None
    assert f'href="../jobs/{batch.then.id}"' in page.text
    assert 'aria-label="4 jobs in 3 columns, 1 edge; the same as text below"' in page.text
    assert "waits for" in text
    for job in batch.jobs:
        assert f'href="../jobs/{job.id}"' in page.text


def test_job_links_to_its_batch(board: Board) -> None:
    batch = a_batch(board)
    page = board.get(f"jobs/{batch.jobs[0].id}")
    assert f'href="../batches/{batch.id}"' in page.text


def test_batch_is_retried_and_cancelled_by_its_buttons(board: Board) -> None:
    failed, waits = a_batch(board), a_batch(board, waits=True)
    assert f'action="../batches/{failed.id}/retry"' in board.get(f"batches/{failed.id}").text
    answer = board.post(f"batches/{failed.id}/retry", {})
    assert answer.headers["location"] == f"../../batches/{failed.id}?said=many-replayed&n=1"
    assert f'action="../batches/{waits.id}/cancel"' in board.get(f"batches/{waits.id}").text
    for said in ("batch-cancelled", "batch-ended"):
        answer = board.post(f"batches/{waits.id}/cancel", {})
        assert answer.headers["location"] == f"../../batches/{waits.id}?said={said}"


def test_unknown_batch_has_a_page_that_says_so(board: Board) -> None:
    assert board.client.get(f"/jobs/ui/batches/{NOBODY}").status_code == 404


# -- the graph ------------------------------------------------------------------------------------------


def row(id: str, task: str = "work", state: State = "succeeded") -> JobRow:
    fields: dict[str, Any] = dict.fromkeys(JobRow._fields)
    return JobRow(**(fields | {"id": id, "task": task, "state": state}))


def graph(members: list[JobRow], edges: list[tuple[str, str]], **more: Any) -> BatchGraph:
    rows = [EdgeRow(job, needs, "success", "met") for job, needs in edges]
    return BatchGraph(members, more.pop("callbacks", ()), rows, **more)


def test_diamond_stands_in_columns_right_of_what_it_waits_for() -> None:
    found = graph_of(
        "b",
        graph(
            [row("z"), row("l"), row("r"), row("a")],
            [("z", "l"), ("z", "r"), ("l", "a"), ("r", "a"), ("c", "b")],
            callbacks=[row("c", "publish", "blocked")],
        ),
    )
    boxes = {box.key: box for box in found.boxes}
    columns = [boxes[key].x for key in ("a", "l", "r", "z", "c")]
    assert columns == [0, 246, 246, 492, 738]
    assert boxes["l"].y != boxes["r"].y
    assert len(found.lines) == 4
    assert boxes["c"].name == "then: publish"
    assert [entry.needs for entry in found.entries] == ["2 × work", "work", "work", "", ""]
    assert (found.grouped, found.width, found.height) == (False, 928, 92)


def test_many_members_are_one_box_for_each_task() -> None:
    members = [row(f"{n}", "resize", "dead" if n == 3 else "queued") for n in range(25)]
    found = graph_of("b", graph([*members, row("m", "merge", "blocked")], [("m", "7"), ("m", "8")]))
    assert found.grouped
    first, second = found.boxes
    assert (first.name, first.text, first.state) == ("resize", "24 queued, 1 dead", "dead")
    assert (second.name, second.text, len(found.lines)) == ("merge", "blocked", 1)
    assert [entry.id for entry in found.entries] == ["", "m"]


def test_deep_path_and_part_of_a_batch_are_drawn() -> None:
    members = [row(f"{n}") for n in range(2_000)]
    edges = [(f"{n + 1}", f"{n}") for n in range(1_999)]
    found = graph_of("b", graph(members, edges))
    assert (len(found.boxes), len(found.lines), found.grouped) == (1, 0, True)
    assert found.boxes[0].text == "2,000 succeeded"
    part = graph_of("b", graph(members[:1], [("0", "elsewhere")], complete=False))
    assert (len(part.lines), part.complete, part.grouped) == (0, False, True)


def test_empty_batch_has_no_boxes() -> None:
    assert graph_of("b", graph([], [])).boxes == []


@pytest.mark.parametrize("length", [24, 25])
def test_long_name_is_cut_to_the_box(length: int) -> None:
    (box,) = graph_of("b", graph([row("a", "t" * length)], [])).boxes
    assert len(box.name) == 24
    assert box.name.endswith("…") == (length > 24)
