"""Health checks: is the process alive (`/livez`), may it get requests (`/readyz`), which version is it (`/version`).

Liveness checks nothing else, because a restart does not fix a database. Readiness checks required parts only:
otherwise one optional part that is down would take all instances out of the load balancer.
"""

import asyncio
import time
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response

from .room import Room
from .settings import RoomSettings
from .state import NotReady, Readiness, State, state_of

CHECK_SECONDS = 2.0  # for the check of one part
REUSE_SECONDS = 1.0  # results are reused: the probes of many load balancers cost the database one query


class ReadinessChecks:
    """The state of the required parts, checked at most once per `REUSE_SECONDS`."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.lock = asyncio.Lock()
        self.checked_at = float("-inf")
        self.results: dict[str, dict[str, Any]] = {}

    async def check(self) -> dict[str, dict[str, Any]]:
        """Check all parts concurrently, or return recent results."""
        async with self.lock:
            if time.monotonic() - self.checked_at > REUSE_SECONDS:
                checks = self.state.readiness
                results = await asyncio.gather(*(self._run(check) for check in checks.values()))
                self.results = dict(zip(checks, results, strict=True))
                self.checked_at = time.monotonic()
            return self.results

    async def _run(self, check: Readiness) -> dict[str, Any]:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                return {"ready": True, "evidence": await check(self.state)}
        except NotReady as reason:
            return {"ready": False, "evidence": str(reason)}
        except TimeoutError:
            return {"ready": False, "evidence": f"no response within {CHECK_SECONDS:g} s"}
        except Exception as error:  # a check that fails is not a proof that the part works
            structlog.get_logger("health").exception("readiness check failed")
            return {"ready": False, "evidence": f"the check failed ({type(error).__name__})"}


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Add the three routes; they are not part of the OpenAPI document."""
    state = state_of(app)
    parts = ReadinessChecks(state)

    @app.api_route("/livez", methods=["GET", "HEAD"], include_in_schema=False)
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @app.api_route("/readyz", methods=["GET", "HEAD"], include_in_schema=False)
    async def readyz(response: Response) -> dict[str, Any]:
        results = await parts.check()
        ready = all(result["ready"] for result in results.values())
        response.status_code = 200 if ready and not state.draining else 503
        response.headers["Cache-Control"] = "no-store"
        status = "draining" if state.draining else "ready" if ready else "not ready"
        return {"status": status, "parts": results}

    @app.get("/version", include_in_schema=False)
    async def version(request: Request) -> dict[str, str]:
        return {
            "name": app.title,
            "version": app.version,
            "commit": settings.git_commit,
            "environment": settings.environment,
        }


ROOM = Room(install=install, required=True)
