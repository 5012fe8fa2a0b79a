"""Creates the HTTP clients of `ready`; a proxy is used for other machines, never for this one."""

import os
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx2

from .config import ConfigurationError


def is_this_machine(url: str) -> bool:
    """Whether the host of a URL is the loopback: `localhost` and names below it (RFC 6761), 127.0.0.0/8, ::1, or
    the wildcard that a server listens on.
    """
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


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
        # with a transport, no proxy is used
        transport = httpx2.AsyncHTTPTransport(limits=limits) if is_this_machine(url) else None
        return httpx2.AsyncClient(base_url=url, transport=transport, limits=limits, **options)
    except OSError as error:
        raise ConfigurationError(f"SSL_CERT_FILE, SSL_CERT_DIR: {os.strerror(error.errno or 0)}") from None
    except (ImportError, ValueError, httpx2.InvalidURL):  # the message may contain the password of the proxy
        raise ConfigurationError(
            f"{url} or a proxy is unusable: http://host:port in HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, hosts in NO_PROXY"
        ) from None
