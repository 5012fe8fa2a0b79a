"""How often the source is asked, and what comes of a source that fails or of a client that goes away."""

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.caching.conftest import CACHE, Lab, lab
from tests.projects import Edit, Project
from tests.servers.redis import Redis

pytestmark = pytest.mark.servers
RUSH = 300
THROUGH = f"{CACHE}/readthrough.py"


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    """A server for the labs of one test."""
    with Redis() as server:
        yield server


def rush(made: Lab, key: str, policy: str = "plain") -> Counter[int]:
    """Ask for one cold key 300 times at once: how often which status came."""
    return made.rush([f"/lab/get/{policy}/{key}"] * RUSH)


def loads_once(made: Lab, key: str) -> None:
    made.source(ms=100)
    assert rush(made, key) == {200: RUSH}
    made.source(ms=0)
    assert made.calls(key) == 1


def test_a_cold_rush_for_one_key_asks_the_source_once(running: Lab) -> None:
    loads_once(running, "rush")
    assert running.lines("cache is away") == 0


def test_a_slot_that_is_taken_too_late_is_noticed(projects: dict[str, Project], tmp_path: Path, redis: Redis) -> None:
    line = "            all_tags = {EVERYTHING, *tags}\n"
    # So late that others of the rush have come, also on a machine that is slow to send them.
    late = Edit(THROUGH, line, line + "            await asyncio.sleep(0.05)\n")
    with lab(projects["redis"], tmp_path, redis, late) as made, pytest.raises(AssertionError):
        loads_once(made, "rush")


def test_two_processes_ask_at_most_twice_and_with_a_lock_once(
    projects: dict[str, Project], tmp_path: Path, redis: Redis
) -> None:
    with lab(projects["redis"], tmp_path / "a", redis) as one, lab(projects["redis"], tmp_path / "b", redis) as two:
        for made in (one, two):
            made.wait(lambda made=made: made.hits("warm"))  # type: ignore[misc]
            made.source(ms=300)
        ports = [made.service.port for made in (one, two)]
        for policy, most in (("plain", 2), ("dear", 1)):
            assert one.rush([f"/lab/get/{policy}/{policy}"] * (RUSH // 2), *ports) == {200: RUSH}
            assert 1 <= one.calls(policy) + two.calls(policy) <= most
        redis.pause()  # no lock can be had: both ask, and nobody waits for it
        begun = time.monotonic()
        assert one.get("unlocked", "dear") == two.get("unlocked", "dear")
        redis.resume()
        assert time.monotonic() - begun < 3


def test_a_lock_that_nobody_takes_is_noticed(projects: dict[str, Project], tmp_path: Path, redis: Redis) -> None:
    free = Edit(THROUGH, 'policy.lock and seen.result == "miss"', "False")
    with pytest.raises(AssertionError):
        variant = {"redis": projects["redis"].variant(tmp_path / "sick", free)}
        test_two_processes_ask_at_most_twice_and_with_a_lock_once(variant, tmp_path, redis)


def outlives_a_client(made: Lab, key: str) -> None:
    """The first one to ask goes away while it waits; another one waits on."""
    made.source(ms=600)
    with socket.create_connection(("127.0.0.1", made.service.port)) as first:
        first.sendall(f"GET /lab/get/plain/{key} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        time.sleep(0.2)
    assert made.get(key)["key"] == key
    made.source(ms=0)
    assert made.calls(key) == 1


def test_one_who_goes_away_takes_nothing_from_the_others(running: Lab) -> None:
    outlives_a_client(running, "left")


def test_a_source_that_fails_tells_all_who_wait_and_is_asked_again(running: Lab) -> None:
    running.source(ms=100, fails="away")
    assert rush(running, "failing") == {503: RUSH}
    assert running.calls("failing") == 1
    running.source(ms=0, fails="")
    assert running.get("failing")["version"] == 1


def stands_in(made: Lab, key: str) -> None:
    """An old value, while the source is away; but not where it says that there is none."""
    made.source(version=1)
    made.get(key, "brief")
    time.sleep(0.4)  # no longer fresh
    made.source(fails="broken", version=2)
    assert made.get(key, "brief")["version"] == 1
    assert made.calls(key) == 2
    made.source(fails="gone")
    assert made.service.client.get(f"/lab/get/brief/{key}").status_code == 404
    made.source(fails="broken")
    made.forget()
    assert made.service.client.get(f"/lab/get/brief/{key}").status_code == 500  # known to be wrong
    made.source(fails="", version=1)


def test_an_old_value_stands_in_for_a_source_that_fails(running: Lab) -> None:
    stands_in(running, "old")


@pytest.mark.parametrize(
    "edit",
    [
        Edit(THROUGH, "if seen.value is None or (", "if True or ("),
        Edit(THROUGH, "error.status < 500", "False"),
        Edit(f"{CACHE}/entries.py", "if then == tokens:", "if True:"),
    ],
    ids=["never", "for a 404", "after its invalidation"],
)
def test_an_old_value_at_the_wrong_time_is_noticed(
    projects: dict[str, Project], tmp_path: Path, redis: Redis, edit: Edit
) -> None:
    with lab(projects["redis"], tmp_path, redis, edit) as made:
        made.wait(lambda: made.hits("warm"))
        with pytest.raises(AssertionError):
            stands_in(made, "old")


def test_freshness_is_spread(projects: dict[str, Project], tmp_path: Path, redis: Redis) -> None:
    """A tenth more or less than said, so that what was kept together does not end together."""
    with lab(projects["redis"], tmp_path, redis) as made:
        made.wait(lambda: made.hits("warm"))
        redis.flush()
        begun = time.time()
        for number in range(30):
            made.get(f"spread-{number}")
        entries = [redis.client().get(key) for key in redis.names() if b":plain:" in key]
        left = [json.loads(entry.partition(b"\n")[0])[0] - begun for entry in entries]
    assert len(left) == 30
    assert 54 <= min(left) < 58 < 62 < max(left) < 68
