"""Types of settings that several rooms use: lists, the hosts and networks in them, and ports.

A value that could never match is normalised if its meaning is clear, otherwise refused, wherever it comes from.
"""

import json
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticUseDefault
from pydantic_settings import NoDecode

_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://", re.I)


def split_list(value: Any) -> Any:
    """Read `a,b`, `a b`, or the JSON list `["a", "b"]`, as a secrets store returns it."""
    if isinstance(value, str):
        text = value.strip()
        value = text.replace(",", " ").split()
        if text.startswith("["):
            with suppress(ValueError):  # `[::1]` is an address
                value = json.loads(text)
        if not value:
            raise ValueError("type at least one value")
    if isinstance(value, list | tuple | set):
        return tuple(each.strip() if isinstance(each, str) else each for each in value)
    return value


def check_host(text: str) -> str:
    """Return a host as a Host header has it: lower case, IDNA, IPv6 in brackets; `*.` stands for any host below."""
    with suppress(ValueError):
        address = ip_address(text.strip("[]"))
        return f"[{address}]" if address.version == 6 else str(address)
    with suppress(UnicodeError):  # a label that is too long
        name = text.lower() if text.isascii() else text.encode("idna").decode()  # as in a Host header
        if text == "*" or _HOST.fullmatch(name):
            return name
    raise ValueError("type host names without scheme, port and path, as in orders.acme.com,*.acme.com")


def check_network(text: str) -> str:
    """Return an address or a network; uvicorn takes anything else for a name, which no client has."""
    if text == "*":
        return text
    try:
        network = ip_network(text.strip("[]"), strict=False)
    except ValueError:
        raise ValueError("type IP addresses or networks, as in 127.0.0.1,10.0.0.0/8") from None
    return str(network) if "/" in text else str(network.network_address)


def _each(check: Callable[[str], str]) -> AfterValidator:
    return AfterValidator(lambda values: tuple(map(check, values)))


def check_port(value: Any, info: ValidationInfo) -> Any:
    """Ignore a variable that Kubernetes sets for a Service of the same name, with one line."""
    if isinstance(value, str) and _SERVICE_LINK.match(value):
        name = str(info.field_name).upper()
        print(
            f"configuration ignored: {name}: Kubernetes has set it for a Service; set enableServiceLinks: false",
            file=sys.stderr,
        )
        raise PydanticUseDefault
    return value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_list)]
Hosts = Annotated[Names, _each(check_host)]  # `*.acme.com`: any host below acme.com
Networks = Annotated[Names, _each(check_network)]
# https://kubernetes.io/docs/concepts/containers/container-environment/: a Service `metrics` sets METRICS_PORT=tcp://…
Port = Annotated[int, BeforeValidator(check_port), Field(ge=0, le=65_535)]
