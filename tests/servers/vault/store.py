"""What a Vault holds, and how time passes in it: tokens, leases, policies, mounts, versions of secrets."""

import re
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

Json = dict[str, Any]
# https://developer.hashicorp.com/vault/docs/concepts/policies#default-policy
DEFAULT_POLICY = """
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "sys/leases/lookup" { capabilities = ["update"] }
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }
"""
DAY = 86400.0
SYSTEM_TTL = 32 * DAY  # https://developer.hashicorp.com/vault/docs/configuration#max_lease_ttl


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, *errors: str, data: Json | None = None) -> None:
        super().__init__(status, *errors)
        self.status, self.errors, self.data = status, errors, data


@dataclass
class Clock:
    """Runs with the machine's, and can be set forward. `skew` is how far off it says that it is."""

    offset: float = 0.0
    skew: float = 0.0
    ticks: list[Callable[[], None]] = field(default_factory=list)

    def now(self) -> float:
        return time.time() + self.offset

    def advance(self, seconds: float) -> None:
        """Let time pass, with what ends in it."""
        self.offset += seconds
        for tick in self.ticks:
            tick()

    def shown(self, moment: float) -> str:
        return datetime.fromtimestamp(moment + self.skew, UTC).isoformat().replace("+00:00", "Z")


@dataclass
class Lease:
    """How long a token or a credential lives: until `ends`, and renewed never beyond `issued + max_ttl`."""

    clock: Clock
    ttl: float
    max_ttl: float
    renewable: bool = True
    id: str = ""
    issued: float = 0.0
    ends: float = 0.0

    def __post_init__(self) -> None:
        self.issued = self.clock.now()
        self.extend(self.ttl)

    @property
    def left(self) -> int:
        return max(0, round(self.ends - self.clock.now()))

    @property
    def over(self) -> bool:
        return self.clock.now() >= self.ends

    def extend(self, seconds: float) -> None:
        """https://developer.hashicorp.com/vault/docs/concepts/tokens#the-general-case: capped, not refused."""
        self.ends = min(self.clock.now() + seconds, self.issued + (self.max_ttl or SYSTEM_TTL))


@dataclass
class Token:
    """Who asks."""

    id: str
    policies: list[str]
    lease: Lease
    display_name: str = "token"
    path: str = ""  # of the login that made it
    accessor: str = field(default_factory=lambda: secrets.token_urlsafe(18))


@dataclass
class Credential:
    """A login of a database, made for a token; it dies with its lease, or with its token."""

    lease: Lease
    token: Token
    username: str
    config: Json
    role: Json


@dataclass
class Version:
    """One version of a secret."""

    data: Json
    created: str
    deleted: str = ""
    destroyed: bool = False

    @property
    def about(self) -> Json:
        return {"created_time": self.created, "deletion_time": self.deleted, "destroyed": self.destroyed}


@dataclass
class Store:
    """Everything that outlives a restart."""

    clock: Clock = field(default_factory=Clock)
    tokens: dict[str, Token] = field(default_factory=dict)
    credentials: dict[str, Credential] = field(default_factory=dict)
    wrapped: dict[str, tuple[Json, float]] = field(default_factory=dict)
    policies: dict[str, str] = field(default_factory=lambda: {"default": DEFAULT_POLICY, "root": ""})
    auth: dict[str, Json] = field(default_factory=lambda: {"token/": {"type": "token", "config": {}}})
    mounts: dict[str, Json] = field(
        default_factory=lambda: {"secret/": {"type": "kv", "options": {"version": "2"}, "config": {}}}
    )
    audit: dict[str, Json] = field(default_factory=dict)
    configs: dict[str, Json] = field(default_factory=dict)  # what was written to config and role endpoints, by path
    kv: dict[str, list[Version]] = field(default_factory=dict)
    secret_ids: dict[str, Json] = field(default_factory=dict)
    accounts: dict[str, tuple[str, str]] = field(default_factory=dict)  # JWT: namespace and name of a service account

    def __post_init__(self) -> None:
        self.root = self.token(["root"], 0, 0, "root").id
        self.clock.ticks.append(self.expire)

    def token(
        self, policies: list[str], ttl: float, max_ttl: float, name: str = "token", *, renew: bool = True
    ) -> Token:
        """Make a token; a ttl of 0 is the system's."""
        made = Token(
            f"hvs.{secrets.token_urlsafe(36)}",
            policies,
            Lease(self.clock, ttl or SYSTEM_TTL, max_ttl, renew),
            name,
        )
        self.tokens[made.id] = made
        return made

    def revoke(self, token: Token) -> None:
        """End a token, with all that was made for it (https://developer.hashicorp.com/vault/docs/concepts/lease)."""
        self.tokens.pop(token.id, None)
        for each in [each for each in self.credentials.values() if each.token is token]:
            self.drop(each)

    def expire(self) -> None:
        for credential in [each for each in self.credentials.values() if each.lease.over]:
            self.drop(credential)
        for token in [each for each in self.tokens.values() if each.lease.over and "root" not in each.policies]:
            self.revoke(token)

    def allows(self, token: Token, capabilities: set[str], path: str) -> bool:
        """The most specific rule decides; `deny` wins: https://developer.hashicorp.com/vault/docs/concepts/policies."""
        if "root" in token.policies:
            return True
        rules: dict[str, set[str]] = {}
        for name in token.policies:
            for pattern, words in re.findall(
                r'path\s+"([^"]+)"\s*\{[^}]*?capabilities\s*=\s*\[([^\]]*)\]', self.policies.get(name, "")
            ):
                rules.setdefault(pattern, set()).update(re.findall(r'"(\w+)"', words))
        matching = sorted(
            (pattern for pattern in rules if _matches(pattern, path)),
            key=lambda pattern: ("*" not in pattern and "+" not in pattern, len(pattern)),
        )
        granted = rules[matching[-1]] if matching else set()
        return "deny" not in granted and bool(granted & capabilities)

    # --- the database engine -----------------------------------------------------------------------------------------

    def create(self, token: Token, name: str, role: Json, config: Json) -> tuple[Credential, str]:
        """A new login, really made: https://developer.hashicorp.com/vault/docs/secrets/databases/postgresql."""
        made = f"v-{token.display_name[:8]}-{name[:8]}-{secrets.token_hex(10)}-{int(self.clock.now())}"
        password = f"A1-{secrets.token_hex(8)}"
        lease = Lease(self.clock, role["default_ttl"], role["max_ttl"], id=f"database/creds/{name}/{uuid.uuid4().hex}")
        self.execute(config, role["creation_statements"], made, password, lease)
        credential = Credential(lease, token, made, config, role)
        self.credentials[lease.id] = credential
        return credential, password

    def drop(self, credential: Credential) -> None:
        self.credentials.pop(credential.lease.id, None)
        usual = ['DROP OWNED BY "{{name}}"', 'DROP ROLE IF EXISTS "{{name}}"']
        statements = credential.role.get("revocation_statements") or usual
        self.execute(credential.config, statements, credential.username, "", credential.lease)

    def execute(self, config: Json, statements: list[str], name: str, password: str, lease: Lease) -> None:
        url = config["connection_url"]
        for key in ("username", "password"):
            url = url.replace("{{" + key + "}}", config.get(key, ""))
        values = {"name": name, "username": name, "password": password, "expiration": self.clock.shown(lease.ends)}
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements:
                for key, value in values.items():
                    statement = statement.replace("{{" + key + "}}", value)
                connection.execute(sql.SQL(statement))


def _matches(pattern: str, path: str) -> bool:
    glob = pattern.endswith("*")
    body = re.escape(pattern.rstrip("*")).replace(r"\+", "[^/]+")
    return re.fullmatch(body + (".*" if glob else ""), path) is not None
