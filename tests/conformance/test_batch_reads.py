"""Reads of batches: lists, graphs, results and members."""

from jobrunner.core.model import Filter
from jobrunner.store.protocol import Store
from tests.support.factories import NOW, dead, enqueue, new, settle, succeeded
from tests.support.workflows import a_batch, claim_all, graph_of_three, needs


async def test_of_job_finds_the_batch_of_members_dead_ones_and_callbacks(store: Store) -> None:
    made = await a_batch(store, good := new(), bad := new())
    running = await claim_all(store)
    await settle(store, succeeded(running[good.id]), dead(running[bad.id]))
    for id in (good.id, bad.id, *made.callbacks):
        row = await store.workflows.of_job(id)
        assert row is not None
        assert row.id == made.id
    (alone,) = await enqueue(store, new())
    assert await store.workflows.of_job(alone.id) is None


async def test_list_has_the_newest_batches_first_by_state_and_name(store: Store) -> None:
    running = [(await a_batch(store, new(), name="pages")).id for _ in range(3)]
    ended = (await a_batch(store, name="pages")).id
    other = (await a_batch(store, new())).id
    listed = store.workflows.list

    async def ids(**where: object) -> list[str]:
        page = await listed(**{"state": None, "name": None, "before": None, "limit": 9} | where)  # type: ignore[arg-type]
        assert page.complete
        return [row.id for row in page.rows]

    assert await ids() == [other, ended, *reversed(running)]
    assert await ids(name="pages") == [ended, *reversed(running)]
    assert await ids(state="succeeded") == [ended]
    assert await ids(name="pages", state="running") == list(reversed(running))
    page = await listed(state=None, name="pages", before=None, limit=2)
    rest = await listed(state=None, name="pages", before=page.next, limit=9)
    assert [row.id for row in (*page.rows, *rest.rows)] == [ended, *reversed(running)]
    assert rest.next is None


async def test_graph_has_members_callbacks_and_edges(store: Store) -> None:
    made, first, second, third = await graph_of_three(store)
    await settle(store, dead((await claim_all(store))[first.id]))
    graph = await store.workflows.graph(made.id, limit=9)
    assert graph is not None
    assert [row.id for row in graph.members] == [first.id, second.id, third.id]
    assert [row.state for row in graph.members] == ["dead", "cancelled", "cancelled"]
    assert [row.id for row in graph.callbacks] == list(made.callbacks)
    states = {(edge.job, edge.needs): edge.state for edge in graph.edges}
    assert states == {
        (second.id, first.id): "broken",
        (third.id, second.id): "broken",
        (made.then, made.id): "open",
        (made.otherwise, made.id): "met",
        (made.at_end, made.id): "met",
    }
    assert graph.complete
    few = await store.workflows.graph(made.id, limit=0)
    assert few is not None
    assert (few.complete, few.members, len(few.callbacks)) == (False, [], 3)
    assert await store.workflows.graph(new().id, limit=9) is None


async def test_results_have_the_state_and_value_of_each_job(store: Store) -> None:
    good, bad = new(), new()
    await a_batch(store, good, bad)
    running = await claim_all(store)
    await settle(store, succeeded(running[good.id], '"done"'), dead(running[bad.id]))
    found = await store.workflows.results([good.id, bad.id, new().id])
    assert set(found) == {good.id, bad.id}
    assert (found[good.id].state, found[good.id].result) == ("succeeded", '"done"')
    assert (found[bad.id].state, found[bad.id].result) == ("dead", None)


async def test_member_results_come_in_pages_of_those_that_succeeded(store: Store) -> None:
    jobs = [new() for _ in range(5)]
    made = await a_batch(store, *jobs, new("play"))
    running = await claim_all(store)
    ends = [succeeded(running[job.id], str(n)) for n, job in enumerate(jobs[:4])]
    await settle(store, *ends, dead(running[jobs[4].id]))
    results = store.workflows.member_results
    page = await results(made.id, tasks=None, after=0, limit=3)
    assert [row.result for row in page.rows] == ["0", "1", "2"]
    assert page.next is not None
    rest = await results(made.id, tasks=["work"], after=page.next, limit=3)
    assert ([row.result for row in rest.rows], rest.next) == (["3"], None)
    assert (await results(made.id, tasks=["play"], after=0, limit=3)).rows == []
    assert (await results(new().id, tasks=None, after=0, limit=3)).rows == []


async def test_fault_32_large_result_is_never_copied_to_those_that_take_it(store: Store) -> None:
    root = new()
    takers = [new()._replace(handed='{"x":"' + root.id + '"}') for _ in range(50)]
    edges = [edge for job in takers for edge in needs(job, root)]
    await a_batch(store, root, *takers, edges=edges)
    large = '"' + "x" * 1_000_000 + '"'
    await settle(store, succeeded((await claim_all(store))[root.id], large))
    running = await claim_all(store)
    assert len(running) == 50
    assert sum(len(job.args) + len(job.handed or "") for job in running.values()) < 10_000


async def test_members_are_listed_counted_and_cancelled_by_their_batch(store: Store) -> None:
    made = await a_batch(store, first := new(), second := new())
    await a_batch(store, new())
    where = Filter(batch=made.id)
    page = await store.jobs.list(where, before=None, limit=9)
    assert [row.id for row in page.rows] == [second.id, first.id]
    assert {row.batch for row in page.rows} == {made.id}
    assert (await store.jobs.count(where, cap=9)).number == 2
    assert (await store.jobs.plan_cancel_all(where)).cancelled == 2
    done = await store.jobs.cancel_all(where, before=None, now=NOW, limit=9)
    assert set(done.cancelled) == {first.id, second.id}
