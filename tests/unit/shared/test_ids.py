"""Identifiers are UUIDv7 and sort by time."""

import time

from clipwarden.shared.ids import new_id


def test_ids_are_version_seven_unique_and_in_order() -> None:
    ids = []
    for _ in range(5):
        ids.append(new_id())
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert {(i.version, i.variant) for i in ids} == {(7, "specified in RFC 4122")}
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_an_id_holds_the_time_it_was_made() -> None:
    before, made, after = time.time_ns() // 10**6, new_id().int >> 80, time.time_ns() // 10**6
    assert before <= made <= after
