"""Ids: what is recorded later has the greater one."""

import time

from segundo.record import new_id


def test_an_id_that_is_made_a_microsecond_later_is_greater() -> None:
    ids = []
    for _ in range(1000):
        ids.append(new_id())
        made = time.time_ns() // 1_000
        while time.time_ns() // 1_000 == made:
            pass
    assert ids == sorted(ids)
    assert {len(id) for id in ids} == {36}
