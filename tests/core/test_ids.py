"""Public ids: well-formed, in the order of time, and never the same twice."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

from jobrunner.core.clock import to_us, utcnow
from jobrunner.core.ids import new_id

NOW = to_us(utcnow())


def test_id_is_a_uuid_of_version_7_that_tells_its_millisecond() -> None:
    for us in (0, NOW, NOW + 999):
        id = new_id(us)
        parsed = UUID(id)
        assert str(parsed) == id
        assert (parsed.version, parsed.variant) == (7, RFC_4122)
        assert parsed.int >> 80 == us // 1000


def test_ids_of_one_instant_are_all_different_in_all_their_random_bits() -> None:
    ids = [UUID(new_id(NOW)).int for _ in range(2_000)]
    assert len(set(ids)) == len(ids)
    varies = 0
    for id in ids:
        varies |= id ^ ids[0]
    # 80 bits, without the four of the version and the two of the variant.
    assert varies == (1 << 80) - 1 - (0xF << 76) - (0b11 << 62)


def test_ids_later_by_a_millisecond_sort_behind() -> None:
    ids = [new_id(NOW + 1000 * step) for step in range(100)]
    assert ids == sorted(ids)


def test_forked_child_makes_no_id_of_its_parent() -> None:
    script = """
import os
from jobrunner.core.ids import new_id
new_id(0)
ours, theirs = os.pipe()
if os.fork() == 0:
    os.write(theirs, "\\n".join(new_id(0) for _ in range(500)).encode())
    os._exit(0)
os.close(theirs)
with os.fdopen(ours) as answer:
    child = set(answer.read().split())
os.wait()
print(len(child), len(child & {new_id(0) for _ in range(500)}))
"""
    told = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=20
    )
    assert told.stdout.split() == ["500", "0"]


def test_ids_of_two_threads_hold_their_own_times() -> None:
    times = (NOW, NOW + 60_000_000)

    def make(us: int) -> set[int]:
        return {UUID(new_id(us)).int >> 80 for _ in range(5_000)}

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(make, times))
    assert found == [{us // 1000} for us in times]
