"""Two users behind a cache that they share, the real NGINX: what is one's own never reaches the other."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.http_cache.test_answers import STRONG
from tests.projects import Project, Service
from tests.sabotage import Value
from tests.servers.nginx import Nginx, shared_cache

pytestmark = pytest.mark.servers
USERS = [
    {"Authorization": "Bearer alice"},
    {"Authorization": "Bearer bob"},
    {"Cookie": "session=alice"},
    {"Cookie": "session=bob"},
    {},
]
# The routes that answer with who asks, and the one that sets a cookie.
PERSONAL = ("private", "shared", "silent")


def get(nginx: Nginx, path: str, headers: dict[str, str]) -> httpx.Response:
    return httpx.get(f"{nginx.url}/kept/{path}", headers=headers, trust_env=False)


def leaks(nginx: Nginx) -> set[str]:
    """The routes that gave somebody what was another's, or a copy where nobody may keep one."""
    found = set()
    for path in PERSONAL:
        for user in USERS:
            for _ in range(2):
                answer = get(nginx, path, user)
                assert answer.status_code == 200
                kept = answer.headers["x-cache"] == "HIT"
                if answer.json() != "".join(user.values()) or (kept and user):
                    found.add(path)
    for name in ("alice", "bob"):
        answer = get(nginx, "cookie", {"X-Name": name})
        if name not in answer.text or f"session={name}" not in answer.headers["set-cookie"]:
            found.add("cookie")
    return found


@pytest.fixture(scope="module")
def nginx(kept: Service) -> Iterator[Nginx]:
    with Nginx(shared_cache(kept.port)) as server:
        yield server


def test_what_may_be_shared_is_kept_and_what_may_not_never_reaches_another(nginx: Nginx) -> None:
    first, second = (get(nginx, "rich", {"Accept-Language": "en"}) for _ in range(2))
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("MISS", "HIT")
    assert second.content == first.content == b"hello"
    assert STRONG.fullmatch(second.headers["etag"])
    assert get(nginx, "rich", {"Accept-Language": "de"}).headers["x-cache"] == "MISS"  # Vary
    assert leaks(nginx) == set()


def test_the_cache_answers_who_has_a_right_copy(nginx: Nginx) -> None:
    tag = get(nginx, "rich", {"Accept-Language": "fr"}).headers["etag"]
    again = get(nginx, "rich", {"Accept-Language": "fr", "If-None-Match": f'"x", W/{tag}'})
    assert (again.status_code, again.content, again.headers["x-cache"]) == (304, b"", "HIT")
    assert "content-length" not in again.headers


GZIP = """
server {
    listen ADDRESS;
    gzip on;
    gzip_min_length 1;
    gzip_types application/json;
    location / { proxy_pass http://127.0.0.1:PORT; }
}
"""


def test_a_balancer_that_compresses_makes_the_tag_weak_which_is_enough_for_304(kept: Service) -> None:
    """And not for `If-Match`, as docs/caching.md says."""
    path = f"/v1/items/{kept.client.post('/v1/items', json={'name': 'zipped'}).json()['id']}"
    with Nginx(GZIP.replace("PORT", str(kept.port))) as nginx:
        first = httpx.get(nginx.url + path, trust_env=False)
        assert first.headers["content-encoding"] == "gzip"
        assert first.headers["etag"] == f"W/{kept.client.get(path).headers['etag']}"
        again = httpx.get(nginx.url + path, headers={"If-None-Match": first.headers["etag"]}, trust_env=False)
        assert (again.status_code, again.content) == (304, b"")
        written = httpx.put(
            nginx.url + path, json={"name": "x"}, headers={"If-Match": first.headers["etag"]}, trust_env=False
        )
        assert written.status_code == 412


@pytest.mark.sabotage
def test_exactly_the_routes_leak_that_are_not_forbidden_to_keep(keeper: Project, tmp_path: Path) -> None:
    careless = Value("http_cache:NO_STORE", '(b"cache-control", b"max-age=60")')
    with (
        keeper.variant(tmp_path / "sick", careless).serve(tmp_path / "run") as service,
        Nginx(shared_cache(service.port)) as nginx,
    ):
        assert leaks(nginx) == {"cookie", "shared", "silent"}
