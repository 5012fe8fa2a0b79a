"""Configures a Vault server for this service. An administrator runs it, again after each change:

    VAULT_ADDR=https://… VAULT_TOKEN=… uv run python deploy/vault/apply.py

It applies `vault.toml` and `policy.hcl`, and prints each change; a second run changes nothing. It never handles the
secrets themselves: you store them (docs/secrets.md).
"""

import os
import ssl
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hvac  # type: ignore[import-untyped]
import requests

HERE = Path(__file__).parent
Json = dict[str, Any]
Part = Callable[["Server", Json], Iterator[str]]


class Server:
    """A Vault server, addressed by the paths of its API."""

    def __init__(self, client: hvac.Client) -> None:
        self.client = client

    def apply(self, path: str, wanted: Json, unreadable: Json | None = None) -> Iterator[str]:
        """Write what differs.

        Args:
            path: See https://developer.hashicorp.com/vault/api-docs.
            wanted: The values to set; other values on the server are not changed.
            unreadable: Values that the server never returns. They are only written together with other changes.

        Yields:
            The changes.
        """
        found = (self.client.read(path) or {}).get("data")
        known = {**(found or {}), **(found or {}).get("connection_details", {})}
        differs = sorted(key for key, value in wanted.items() if _plain(known.get(key)) != _plain(value))
        if differs:
            self.client.write_data(path, data={**wanted, **(unreadable or {})})
            yield f"{path}: created" if found is None else f"{path}: changed {', '.join(differs)}"

    def enable(self, where: str, path: str, kind: str, **more: Any) -> Iterator[str]:
        """Enable a secrets engine, an auth method or an audit device at a path.

        Raises:
            ValueError: There is one of another type or version.
        """
        there = self.client.read(where)["data"].get(f"{path}/")
        if there is None:
            self.client.write_data(f"{where}/{path}", data={"type": kind, **more})
            yield f"{where}/{path}: created"
        elif there["type"] != kind or _version(there) != _version(more):
            raise ValueError(f"{where}/{path}: in use by another {there['type']}; set a new path in vault.toml")


def _version(mount: Json) -> Any:
    return (mount.get("options") or {}).get("version")


def _plain(value: Any) -> Any:
    """Normalize for a comparison: the order of a list, an empty list, and white space around text do not matter."""
    return sorted(value) or None if isinstance(value, list) else value.strip() if isinstance(value, str) else value


def audit(server: Server, wanted: Json) -> Iterator[str]:
    """Enable the audit device, or print why this server does not allow that."""
    path = f"sys/audit/{wanted['path']}"
    if os.environ.get("VAULT_NAMESPACE"):
        print(f"{path}: skipped, audit devices belong to the whole server and not to a namespace")
        return
    try:
        yield from server.enable("sys/audit", wanted["path"], wanted["type"], options=wanted["options"])
    except hvac.exceptions.InvalidRequest as error:
        if "declarative" not in str(error):  # https://openbao.org/docs/configuration/audit
            raise
        print(f"{path}: skipped, OpenBao reads it from its own configuration; vault.toml has the line")


def policy(server: Server, wanted: Json) -> Iterator[str]:
    yield from server.apply(f"sys/policies/acl/{wanted['name']}", {"policy": (HERE / "policy.hcl").read_text()})


def kv(server: Server, wanted: Json) -> Iterator[str]:
    yield from server.enable("sys/mounts", wanted["mount"], "kv", options={"version": "2"})


def approle(server: Server, wanted: Json) -> Iterator[str]:
    yield from server.enable("sys/auth", "approle", "approle")
    yield from server.apply(f"auth/approle/role/{wanted.pop('role')}", wanted)


def kubernetes(server: Server, wanted: Json) -> Iterator[str]:
    host, file = wanted.pop("host"), wanted.pop("ca_file", "")
    config: Json = {"kubernetes_host": host}
    if file:
        config |= {"disable_local_ca_jwt": True, "kubernetes_ca_cert": (HERE / file).read_text()}
    if host:
        yield from server.enable("sys/auth", "kubernetes", "kubernetes")
        yield from server.apply("auth/kubernetes/config", config)
        yield from server.apply(f"auth/kubernetes/role/{wanted.pop('role')}", wanted)


def database(server: Server, wanted: Json) -> Iterator[str]:
    role = wanted.pop("role")
    connection = {key: wanted.pop(key) for key in ("connection_url", "username")}
    if connection["connection_url"]:
        yield from server.enable("sys/mounts", "database", "database")
        connection = {"plugin_name": "postgresql-database-plugin", "allowed_roles": [role], **connection}
        password = os.environ.get("VAULT_DATABASE_PASSWORD")
        yield from server.apply(f"database/config/{role}", connection, {"password": password} if password else None)
        yield from server.apply(f"database/roles/{role}", {"db_name": role, **wanted})


PARTS: tuple[Part, ...] = (audit, policy, kv, approle, kubernetes, database)


def main() -> int:
    """Apply each part; if one is refused, the others are still applied.

    Returns:
        0 if everything is applied, 1 if a part was refused, 2 if nothing could be done.
    """
    address, token = os.environ.get("VAULT_ADDR"), os.environ.get("VAULT_TOKEN")
    if not address or not token:
        return _refused("set VAULT_ADDR and VAULT_TOKEN: an administrator's token, not the service's", 2)
    try:
        wanted = tomllib.loads((HERE / "vault.toml").read_text())
        policies = {"token_no_default_policy": True, "token_policies": [wanted["policy"]["name"]]}
    except tomllib.TOMLDecodeError as error:
        return _refused(f"vault.toml: {error}", 2)
    except KeyError as error:
        return _refused(f"vault.toml: [policy] name is missing ({error})", 2)
    wanted |= {method: wanted[method] | policies for method in ("approle", "kubernetes") if method in wanted}
    verify = os.environ.get("VAULT_CACERT") or True
    try:
        ssl.create_default_context(cafile=os.environ.get("VAULT_CACERT") or None)
    except OSError as error:
        return _refused(f"VAULT_CACERT: {verify}: not a readable PEM file ({type(error).__name__})", 2)
    client = hvac.Client(address, token, verify=verify, namespace=os.environ.get("VAULT_NAMESPACE") or None, timeout=10)
    server, code, changes = Server(client), 0, 0
    for part in PARTS:
        try:
            for change in part(server, wanted[part.__name__]) if part.__name__ in wanted else ():
                changes += 1
                print(change)
        except requests.RequestException as error:
            return _refused(f"{address} does not respond ({type(error).__name__})", 2)
        except hvac.exceptions.Forbidden:
            return _refused(f"{part.__name__}: the token may not do this (403)", 2)
        except hvac.exceptions.VaultDown:
            return _refused(f"{address} is sealed, or down (503)", 2)
        except KeyError as error:
            code = _refused(f"{part.__name__}: {error} is missing in vault.toml", 1)
        except (hvac.exceptions.VaultError, ValueError, OSError) as error:
            code = _refused(f"{part.__name__}: {' '.join(str(error).split())}", 1)
    print(f"changes: {changes}" if changes else "nothing to change")
    return code


def _refused(line: str, code: int) -> int:
    print(f"apply: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
