"""What is kept: nobody else's, nothing old, and nothing that is not ours."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.caching.conftest import Lab, lab, new, turns_red
from tests.projects import Project
from tests.sabotage import Body, Sabotage
from tests.servers.redis import Redis

pytestmark = pytest.mark.servers


def entries(made: Lab, policy: str) -> list[bytes]:
    """The keys of the values of a policy."""
    assert made.server
    return [key for key in made.server.names() if f":{policy}:".encode() in key]


GARBAGE = [
    b"",
    b"\n",
    b"\x80\x05\x8c\x02os\x94.",
    b"[1e300]\n{}",
    b"[null]\n{",
    b"{}\n{}",
    b"[" * 10_000,
    b"\xff\xfe\n\xff",
    b'[9999999999,"x"]\n{"key":"a","version":666}',
]


def takes_garbage(made: Lab) -> None:
    assert made.server
    before = made.lines("Traceback")
    for garbage in GARBAGE:
        made.server.flush()
        made.get(key := new("garbage"))
        (entry,) = entries(made, "plain")
        made.server.put(entry, garbage)
        assert made.get(key)["version"] == 1
        assert made.get(key)["version"] == 1
        assert made.calls(key) == 2  # and it was replaced
    assert made.lines("Traceback") == before


def test_garbage_counts_as_absent(running: Lab) -> None:
    takes_garbage(running)


def outlives_its_token(made: Lab) -> None:
    """As under pressure: a counter would begin anew, and the value of long ago would count again."""
    assert made.server
    made.server.flush()
    made.get("evicted")
    (key,) = entries(made, "plain")
    old = made.server.value(key)
    made.forget()
    for token in [each for each in made.server.names() if b":tag:" in each]:
        made.server.remove(token)
    made.server.put(key, old)
    made.get("evicted")
    assert made.calls("evicted") == 2


def test_a_token_that_is_thrown_out_costs_a_load_and_no_more(running: Lab) -> None:
    outlives_its_token(running)


def test_an_older_shape_is_never_read_and_hears_of_invalidations(pair: list[Lab]) -> None:
    """As in a release, where both versions run side by side."""
    old, other = pair
    newer = partial(other.get, policy="newer")
    for made in pair:
        made.source(version=1)
    assert "colour" not in old.get("shape")
    assert newer("shape")["colour"] == "red"
    assert "colour" not in old.get("shape")
    assert old.calls("shape") == other.calls("shape") == 1
    other.source(version=2)
    old.forget()
    assert newer("shape")["version"] == 2
    other.source(version=1)


def keeps_apart(made: Lab) -> None:
    for who in ("ann", "bob"):
        assert made.get("account", "mine", principal=who)["owner"] == who
        assert made.get("account", "mine", principal=who)["owner"] == who
    assert made.calls("account") == 2


def test_two_users_never_see_each_others_value(running: Lab) -> None:
    keeps_apart(running)


def test_a_private_value_without_its_principal_is_an_error(pair: list[Lab]) -> None:
    assert pair[0].service.client.get("/lab/get/mine/account").status_code == 500
    pair[0].wait(lambda: "values of 'mine' are private: principal is required" in pair[0].service.log)


def forgets(made: Lab) -> None:
    """A value that changed, and one with another tag that did not."""
    made.source(version=1)
    for tag in ("one", "other"):
        assert made.get(tag, tag=tag)["version"] == 1
    made.source(version=2)
    made.forget("one")
    assert made.get("one", tag="one")["version"] == 2
    assert made.get("other", tag="other")["version"] == 1
    made.source(version=1)


def test_an_invalidation_forgets_what_has_the_tag(running: Lab) -> None:
    forgets(running)


def survives_a_slow_load(made: Lab, other: Lab) -> None:
    """A load begins before a write and ends after it, in another process: the old value must not come back."""
    key = new("late")
    for each in (made, other):
        each.source(version=1, ms=800)
    thread = threading.Thread(target=made.get, args=(key,))
    thread.start()
    made.wait(lambda: made.calls(key) == 1)
    for each in (made, other):
        each.source(version=2, ms=0)
    other.forget()
    thread.join()
    assert made.get(key)["version"] == other.get(key)["version"] == 2
    for each in (made, other):
        each.source(version=1)


def test_a_slow_load_brings_no_old_value_back(pair: list[Lab]) -> None:
    survives_a_slow_load(*pair)


def test_the_memory_of_a_developer_works_without_a_server(on_redis: Project, tmp_path: Path) -> None:
    with lab(on_redis, tmp_path) as made:
        made.wait(lambda: made.hits("warm"))
        forgets(made)
        keeps_apart(made)


@pytest.mark.parametrize("url", ["null://", "off"])
def test_without_a_cache_every_value_comes_from_its_source(on_redis: Project, tmp_path: Path, url: str) -> None:
    with lab(on_redis, tmp_path, env={"CACHE_URL": url}) as made:
        assert not made.hits("never")
        assert made.service.client.get("/lab/get/mine/account").status_code == 500


RAISES = """
    if entry:
        orjson.loads(entry.partition(b"\\n")[0])
    return original(policy, entry, tokens)
"""


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("sabotage", "proof"),
    [
        (Body("cache:Entries.read", RAISES), takes_garbage),
        (Body("cache:new_token", 'return b"1"'), outlives_its_token),
        (Body("state:CachePolicy.key", 'return original(key, "everybody")'), keeps_apart),
        (Body("cache:ReadThrough.invalidate", "return"), forgets),
    ],
    ids=["garbage", "a token that comes again", "a key without the principal", "no invalidation"],
)
def test_a_sabotaged_cache_fails_the_proof(
    on_redis: Project, tmp_path: Path, redis: Redis, sabotage: Sabotage, proof: Callable[[Lab], None]
) -> None:
    with lab(on_redis, tmp_path, redis, sabotage) as made:
        turns_red(partial(proof, made), made)


TOO_LATE = """
    seen = await self._look_up(policy, name, tags)
    if seen.result == "hit":
        return seen.value
    value = await load()
    seen = await self._look_up(policy, name, tags)
    await self.backend.set({name: self.entries.write(policy, value, seen.tokens)}, 60)
    return value
"""


@pytest.mark.sabotage
def test_tokens_of_after_the_load_bring_an_old_value_back(on_redis: Project, tmp_path: Path, pair: list[Lab]) -> None:
    with lab(on_redis, tmp_path, pair[0].server, Body("cache:ReadThrough._load", TOO_LATE)) as made:
        turns_red(partial(survives_a_slow_load, made, pair[1]), made)
        pair[1].source(version=1, ms=0)
