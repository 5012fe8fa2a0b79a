"""Redis is lost: the service serves throughout, and uses the empty one that takes its place."""

from pathlib import Path

import pytest

from tests.projects import Project
from tests.recovery.plan import Steps, provide, runs
from tests.sabotage import Body, Value
from tests.secrets.conftest import ITEMS, load, until
from tests.servers.redis import Redis
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
QUICK = Value("cache:PROBE_PAUSE_SECONDS", "0.1")


def serves_throughout(project: Project, redis: Redis, folder: Path) -> None:
    """Under load the server is killed, comes back empty and is emptied again."""
    env = {**migrated(project, f"sqlite:///{folder}/service.db"), "CACHE_URL": redis.url()}
    with project.serve(folder / "run", env) as service:
        item = service.client.post(ITEMS, json={"name": "kept"}).json()
        path = f"{ITEMS}/{item['id']}"

        def logs(line: str) -> bool:
            assert service.client.get(path).json() == item
            return line in service.log

        until(lambda: logs("") and bool(redis.names()))
        with load(service, 2) as seen:
            redis.put(b"before", b"the loss")
            assert b"before" in redis.names()
            redis.kill()
            until(lambda: logs("cache is unavailable"))
            redis.restart()
            assert b"before" not in redis.names()  # of the service, there may be new ones
            until(lambda: logs("cache is available again"))
            redis.flush()
            until(lambda: logs("") and bool(redis.names()))
        assert set(seen) == {200, 201}


@runs("Redis lost")
def test_the_service_serves_while_redis_is_killed_empty_and_emptied(
    project: Project, redis: Redis, steps: Steps, tmp_path: Path
) -> None:
    serves_throughout(steps.project.variant(tmp_path / "quick", QUICK), redis, tmp_path)
    provide(steps, "redis-cli", "redis-tools")
    shown = steps.run(CACHE_URL=redis.url())
    assert shown.splitlines()[0] == "PONG"
    assert "db0:keys=" in shown


@pytest.mark.sabotage
def test_a_cache_whose_errors_reach_the_caller_is_noticed(project: Project, redis: Redis, tmp_path: Path) -> None:
    fragile = Body("cache:Breaker.record", "if not succeeded: raise ConnectionError\noriginal(succeeded)")
    with pytest.raises(AssertionError):
        serves_throughout(project.variant(tmp_path / "fragile", QUICK, fragile), redis, tmp_path)
