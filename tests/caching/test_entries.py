"""What is kept: nobody else's, nothing old, nothing that is not ours; and no secret in what is told of it."""

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from tests.caching.conftest import CACHE, Lab, lab, with_laboratory
from tests.projects import Edit, Project
from tests.servers.memcached import Memcached
from tests.servers.otlp import Collector, Span
from tests.servers.redis import Redis

pytestmark = pytest.mark.servers
FEATURE = "src/my_service/features/lab/routes.py"


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    """A server for the labs of one test."""
    with Redis() as server:
        yield server


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


def test_garbage_counts_as_absent(running: Lab) -> None:
    assert running.server
    for number, garbage in enumerate(GARBAGE):
        running.server.flush()
        running.get(f"garbage-{number}")
        (key,) = entries(running, "plain")
        running.server.put(key, garbage)
        assert running.get(f"garbage-{number}")["version"] == 1
        assert running.get(f"garbage-{number}")["version"] == 1
        assert running.calls(f"garbage-{number}") == 2  # and it was replaced
    assert running.lines("Traceback") == 0


def test_garbage_that_stays_is_noticed(projects: dict[str, Project], tmp_path: Path, redis: Redis) -> None:
    edit = Edit(f"{CACHE}/entries.py", "suppress(TypeError, ValueError)", "suppress(TypeError)")
    with lab(projects["redis"], tmp_path, redis, edit) as made, pytest.raises(ValueError, match="not enough values"):
        test_garbage_counts_as_absent(made)  # not even a new value is kept


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


def test_a_token_that_comes_again_is_noticed(projects: dict[str, Project], tmp_path: Path, redis: Redis) -> None:
    edit = Edit(f"{CACHE}/entries.py", "return secrets.token_hex(8).encode()", 'return b"1"')
    with lab(projects["redis"], tmp_path, redis, edit) as made:
        made.wait(lambda: made.hits("warm"))
        with pytest.raises(AssertionError):
            outlives_its_token(made)


def test_an_older_shape_is_never_read_and_hears_of_invalidations(
    projects: dict[str, Project], tmp_path: Path, redis: Redis
) -> None:
    """As in a release, where both versions run side by side."""
    newer = Edit(FEATURE, "    version: int\n", "    version: int\n    colour: str = 'red'\n")
    with (
        lab(projects["redis"], tmp_path / "old", redis) as old,
        lab(projects["redis"], tmp_path / "new", redis, newer) as new,
    ):
        for made in (old, new):
            made.wait(lambda made=made: made.hits("warm"))  # type: ignore[misc]
            made.source(version=1)
        assert "colour" not in old.get("shape")
        assert new.get("shape")["colour"] == "red"
        assert "colour" not in old.get("shape")
        assert old.calls("shape") == new.calls("shape") == 1
        new.source(version=2)
        old.forget()
        assert new.get("shape")["version"] == 2


def keeps_apart(made: Lab) -> None:
    for who in ("ann", "bob"):
        assert made.get("account", "mine", principal=who)["owner"] == who
        assert made.get("account", "mine", principal=who)["owner"] == who
    assert made.calls("account") == 2


def test_two_users_never_see_each_others_value(running: Lab) -> None:
    keeps_apart(running)


def test_a_private_value_without_its_principal_is_an_error(running: Lab) -> None:
    assert running.service.client.get("/lab/get/mine/account").status_code == 500
    running.wait(lambda: "values of 'mine' are private: say whose" in running.service.log)


def test_a_key_without_the_principal_is_noticed(projects: dict[str, Project], tmp_path: Path, redis: Redis) -> None:
    edit = Edit("src/my_service/platform/state.py", "orjson.dumps([key, principal])", "orjson.dumps([key])")
    with lab(projects["redis"], tmp_path, redis, edit) as made:
        made.wait(lambda: made.hits("warm"))
        with pytest.raises(AssertionError):
            keeps_apart(made)


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


HOLD = """
import asyncio
from my_service.platform.cache import readthrough
from my_service.platform.cache.memory import Server

async def main():
    cache = readthrough.ReadThrough("test", Server("memory://"))
    cache.breaker.trip()  # away: what is invalidated is held until it is back
    for number in range(readthrough.MOST):
        await cache.invalidate(f"tag-{number}")
    await cache.invalidate()
    print(len(cache.held), readthrough.EVERYTHING in cache.held)
    await cache.invalidate("one too many")
    print(readthrough.EVERYTHING in cache.held)

asyncio.run(main())
"""


def test_an_invalidation_without_tags_forgets_nothing(project: Project) -> None:
    done = project.run(str(project.venv / "bin/python"), "-c", HOLD)
    assert done.stdout == "1000 False\nTrue\n"


def test_an_invalidation_that_does_nothing_is_noticed(
    projects: dict[str, Project], tmp_path: Path, redis: Redis
) -> None:
    edit = Edit(f"{CACHE}/readthrough.py", "        self.held |= held", "        return\n        self.held |= held")
    with lab(projects["redis"], tmp_path, redis, edit) as made:
        made.wait(lambda: made.hits("warm"))
        with pytest.raises(AssertionError):
            forgets(made)


def slow_load(made: Lab, other: Lab) -> None:
    """A load begins before a write and ends after it, in another process: the old value must not come back."""
    for each in (made, other):
        each.source(version=1, ms=1500)
    thread = threading.Thread(target=made.get, args=("late",))
    thread.start()
    made.wait(lambda: made.calls("late") == 1)
    for each in (made, other):
        each.source(version=2, ms=0)
    other.forget()
    thread.join()
    assert made.get("late")["version"] == other.get("late")["version"] == 2


@pytest.mark.parametrize("sick", [False, True], ids=["", "tokens of after the load"])
def test_a_slow_load_brings_no_old_value_back(
    projects: dict[str, Project], tmp_path: Path, redis: Redis, sick: bool
) -> None:
    line = "            if value is not None and seen.tokens:\n"
    edits = [Edit(f"{CACHE}/readthrough.py", line, "            seen = await self._look(policy, name, tags)\n" + line)]
    with (
        lab(projects["redis"], tmp_path / "a", redis, *(edits if sick else [])) as one,
        lab(projects["redis"], tmp_path / "b", redis) as two,
        pytest.raises(AssertionError) if sick else nullcontext(),
    ):
        for made in (one, two):
            made.wait(lambda made=made: made.hits("warm"))  # type: ignore[misc]
        slow_load(one, two)


@contextmanager
def watched(project: Project, folder: Path, server: Redis | Memcached, collector: Collector) -> Iterator[Lab]:
    """With telemetry, all of it sampled unless the caller says otherwise."""
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }
    with lab(project, folder, server, env=env) as made:
        made.wait(lambda: made.hits("warm"))
        yield made


def ask(made: Lab, collector: Collector, path: str, sampled: bool = True) -> list[Span]:
    """The spans of the cache that one request has made."""
    trace = secrets.token_hex(16)
    header = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-{sampled:02x}"}
    assert made.service.client.get(path, headers=header).status_code == 200
    if sampled:
        collector.wait_until(lambda: any(span.trace_id == trace for span in collector.server_spans()))
    time.sleep(0.4)
    return [span for span in collector.client_spans() if span.trace_id == trace]


@pytest.mark.parametrize("kind", [Redis, Memcached])
def test_each_call_is_one_client_span_and_each_value_counts_once(
    projects: dict[str, Project], tmp_path: Path, collector: Collector, kind: type[Redis | Memcached]
) -> None:
    with kind() as server, watched(projects[kind.scheme], tmp_path, server, collector) as made:
        collector.wait_until(lambda: count(collector).get("hit", 0) > 0)
        time.sleep(0.5)
        before = count(collector)
        miss = ask(made, collector, "/lab/get/plain/s3cr3t")
        assert [span.name for span in miss] == ["cache get plain", "cache set plain"]
        (hit,) = ask(made, collector, "/lab/get/plain/s3cr3t")
        assert hit.attributes["cache.result"] == "hit"
        assert hit.attributes["db.system.name"] == kind.scheme
        assert hit.parent_id in {span.span_id for span in collector.server_spans()}
        assert not any("s3cr3t" in str(span.attributes.values()) for span in (*miss, hit))
        assert ask(made, collector, "/lab/get/plain/s3cr3t", sampled=False) == []
        wanted = {**before, "hit": before["hit"] + 2, "miss": before["miss"] + 1}
        collector.wait_until(lambda: count(collector) == wanted)
        assert [point.value for point in collector.named("cache.breaker.open")] == [0]
        server.pause()
        (failed,) = ask(made, collector, "/lab/get/plain/other")
        assert failed.error
        for number in range(20):
            made.get(f"away-{number}")
        collector.wait_until(lambda: [p.value for p in collector.named("cache.breaker.open")] == [1])
        server.resume()
        collector.wait_until(lambda: [p.value for p in collector.named("cache.breaker.open")] == [0])


def count(collector: Collector) -> dict[str, int]:
    """How often values of the policy `plain` were asked for, by result."""
    found = {}
    for point in collector.named("cache.requests"):
        assert point.attributes.keys() == {"cache.policy", "cache.result"}
        found[str(point.attributes["cache.result"])] = int(point.value)
    return found


def test_the_memory_of_a_developer_works_without_a_server(project: Project, tmp_path: Path) -> None:
    made_of = with_laboratory(project.variant(tmp_path / "service"))
    with lab(made_of, tmp_path) as made:
        made.wait(lambda: made.hits("warm"))
        forgets(made)
        keeps_apart(made)
    for url in ("null://", "off"):
        with lab(made_of, tmp_path / url.strip(":/"), env={"CACHE_URL": url}) as made:
            assert not made.hits("never")
            assert made.service.client.get("/lab/get/mine/account").status_code == 500
