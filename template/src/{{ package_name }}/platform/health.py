"""Whether the process lives (`/livez`), may get requests (`/readyz`), and what it is (`/version`).

Liveness looks at nothing: a restart does not mend a database. Readiness looks at required parts only, or one optional
part that is away would take the whole fleet out of the balancer.
"""

import asyncio
import time
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response

from .room import Room
from .settings import RoomSettings
from .state import NotReady, Readiness, State, state_of

DEADLINE = 2.0  # seconds for one part to answer
FRESH = 1.0  # seconds for which an answer is shared: probes of many balancers cost the database one


class Parts:
    """The state of the required parts, looked at most once per `FRESH`."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.lock = asyncio.Lock()
        self.seen = float("-inf")
        self.found: dict[str, dict[str, Any]] = {}

    async def check(self) -> dict[str, dict[str, Any]]:
        """Ask every part, concurrently."""
        async with self.lock:
            if time.monotonic() - self.seen > FRESH:
                checks = self.state.readiness
                answers = await asyncio.gather(*(self._ask(check) for check in checks.values()))
                self.found = dict(zip(checks, answers, strict=True))
                self.seen = time.monotonic()
            return self.found

    async def _ask(self, check: Readiness) -> dict[str, Any]:
        try:
            async with asyncio.timeout(DEADLINE):
                return {"ready": True, "evidence": await check(self.state)}
        except NotReady as reason:
            return {"ready": False, "evidence": str(reason)}
        except TimeoutError:
            return {"ready": False, "evidence": f"no answer within {DEADLINE:g} s"}
        except Exception as error:  # a check that breaks is not a part that works
            structlog.get_logger("health").exception("check failed")
            return {"ready": False, "evidence": f"the check failed ({type(error).__name__})"}


def install(app: FastAPI, settings: RoomSettings) -> None:
    """Add the three routes; they stay out of the API's description."""
    state = state_of(app)
    parts = Parts(state)

    @app.api_route("/livez", methods=["GET", "HEAD"], include_in_schema=False)
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @app.api_route("/readyz", methods=["GET", "HEAD"], include_in_schema=False)
    async def readyz(response: Response) -> dict[str, Any]:
        found = await parts.check()
        ready = all(answer["ready"] for answer in found.values())
        response.status_code = 200 if ready and not state.draining else 503
        response.headers["Cache-Control"] = "no-store"
        status = "draining" if state.draining else "ready" if ready else "not ready"
        return {"status": status, "parts": found}

    @app.get("/version", include_in_schema=False)
    async def version(request: Request) -> dict[str, str]:
        return {
            "name": app.title,
            "version": app.version,
            "commit": settings.git_commit,
            "environment": settings.environment,
        }


ROOM = Room(install=install, required=True)
