"""How often the source is asked, and what comes of a source that fails or of a client that goes away."""

import json
import socket
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.caching.conftest import Lab, lab, new, turns_red
from tests.projects import Project
from tests.proof import count
from tests.sabotage import Body, Sabotage
from tests.servers.redis import Redis

pytestmark = pytest.mark.servers
RUSH = 300


@pytest.fixture
def one(pair: list[Lab]) -> Lab:
    """One of the instances."""
    return pair[0]


def rush(made: Lab, key: str) -> Counter[int]:
    """Ask for one cold key 300 times at once: how often which status came."""
    return made.rush([f"/lab/get/plain/{key}"] * RUSH)


def loads_once(made: Lab) -> None:
    made.source(ms=100)
    assert rush(made, "rush") == {200: RUSH}
    made.source(ms=0)
    assert made.calls("rush") == 1


def test_a_cold_rush_for_one_key_asks_the_source_once(running: Lab) -> None:
    loads_once(running)


def loads(pair: list[Lab], policy: str) -> int:
    """How often two instances ask the source in a rush."""
    for made in pair:
        made.source(ms=300)
    # So few that a process on a machine that is full still hears of its lock in time: without one it may ask, too.
    each = count(20, RUSH // 2)
    paths = [f"/lab/get/{policy}/{(key := new(policy))}"] * each
    assert pair[0].rush(paths, *(made.service.port for made in pair)) == {200: 2 * each}
    for made in pair:
        made.source(ms=0)
    return sum(made.calls(key) for made in pair)


def loads_once_with_a_lock(pair: list[Lab]) -> None:
    assert loads(pair, "dear") == 1


def test_two_processes_ask_at_most_twice_and_with_a_lock_once(pair: list[Lab]) -> None:
    assert 1 <= loads(pair, "plain") <= 2
    loads_once_with_a_lock(pair)


def test_where_no_lock_can_be_had_all_ask(pair: list[Lab]) -> None:
    server = pair[0].server
    assert server
    server.pause()
    assert pair[0].get("unlocked", "dear") == pair[1].get("unlocked", "dear")
    server.resume()
    assert [made.calls("unlocked") for made in pair] == [1, 1]
    for made in pair:
        made.wait(lambda made=made: made.hits("locked"))  # type: ignore[misc]


def test_one_who_goes_away_takes_nothing_from_the_others(one: Lab) -> None:
    """The first one to ask goes away while it waits; another one waits on."""
    one.source(ms=600)
    with socket.create_connection(("127.0.0.1", one.service.port)) as first:
        first.sendall(b"GET /lab/get/plain/left HTTP/1.1\r\nHost: localhost\r\n\r\n")
        one.wait(lambda: one.calls("left") == 1)
    assert one.get("left")["key"] == "left"
    one.source(ms=0)
    assert one.calls("left") == 1


def test_a_source_that_fails_tells_all_who_wait_and_is_asked_again(one: Lab) -> None:
    one.source(ms=100, fails="away")
    assert rush(one, "failing") == {503: RUSH}
    assert one.calls("failing") == 1
    one.source(ms=0, fails="")
    assert one.get("failing")["version"] == 1


def stands_in(made: Lab) -> None:
    """An old value, while the source is away; but not where it says that there is none."""
    made.source(version=1)
    made.get("old", "brief")
    time.sleep(0.4)  # no longer fresh
    made.source(fails="broken", version=2)
    assert made.get("old", "brief")["version"] == 1
    assert made.calls("old") == 2
    made.source(fails="gone")
    assert made.service.client.get("/lab/get/brief/old").status_code == 404
    made.source(fails="broken")
    made.forget()
    assert made.service.client.get("/lab/get/brief/old").status_code == 500  # known to be wrong
    made.source(fails="", version=1)


def test_an_old_value_stands_in_for_a_source_that_fails(one: Lab) -> None:
    stands_in(one)


def test_freshness_is_spread(one: Lab) -> None:
    """A tenth more or less than said, so that what was kept together does not end together."""
    assert isinstance(one.server, Redis)
    one.server.flush()
    begun = time.time()
    for number in range(30):
        one.get(f"spread-{number}")
    entries = [one.server.value(key) for key in one.server.names() if b":plain:" in key]
    left = [json.loads(entry.partition(b"\n")[0])[0] - begun for entry in entries]
    assert len(left) == 30
    assert 54 <= min(left) < 58 < 62 < max(left) < 68


# Each asks for itself; no old value is given; any error is one of a source that is away.
ALONE = "return await self._load(policy, self.entries.name(policy, policy.key(key, principal)), load, [*tags])"
FRESH = """
    found = original(policy, entry, tokens)
    return found if found.result == "hit" else Lookup("miss", tokens)
"""
AWAY = """
    async def careless():
        try:
            return await load()
        except Exception as error:
            raise ConnectionError from error

    return await original(policy, name, careless, tags)
"""


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotage", "proof"),
    [
        (Body("cache:ReadThrough.get_or_load", ALONE), loads_once),
        (Body("cache:Entries.read", FRESH), stands_in),
        (Body("cache:ReadThrough._load", AWAY), stands_in),
    ],
    ids=["each asks", "no old value", "an old value for a 404"],
)
def test_a_sabotaged_cache_fails_the_proof(
    on_redis: Project, tmp_path: Path, redis: Redis, sabotage: Sabotage, proof: Callable[[Lab], None]
) -> None:
    with lab(on_redis, tmp_path, redis, sabotage) as made:
        turns_red(partial(proof, made), made)


@pytest.mark.sabotage
def test_a_lock_that_nobody_takes_lets_both_ask(on_redis: Project, tmp_path: Path, pair: list[Lab]) -> None:
    free = Body("cache:ReadThrough._lock", "return False, await self._look_up(policy, name, tags)")
    with lab(on_redis, tmp_path, pair[0].server, free) as made:
        turns_red(lambda: loads_once_with_a_lock([made, pair[1]]), made)
        pair[1].source(ms=0)
