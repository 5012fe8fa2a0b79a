"""`If-Match` on the example's writes: who has not seen what is there does not overwrite it, on each of the stores."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.projects import Service
from tests.proof import count
from tests.sabotage import Argument, Body
from tests.service.conftest import Start, service, start

__all__ = ["service", "start"]  # fixtures
pytestmark = pytest.mark.servers
WRITERS = 8


def made(client: httpx.Client) -> str:
    return f"/v1/items/{client.post('/v1/items', json={'name': 'first'}).json()['id']}"


def tag_of(client: httpx.Client, path: str) -> str:
    return client.get(path).headers["etag"]


def guarded(client: httpx.Client) -> None:
    """PUT takes the tag that GET gives, and no older one."""
    path = made(client)
    first = tag_of(client, path)

    def put(*fields: str) -> int:
        answer = client.put(path, json={"name": "changed"}, headers=[("If-Match", field) for field in fields])
        if answer.status_code == 412:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "precondition-failed"
        return answer.status_code

    assert put(first) == 200
    assert (put(first), put('"x"'), put(f"W/{tag_of(client, path)}"), put("garbage")) == (412, 412, 412, 412)
    assert put('"x"', tag_of(client, path)) == 200
    assert put(f'"x,y", {tag_of(client, path)}') == 200
    assert (put("*"), put()) == (200, 200)


def kept_alive(client: httpx.Client) -> None:
    """DELETE takes the tag that GET gives, and no older one."""
    path = made(client)
    old = tag_of(client, path)
    assert client.put(path, json={"name": "changed"}).status_code == 200
    assert client.delete(path, headers={"If-Match": old}).status_code == 412
    assert client.get(path).status_code == 200
    assert client.delete(path, headers={"If-Match": tag_of(client, path)}).status_code == 204
    for field in ("*", old):  # RFC 9110, 13.2.1: an answer that is none of 2xx comes without a look at it
        assert client.delete(path, headers={"If-Match": field}).status_code == 404


def conditional(client: httpx.Client) -> None:
    """An empty `If-Match` is no missing one, and `If-None-Match: *` protects what exists (RFC 9110, 13.1.1, 13.1.2)."""
    path = made(client)
    tag = tag_of(client, path)

    def put(*headers: tuple[str, str]) -> int:
        return client.put(path, json={"name": "changed"}, headers=[*headers]).status_code

    for field in ("", ",", ", ,", '"', "W/"):
        assert put(("If-Match", field)) == 412
        assert client.delete(path, headers={"If-Match": field}).status_code == 412
    assert put(("If-Match", ""), ("If-Match", '"x"')) == 412
    for field in ("*", tag, f"W/{tag}", f'"x", {tag}'):
        assert put(("If-None-Match", field)) == 412
        assert client.delete(path, headers={"If-None-Match": field}).status_code == 412
    assert (put(("If-None-Match", '"x"'), ("If-None-Match", tag)), put(("If-None-Match", "*"), ("If-Match", tag))) == (
        412,
        412,
    )
    assert tag_of(client, path) == tag  # none of them has written
    assert put(("If-Match", ""), ("If-Match", tag)) == 200
    assert (put(("If-None-Match", '"x"')), put(("If-None-Match", ""))) == (200, 200)
    gone = path[:-1] + ("0" if path[-1] != "0" else "1")
    for header in ({"If-Match": ""}, {"If-None-Match": "*"}):
        assert client.put(gone, json={"name": "x"}, headers=header).status_code == 404


def race(client: httpx.Client, rounds: int) -> set[int]:
    """How many of those who saw the same copy overwrote it, over all rounds."""
    won = set()
    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in range(rounds):
            path = made(client)
            tag = tag_of(client, path)

            def put(name: int, path: str = path, tag: str = tag) -> int:
                return client.put(path, json={"name": str(name)}, headers={"If-Match": tag}).status_code

            statuses = list(pool.map(put, range(WRITERS)))
            assert set(statuses) <= {200, 412, 503}  # SQLite sends a second writer away
            won.add(statuses.count(200))
    return won


@pytest.mark.parametrize("proof", [conditional, guarded, kept_alive], ids=["conditional", "put", "delete"])
def test_who_has_an_old_copy_does_not_overwrite(service: Service, proof: Callable[[httpx.Client], None]) -> None:
    proof(service.client)


def test_of_many_who_saw_the_same_copy_exactly_one_writes(service: Service) -> None:
    assert race(service.client, count(10, 100)) == {1}


@pytest.mark.sabotage
def test_without_the_lock_more_than_one_writes(start: Start) -> None:
    unlocked = Argument("features.items.store:ItemStore.get_for_update", "with_for_update", "False")
    with start("postgresql", unlocked) as running:
        assert race(running.client, 10) != {1}


@pytest.mark.sabotage
def test_without_require_match_an_old_copy_overwrites(start: Start) -> None:
    unmatched = Body("http_cache:require_match", "return")
    with start("memory", unmatched) as running:
        for proof in (conditional, guarded, kept_alive):
            with pytest.raises(AssertionError):
                proof(running.client)


@pytest.mark.sabotage
def test_an_empty_if_match_that_counts_as_none_is_noticed(start: Start) -> None:
    careless = Body("http_cache:Preconditions.__bool__", "return bool(self.if_match or self.if_none_match)")
    with start("memory", careless) as running:
        guarded(running.client)
        with pytest.raises(AssertionError):
            conditional(running.client)
