"""Creates the HTTP clients of `ready`; a proxy is used for other machines, never for this one."""

import os
from typing import Any
from urllib.parse import urlsplit

import httpx2

from .config import ConfigurationError

LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def open_client(url: str, *, keepalive: int = 20, **options: Any) -> httpx2.AsyncClient:
    """Create a client for one server.

    Args:
        url: Of the server.
        keepalive: Connections that stay open between requests.
        options: Of `httpx2.AsyncClient`.

    Raises:
        ConfigurationError: The environment names a proxy, or a file with certificates, that cannot be used.
    """
    limits = httpx2.Limits(max_keepalive_connections=keepalive)
    try:
        local = urlsplit(url).hostname in LOOPBACK
        transport = httpx2.AsyncHTTPTransport(limits=limits) if local else None  # with a transport, no proxy is used
        return httpx2.AsyncClient(base_url=url, transport=transport, limits=limits, **options)
    except OSError as error:
        raise ConfigurationError(f"SSL_CERT_FILE, SSL_CERT_DIR: {os.strerror(error.errno or 0)}") from None
    except (ImportError, ValueError, httpx2.InvalidURL):  # the message may contain the password of the proxy
        raise ConfigurationError(
            f"{url} or a proxy cannot be used: use http://host:port in HTTP_PROXY, HTTPS_PROXY and ALL_PROXY"
        ) from None
