"""The audit log: entries in the order of the acts, a count at their end, pages, and what is past its time goes."""

import asyncio

import pytest

from jobrunner.core.audit import Action, AuditRow
from jobrunner.core.errors import StoreError
from jobrunner.store.protocol import AuditPage, Store
from tests.conformance.rigs import Rig, store_at
from tests.support.factories import HOUR, NOW, SECOND


async def record(
    store: Store,
    *,
    at: int = NOW,
    actor: str = "ada",
    action: Action = "cancel",
    target: str | None = None,
    where: str | None = None,
    reason: str | None = None,
) -> int:
    """Record an act."""
    entry = await store.audit.record(
        at=at, actor=actor, action=action, target=target, filter=where, reason=reason
    )
    assert entry is not None
    return entry


async def listed(
    store: Store,
    *,
    actor: str | None = None,
    action: Action | None = None,
    before: int | None = None,
    limit: int = 50,
) -> AuditPage:
    """Return a page."""
    return await store.audit.list(actor=actor, action=action, before=before, limit=limit)


async def test_an_act_is_recorded_without_a_count_until_it_ends(store: Store) -> None:
    entry = await record(store, action="queues.pause", target="mail", reason="it is down")
    row = AuditRow(entry, NOW, "ada", "queues.pause", "mail", None, None, "it is down")
    assert (await listed(store)).rows == [row]
    await store.audit.finish(entry, 3)
    assert (await listed(store)).rows == [row._replace(number=3)]


async def test_an_act_on_many_keeps_its_filter(store: Store) -> None:
    await record(store, action="dead_letters.replay_all", where='{"task":"ü"}')
    (row,) = (await listed(store)).rows
    assert (row.target, row.filter) == (None, '{"task":"ü"}')


async def test_the_end_of_one_act_does_not_change_another(store: Store) -> None:
    first, second = await record(store), await record(store)
    await store.audit.finish(first, 0)
    assert [(row.entry, row.number) for row in (await listed(store)).rows] == [
        (second, None),
        (first, 0),
    ]


async def test_a_reason_has_500_characters_at_most(store: Store) -> None:
    await record(store, reason="ü" * 500)
    with pytest.raises(StoreError):
        await record(store, reason="u" * 501)
    assert len((await listed(store)).rows) == 1


async def test_lists_go_newest_first_and_page_by_page(store: Store) -> None:
    entries = [await record(store, at=NOW - n) for n in range(5)]  # the clock went back
    page = await listed(store, limit=2)
    assert [row.entry for row in page.rows] == [entries[4], entries[3]]
    page = await listed(store, limit=2, before=page.next)
    assert [row.entry for row in page.rows] == [entries[2], entries[1]]
    page = await listed(store, limit=2, before=page.next)
    assert ([row.entry for row in page.rows], page.next, page.complete) == (
        [entries[0]],
        None,
        True,
    )


async def test_lists_hold_the_acts_that_match_all_filters(store: Store) -> None:
    mine = await record(store, actor="ada", action="cancel")
    hers = await record(store, actor="eve", action="cancel")
    other = await record(store, actor="ada", action="queues.pause")

    async def found(actor: str | None, action: Action | None) -> list[int]:
        return [row.entry for row in (await listed(store, actor=actor, action=action)).rows]

    assert await found("ada", None) == [other, mine]
    assert await found(None, "cancel") == [hers, mine]
    assert await found("ada", "cancel") == [mine]
    assert await found("ad", None) == []


async def test_prune_takes_what_was_recorded_before_slice_by_slice_from_the_oldest(
    store: Store,
) -> None:
    entries = [await record(store, at=NOW + n * SECOND) for n in range(5)]
    pruned = []
    for left in ([2, 3, 4], [3, 4], [3, 4]):
        pruned.append(await store.audit.prune(before=NOW + 3 * SECOND, limit=2))
        assert [row.entry for row in (await listed(store)).rows] == [
            entries[n] for n in reversed(left)
        ]
    assert pruned == [2, 1, 0]


async def test_an_act_that_ends_after_it_was_pruned_stays_away(store: Store) -> None:
    entry = await record(store)
    await store.audit.prune(before=NOW + 1, limit=9)
    await store.audit.finish(entry, 1)
    assert (await listed(store)).rows == []
    assert await record(store) > entry


async def test_acts_at_the_same_time_all_have_an_entry(store: Store) -> None:
    entries = await asyncio.gather(*(record(store) for _ in range(20)))
    assert [row.entry for row in (await listed(store)).rows] == sorted(entries, reverse=True)


async def test_entries_are_there_after_another_opening(rig: Rig) -> None:
    entry = await record(rig.store)
    await rig.close()
    again = store_at(rig.url)
    await again.open()
    try:
        assert [row.entry for row in (await listed(again)).rows] == [entry]
    finally:
        await again.close()
        await rig.open()


async def record_form(store: Store, form: str, *, at: int = NOW) -> int | None:
    """Record an act of a form."""
    return await store.audit.record(
        at=at, actor="ada", action="cancel", target="a", filter=None, reason=None, form=form
    )


async def test_a_form_acts_once_in_all_processes_also_if_its_act_never_ends(rig: Rig) -> None:
    entry = await record_form(rig.store, "a")
    assert entry is not None
    assert await record_form(rig.store, "a", at=NOW + SECOND) is None
    assert await record_form(rig.store, "b") is not None
    await rig.close()
    await rig.open()
    assert await record_form(rig.store, "a") is None
    assert len((await listed(rig.store)).rows) == 2


async def test_a_form_acts_again_if_it_has_failed_or_an_hour_has_gone_by(store: Store) -> None:
    for at in (NOW, NOW + HOUR + 1, NOW - HOUR):
        assert await record_form(store, "a", at=at) is not None
        assert await record_form(store, "a", at=at) is None
    await store.audit.forget_form("a")
    assert await record_form(store, "a") is not None
