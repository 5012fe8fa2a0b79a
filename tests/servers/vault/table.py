"""The table: each endpoint with the answers that it may give, after the vendor's page named in its row.

The page stands for https://developer.hashicorp.com/vault/api-docs/<page>. What a status means in general is on
https://developer.hashicorp.com/vault/api-docs#http-status-codes; texts of errors are on no page and decide nothing.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from tests.servers.vault.store import Json, Lease, Refusal, Store, Token, Version

NOTHING: Json = {}


@dataclass
class Call:
    """One request, after its token was looked at."""

    store: Store
    method: str
    path: str
    names: dict[str, str]
    body: Json
    query: dict[str, str]
    state: str
    header_token: str
    token: Token | None

    @property
    def asker(self) -> Token:
        assert self.token
        return self.token


Answer = tuple[int, Json]
Handler = Callable[[Call], Answer]


@dataclass(frozen=True)
class Row:
    """An endpoint. `public`: it asks for no token."""

    methods: tuple[str, ...]
    pattern: re.Pattern[str]
    statuses: frozenset[int]
    page: str
    public: bool
    handler: Handler


TABLE: list[Row] = []


def row(methods: str, path: str, *statuses: int, page: str, public: bool = False) -> Callable[[Handler], Handler]:
    """Note an endpoint; `{kv}` stands for a mount, `{path}` for what may hold slashes, other names for one part."""
    pattern = re.sub(r"\{(kv|path)\}", r"(?P<\1>.+?)", path)
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)

    def note(handler: Handler) -> Handler:
        found = frozenset({*statuses, *(() if public else (403,)), 503})
        TABLE.append(Row(tuple(methods.split()), re.compile(pattern), found, page, public, handler))
        return handler

    return note


def find(method: str, path: str) -> tuple[Row, dict[str, str]] | None:
    for each in TABLE:
        match = each.pattern.fullmatch(path)
        if match and method in each.methods:
            return each, match.groupdict()
    return None


def seconds(value: Any, default: float = 0) -> float:
    """`30`, `30s`, `5m`, `24h` (https://developer.hashicorp.com/vault/docs/concepts/duration-format)."""
    if value in (None, ""):
        return default
    number, unit = re.fullmatch(r"([\d.]+)([smhd]?)", str(value)).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]


def listed(value: Any) -> list[str]:
    return [each.strip() for each in value.split(",")] if isinstance(value, str) else list(value or [])


# --- the server itself ----------------------------------------------------------------------------------------------

HEALTH = {"active": 200, "standby": 429, "dr": 472, "performance": 473, "uninitialized": 501, "sealed": 503}


@row("GET HEAD", "sys/health", *HEALTH.values(), page="system/health", public=True)
def health(call: Call) -> Answer:
    about = {
        "initialized": call.state != "uninitialized",
        "sealed": call.state == "sealed",
        "standby": call.state == "standby",
    }
    return HEALTH[call.state], about


@row("GET", "sys/seal-status", 200, page="system/seal-status", public=True)
def seal_status(call: Call) -> Answer:
    sealed = call.state == "sealed"
    return 200, {"type": "shamir", "initialized": call.state != "uninitialized", "sealed": sealed, "version": "1.20.0"}


# --- tokens ---------------------------------------------------------------------------------------------------------


def login(call: Call, role: Json, name: str) -> Answer:
    policies = listed(role.get("token_policies"))
    if not role.get("token_no_default_policy"):
        policies = ["default", *policies]
    token = call.store.token(policies, seconds(role.get("token_ttl"), 3600), seconds(role.get("token_max_ttl")), name)
    token.path = call.path
    return 200, {"auth": _auth(token)}


def _auth(token: Token) -> Json:
    return {
        "client_token": token.id,
        "accessor": token.accessor,
        "policies": token.policies,
        "token_policies": token.policies,
        "lease_duration": token.lease.left,
        "renewable": token.lease.renewable,
    }


@row("POST", "auth/token/create", 200, 400, page="auth/token#create-token")
def create_token(call: Call) -> Answer:
    policies = listed(call.body.get("policies")) or call.asker.policies
    if not call.body.get("no_default_policy"):
        policies = ["default", *policies]
    token = call.store.token(
        policies,
        seconds(call.body.get("ttl")),
        seconds(call.body.get("explicit_max_ttl")),
        renew=call.body.get("renewable", True),
    )
    return 200, {"auth": _auth(token)}


@row("GET", "auth/token/lookup-self", 200, page="auth/token#lookup-a-token-self")
def lookup_self(call: Call) -> Answer:
    token = call.asker
    return 200, {
        "data": {
            "id": token.id,
            "accessor": token.accessor,
            "policies": token.policies,
            # https://developer.hashicorp.com/vault/docs/concepts/tokens#root-tokens: they may never expire
            "ttl": 0 if "root" in token.policies else token.lease.left,
            "creation_ttl": round(token.lease.ttl),
            "explicit_max_ttl": round(token.lease.max_ttl),
            "renewable": token.lease.renewable,
            "expire_time": call.store.clock.shown(token.lease.ends),
            "issue_time": call.store.clock.shown(token.lease.issued),
        }
    }


@row("POST", "auth/token/renew-self", 200, 400, page="auth/token#renew-a-token-self")
def renew_self(call: Call) -> Answer:
    token = call.asker
    if not token.lease.renewable:
        raise Refusal(400, "lease is not renewable")
    return 200, {"auth": None, **_renewed(token.lease, call), "auth": _auth(token)}  # noqa: F601


@row("POST", "auth/token/revoke-self", 204, page="auth/token#revoke-a-token-self")
def revoke_self(call: Call) -> Answer:
    call.store.revoke(call.asker)
    return 204, NOTHING


# --- leases ---------------------------------------------------------------------------------------------------------


def _renewed(lease: Lease, call: Call) -> Json:
    wanted = seconds(call.body.get("increment"), lease.ttl) or lease.ttl
    lease.extend(wanted)
    capped = lease.left < round(wanted)
    return {"warnings": [f"TTL of {wanted:g} s exceeded the effective max_ttl"] if capped else None}


@row("PUT POST", "sys/leases/renew", 200, 400, page="system/leases#renew-lease")
def renew_lease(call: Call) -> Answer:
    found = call.store.credentials.get(call.body.get("lease_id", ""))
    if found is None:
        raise Refusal(400, "lease not found")
    warnings = _renewed(found.lease, call)
    usual = ["ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}'"]
    call.store.execute(found.config, found.role.get("renew_statements") or usual, found.username, "", found.lease)
    return 200, {**_leased(found.lease), **warnings}


@row("PUT POST", "sys/leases/lookup", 200, 400, page="system/leases#read-lease")
def lookup_lease(call: Call) -> Answer:
    found = call.store.credentials.get(call.body.get("lease_id", ""))
    if found is None:
        raise Refusal(400, "invalid lease")
    shown = call.store.clock.shown
    times = {"issue_time": shown(found.lease.issued), "expire_time": shown(found.lease.ends)}
    return 200, {"data": {"id": found.lease.id, "renewable": True, "ttl": found.lease.left, **times}}


@row("PUT POST", "sys/leases/revoke", 204, 400, page="system/leases#revoke-lease")
def revoke_lease(call: Call) -> Answer:
    found = call.store.credentials.get(call.body.get("lease_id", ""))
    if found:
        call.store.drop(found)
    return 204, NOTHING


@row("PUT POST", "sys/leases/revoke-prefix/{path}", 204, page="system/leases#revoke-prefix")
def revoke_prefix(call: Call) -> Answer:
    prefix = call.names["path"]
    for credential in [each for each in call.store.credentials.values() if each.lease.id.startswith(prefix)]:
        call.store.drop(credential)
    for token in [each for each in call.store.tokens.values() if each.path.startswith(prefix)]:
        call.store.revoke(token)
    return 204, NOTHING


def _leased(lease: Lease) -> Json:
    return {"lease_id": lease.id, "renewable": lease.renewable, "lease_duration": lease.left}


@row("PUT POST", "sys/wrapping/unwrap", 200, 400, page="system/wrapping-unwrap", public=True)
def unwrap(call: Call) -> Answer:
    wrapping = call.body.get("token") or call.header_token
    if call.body.get("token") and call.token is None:
        raise Refusal(403, "permission denied")  # "a different token with permissions to access this endpoint"
    answer, ends = call.store.wrapped.pop(wrapping, (NOTHING, 0.0))
    if ends < call.store.clock.now():
        raise Refusal(400, "wrapping token is not valid or does not exist")
    return 200, answer


# --- who may log in -------------------------------------------------------------------------------------------------


def _settled(call: Call) -> Answer:
    """Write, or read what was written; what was not is a 404."""
    if call.method == "GET":
        if call.path not in call.store.configs:
            raise Refusal(404)
        kept = call.store.configs[call.path]
        return 200, {
            "data": {key: value for key, value in kept.items() if key not in ("password", "token_reviewer_jwt")}
        }
    if call.method == "DELETE":
        call.store.configs.pop(call.path, None)
        return 204, NOTHING
    call.store.configs[call.path] = {**call.store.configs.get(call.path, {}), **call.body}
    return 204, NOTHING


def _enabled(call: Call, method: str) -> None:
    if f"{method}/" not in call.store.auth:
        raise Refusal(404, f'no handler for route "auth/{method}"')


TIMES = ("token_ttl", "token_max_ttl", "token_period", "secret_id_ttl")


def _role(call: Call, method: str, *lists: str) -> Answer:
    """Roles answer with numbers of seconds and with lists, however they were written."""
    _enabled(call, method)
    call.body.update({key: round(seconds(value)) for key, value in call.body.items() if key in TIMES})
    call.body.update({key: listed(value) for key, value in call.body.items() if key in ("token_policies", *lists)})
    return _settled(call)


@row("GET POST PUT DELETE", "auth/approle/role/{role}", 200, 204, 400, 404, page="auth/approle#create-update-approle")
def approle_role(call: Call) -> Answer:
    found = _role(call, "approle", "token_bound_cidrs", "secret_id_bound_cidrs")
    if call.method in ("POST", "PUT"):
        call.store.configs[call.path].setdefault("role_id", secrets.token_hex(16))
    elif call.method == "GET":
        found[1]["data"].pop("role_id")
    return found


@row("GET POST", "auth/approle/role/{role}/role-id", 200, 204, 404, page="auth/approle#read-approle-role-id")
def approle_role_id(call: Call) -> Answer:
    role = call.store.configs.get(f"auth/approle/role/{call.names['role']}")
    if role is None:
        raise Refusal(404)
    if call.method == "POST":
        role["role_id"] = call.body["role_id"]
        return 204, NOTHING
    return 200, {"data": {"role_id": role["role_id"]}}


@row("POST PUT", "auth/approle/role/{role}/secret-id", 200, 400, 404, page="auth/approle#generate-new-secret-id")
def approle_secret_id(call: Call) -> Answer:
    name = call.names["role"]
    role = call.store.configs.get(f"auth/approle/role/{name}")
    if role is None:
        raise Refusal(404, f'role "{name}" does not exist')
    made, ttl = secrets.token_hex(16), role.get("secret_id_ttl", 0)
    uses = int(role.get("secret_id_num_uses") or 0)
    ends = call.store.clock.now() + ttl if ttl else float("inf")
    accessor = secrets.token_hex(16)
    call.store.secret_ids[made] = {"role": name, "uses": uses or None, "ends": ends, "accessor": accessor}
    about = {"secret_id_accessor": accessor, "secret_id_ttl": ttl, "secret_id_num_uses": uses}
    return 200, {"data": {"secret_id": made, **about}}


@row(
    "POST PUT",
    "auth/approle/role/{role}/secret-id-accessor/destroy",
    204,
    page="auth/approle#destroy-approle-secret-id-accessor",
)
def approle_destroy(call: Call) -> Answer:
    kept = call.store.secret_ids.items()
    call.store.secret_ids = {key: each for key, each in kept if each["accessor"] != call.body["secret_id_accessor"]}
    return 204, NOTHING


@row("POST", "auth/approle/login", 200, 400, 403, page="auth/approle#login-with-approle", public=True)
def approle_login(call: Call) -> Answer:
    if "approle/" not in call.store.auth:
        raise Refusal(403, "permission denied")
    found = call.store.secret_ids.get(call.body.get("secret_id", ""))
    role = call.store.configs.get(f"auth/approle/role/{found['role']}", {}) if found else {}
    if not found or role.get("role_id") != call.body.get("role_id") or found["ends"] < call.store.clock.now():
        raise Refusal(400, "invalid role or secret ID")
    if found["uses"]:
        found["uses"] -= 1
        if not found["uses"]:
            del call.store.secret_ids[call.body["secret_id"]]
    return login(call, role, "approle")


@row("GET POST", "auth/kubernetes/config", 200, 204, 400, 404, page="auth/kubernetes#configure-method")
def kubernetes_config(call: Call) -> Answer:
    _enabled(call, "kubernetes")
    return _settled(call)


@row("GET POST DELETE", "auth/kubernetes/role/{role}", 200, 204, 400, 404, page="auth/kubernetes#create-update-role")
def kubernetes_role(call: Call) -> Answer:
    return _role(call, "kubernetes", "bound_service_account_names", "bound_service_account_namespaces")


@row("POST", "auth/kubernetes/login", 200, 400, 403, 500, page="auth/kubernetes#login", public=True)
def kubernetes_login(call: Call) -> Answer:
    if "kubernetes/" not in call.store.auth:
        raise Refusal(403, "permission denied")
    role = call.store.configs.get(f"auth/kubernetes/role/{call.body.get('role')}")
    if role is None:
        raise Refusal(400, f'invalid role name "{call.body.get("role")}"')
    namespace, name = call.store.accounts.get(call.body.get("jwt", ""), ("", ""))
    bound = role["bound_service_account_names"], role["bound_service_account_namespaces"]
    if name not in bound[0] or namespace not in bound[1]:
        raise Refusal(403, "permission denied")
    return login(call, role, f"kubernetes-{namespace}-{name}")


# --- policies, mounts, audit devices --------------------------------------------------------------------------------


@row(
    "GET POST PUT DELETE",
    "sys/policies/acl/{name}",
    200,
    204,
    400,
    404,
    page="system/policies#create-update-acl-policy",
)
def policy(call: Call) -> Answer:
    name = call.names["name"]
    if call.method == "GET":
        if name not in call.store.policies:
            raise Refusal(404)
        return 200, {"data": {"name": name, "policy": call.store.policies[name]}}
    if call.method == "DELETE":
        call.store.policies.pop(name, None)
    else:
        call.store.policies[name] = call.body["policy"]
    return 204, NOTHING


def _mounted(call: Call, where: dict[str, Json], word: str) -> Answer:
    if call.method == "GET":
        return 200, {"data": where, **where}
    path = f"{call.names['path'].strip('/')}/"
    if call.method == "DELETE":
        where.pop(path, None)
        return 204, NOTHING
    if path in where:
        raise Refusal(400, f"path {word}already in use at {path}")
    where[path] = {"description": "", "config": {}, "options": None, **call.body}
    return 204, NOTHING


@row("GET", "sys/auth", 200, page="system/auth#list-auth-methods")
@row("POST DELETE", "sys/auth/{path}", 204, 400, page="system/auth#enable-auth-method")
def auth_methods(call: Call) -> Answer:
    return _mounted(call, call.store.auth, "is ")


@row("GET", "sys/mounts", 200, page="system/mounts#list-mounted-secrets-engines")
@row("POST DELETE", "sys/mounts/{path}", 204, 400, page="system/mounts#enable-secrets-engine")
def mounts(call: Call) -> Answer:
    return _mounted(call, call.store.mounts, "is ")


@row("GET", "sys/audit", 200, page="system/audit#list-enabled-audit-devices")
@row("POST PUT DELETE", "sys/audit/{path}", 204, 400, page="system/audit#enable-audit-device")
def audit(call: Call) -> Answer:
    return _mounted(call, call.store.audit, "")


# --- dynamic credentials --------------------------------------------------------------------------------------------


@row("GET POST PUT DELETE", "database/config/{name}", 200, 204, 400, 404, page="secret/databases#configure-connection")
def database_config(call: Call) -> Answer:
    _engine(call)
    if call.method == "GET":
        found = _settled(call)[1]["data"]
        details = {key: found.pop(key) for key in ("connection_url", "username") if key in found}
        return 200, {"data": {**found, "connection_details": details}}
    if call.method in ("POST", "PUT"):
        call.body["allowed_roles"] = listed(call.body.get("allowed_roles"))
        merged = {**call.store.configs.get(call.path, {}), **call.body}
        if merged.get("verify_connection", True):
            try:
                call.store.execute(merged, ["SELECT 1"], "", "", call.asker.lease)
            except psycopg.Error:
                raise Refusal(400, "error creating database object: error verifying connection") from None
    return _settled(call)


@row("POST PUT", "database/rotate-root/{name}", 204, page="secret/databases#rotate-root-credentials")
def rotate_root(call: Call) -> Answer:
    config, password = call.store.configs[f"database/config/{call.names['name']}"], secrets.token_hex(16)
    statement = "ALTER ROLE \"{{name}}\" PASSWORD '{{password}}'"
    call.store.execute(config, [statement], config["username"], password, call.asker.lease)
    config["password"] = password
    return 204, NOTHING


@row("GET POST PUT DELETE", "database/roles/{name}", 200, 204, 400, 404, page="secret/databases#create-role")
def database_role(call: Call) -> Answer:
    _engine(call)
    if call.method in ("POST", "PUT"):
        for key in ("creation", "revocation", "renew", "rollback"):
            value = call.body.get(f"{key}_statements") or []
            call.body[f"{key}_statements"] = [value] if isinstance(value, str) else value
        call.body.update({key: round(seconds(call.body.get(key), 3600)) for key in ("default_ttl", "max_ttl")})
    return _settled(call)


@row("GET", "database/creds/{name}", 200, 400, 500, page="secret/databases#generate-credentials")
def database_creds(call: Call) -> Answer:
    name = call.names["name"]
    role = call.store.configs.get(f"database/roles/{name}")
    if role is None:
        raise Refusal(400, f"unknown role: {name}")
    config = call.store.configs.get(f"database/config/{role['db_name']}", {})
    if name not in config.get("allowed_roles", []) and "*" not in config.get("allowed_roles", []):
        raise Refusal(500, f'"{name}" is not an allowed role')
    try:
        made, password = call.store.create(call.asker, name, role, config)
    except psycopg.Error as error:
        raise Refusal(500, f"failed to execute query: {error}") from None
    return 200, {**_leased(made.lease), "data": {"username": made.username, "password": password}}


def _engine(call: Call) -> None:
    if "database/" not in call.store.mounts:
        raise Refusal(404, 'no handler for route "database"')


# --- secrets in versions: last, as a mount may have any name --------------------------------------------------------


@row("GET POST PUT", "{kv}/config", 200, 204, 404, page="secret/kv/kv-v2#configure-the-kv-engine")
def kv_config(call: Call) -> Answer:
    _versions(call, must=False)
    return (
        _settled(call)
        if call.method != "GET" or call.path in call.store.configs
        else (
            200,
            {"data": {"max_versions": 0, "cas_required": False, "delete_version_after": "0s"}},
        )
    )


@row("GET", "{kv}/data/{path}", 200, 404, page="secret/kv/kv-v2#read-secret-version")
def kv_read(call: Call) -> Answer:
    found = _versions(call)
    number = int(call.query.get("version", 0)) or len(found)
    if not 0 < number <= len(found):
        raise Refusal(404)
    version = found[number - 1]
    about = {**version.about, "version": number, "custom_metadata": None}
    if version.deleted or version.destroyed:
        raise Refusal(404, data={"data": None, "metadata": about})
    return 200, {"data": {"data": version.data, "metadata": about}}


@row("POST PUT", "{kv}/data/{path}", 200, 400, 404, page="secret/kv/kv-v2#create-update-secret")
def kv_write(call: Call) -> Answer:
    found = _versions(call, must=False)
    cas = (call.body.get("options") or {}).get("cas")
    if cas is not None and cas != len(found):
        raise Refusal(400, "check-and-set parameter did not match the current version")
    found.append(Version(call.body["data"], call.store.clock.shown(call.store.clock.now())))
    return 200, {"data": {**found[-1].about, "version": len(found)}}


@row("DELETE", "{kv}/data/{path}", 204, 404, page="secret/kv/kv-v2#delete-latest-version-of-secret")
def kv_delete(call: Call) -> Answer:
    _versions(call)[-1].deleted = call.store.clock.shown(call.store.clock.now())
    return 204, NOTHING


@row("POST PUT", "{kv}/destroy/{path}", 204, 404, page="secret/kv/kv-v2#destroy-secret-versions")
def kv_destroy(call: Call) -> Answer:
    found = _versions(call)
    for number in call.body["versions"]:
        found[int(number) - 1].destroyed = True
    return 204, NOTHING


@row("GET", "{kv}/metadata/{path}", 200, 404, page="secret/kv/kv-v2#read-secret-metadata")
def kv_metadata(call: Call) -> Answer:
    found = _versions(call)
    about = {"current_version": len(found), "oldest_version": 0, "max_versions": 0, "custom_metadata": None}
    times = {"created_time": found[0].created, "updated_time": found[-1].created}
    versions = {str(number): version.about for number, version in enumerate(found, 1)}
    return 200, {"data": {**about, **times, "versions": versions}}


@row("LIST", "{kv}/metadata/?", 200, 404, page="secret/kv/kv-v2#list-secrets")
def kv_list(call: Call) -> Answer:
    _versions(call, must=False)
    prefix = f"{call.names['kv']}/"
    names = {path.removeprefix(prefix) for path, kept in call.store.kv.items() if kept and path.startswith(prefix)}
    if not names:
        raise Refusal(404)
    return 200, {"data": {"keys": sorted(names)}}


@row("DELETE", "{kv}/metadata/{path}", 204, page="secret/kv/kv-v2#delete-metadata-and-all-versions")
def kv_forget(call: Call) -> Answer:
    _versions(call, must=False).clear()
    return 204, NOTHING


def _versions(call: Call, *, must: bool = True) -> list[Version]:
    mount = call.store.mounts.get(f"{call.names['kv']}/", {})
    if mount.get("type") != "kv":
        raise Refusal(404, f'no handler for route "{call.path}"')
    found = call.store.kv.setdefault(f"{call.names['kv']}/{call.names.get('path', '')}", [])
    if must and not found:
        raise Refusal(404)
    return found
