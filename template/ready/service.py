"""Asks the service who it is, before anything else: whether there is one, whose it is, and how it is to be judged."""

import asyncio
import json
from typing import Any

import httpx2

from .config import ConfigurationError
from .report import plain

SECONDS = 10.0  # until `/version` has responded
MAX_BYTES = 65_536  # of its response


async def about(client: httpx2.AsyncClient, url: str) -> dict[str, str]:
    """The response of `/version`.

    Raises:
        ConfigurationError: There is none, or it is not one of this template's services; says what to do.
    """
    try:
        async with asyncio.timeout(SECONDS), client.stream("GET", "/version") as response:
            body = b""
            async for part in response.aiter_bytes():
                body += part
                if len(body) > MAX_BYTES:
                    break
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
        raise ConfigurationError(f"{url} is not a URL; use one like http://127.0.0.1:8000") from None
    except (TimeoutError, httpx2.TimeoutException):
        raise ConfigurationError(
            f"{url} does not respond within {SECONDS:g} s; see the log of the service, or set --url"
        ) from None
    except httpx2.TransportError as error:
        raise ConfigurationError(
            f"no service responds at {url} ({error}); start it with `make dev`, or set --url"
        ) from None
    if location := response.headers.get("location"):
        raise ConfigurationError(f"{url}/version redirects to {location}; set --url to where the service is")
    found = _json(body)
    if response.status_code == 200 and {"name", "version", "commit", "environment"} <= found.keys():
        return {str(key): plain(str(value)) for key, value in found.items()}
    if found.get("code") == "unknown-host":
        raise ConfigurationError(f"the service refuses the host of {url}; set --url to one of its TRUSTED_HOSTS")
    what = "no JSON object" if response.status_code == 200 else response.status_code
    raise ConfigurationError(f"{url}/version is not this service's: it returned {what}; set --url, HOST or PORT")


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
