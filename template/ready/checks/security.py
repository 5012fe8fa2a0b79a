"""Security: which requests the service refuses, and which headers protect browsers."""

from ..engine import Gap, NotApplicable, Probe, check

STEP = "let platform/security.py set it, and let no proxy remove it"
# After the OWASP REST Security Cheat Sheet and HTTP Headers Cheat Sheet: what each value must contain.
HEADERS = {
    "content-security-policy": "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@check("security")
async def headers(probe: Probe) -> str:
    """Responses have the security headers, errors too."""
    encrypted = probe.client.base_url.scheme == "https"
    wanted = {**HEADERS, "strict-transport-security": "max-age="} if encrypted else HEADERS
    for path in ("/version", f"/{probe.marker}"):
        found = (await probe.client.get(path)).headers
        missing = [name for name, value in wanted.items() if value not in found.get(name, "")]
        if missing:
            raise Gap(f"{path} returned no valid {', '.join(missing)}", STEP)
        if found.get("server", "nginx") != "nginx":  # which cannot leave it out
            raise Gap(f"{path} reveals its server: {found['server']}", "remove the header Server")
    return f"{len(wanted)} headers are valid on /version and on a 404"


@check("security")
async def hosts(probe: Probe) -> str:
    """A request for a foreign host name is refused."""
    host = f"{probe.marker}.invalid"
    response = await probe.client.get("/version", headers={"Host": host})
    if not 400 <= response.status_code < 500:
        raise Gap(f"the Host {host} got {response.status_code}", "list your own hosts in TRUSTED_HOSTS")
    return f"the Host {host} was refused with {response.status_code}"


@check("security")
async def docs(probe: Probe) -> str:
    """Production does not publish its API description."""
    if not probe.production:
        raise NotApplicable("because only production closes /docs")
    for path in ("/docs", "/openapi.json"):
        response = await probe.client.get(path)
        if response.status_code != 404:
            raise Gap(f"{path} returned {response.status_code}", "unset EXPOSE_DOCS, or waive this check")
    return "/docs and /openapi.json returned 404"


@check("security")
async def transport(probe: Probe) -> str:
    """Production is reached by HTTPS."""
    if not probe.production:
        raise NotApplicable("because only production needs a certificate")
    if probe.client.base_url.scheme != "https":
        raise Gap(f"{probe.client.base_url} is not encrypted", "check the URL that clients use, --url https://…")
    response = await probe.client.get("/livez")
    return f"/livez returned {response.status_code} with a certificate that this machine trusts"
