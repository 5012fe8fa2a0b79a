"""Security: what the service refuses, and what it tells browsers to refuse."""

from ..engine import Gap, NotApplicable, Probe, check

STEP = "let platform/security.py set it, and no proxy remove it"
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
    """Every answer carries the security headers, an error too."""
    encrypted = probe.client.base_url.scheme == "https"
    wanted = {**HEADERS, "strict-transport-security": "max-age="} if encrypted else HEADERS
    for path in ("/version", f"/{probe.marker}"):
        found = (await probe.client.get(path)).headers
        missing = [name for name, value in wanted.items() if value not in found.get(name, "")]
        if missing:
            raise Gap(f"{path} answered without a right {', '.join(missing)}", STEP)
        if "server" in found:
            raise Gap(f"{path} tells what serves it: {found['server']}", "remove the header Server")
    return f"{len(wanted)} headers are right on an answer and on an error"


@check("security")
async def hosts(probe: Probe) -> str:
    """A name that is not the service's own is refused."""
    host = f"{probe.marker}.invalid"
    answer = await probe.client.get("/version", headers={"Host": host})
    if not 400 <= answer.status_code < 500:
        raise Gap(f"the Host {host} was answered with {answer.status_code}", "name your own hosts in TRUSTED_HOSTS")
    return f"the Host {host} was refused with {answer.status_code}"


@check("security")
async def docs(probe: Probe) -> str:
    """Production does not describe itself to whoever asks."""
    if not probe.production:
        raise NotApplicable("because only production closes /docs")
    for path in ("/docs", "/openapi.json"):
        answer = await probe.client.get(path)
        if answer.status_code != 404:
            raise Gap(f"{path} answered {answer.status_code}", "unset EXPOSE_DOCS, or waive this where it is meant")
    return "/docs and /openapi.json answered 404"


@check("security")
async def transport(probe: Probe) -> str:
    """Production is reached by HTTPS."""
    if not probe.production:
        raise NotApplicable("because only production needs a certificate")
    if probe.client.base_url.scheme != "https":
        raise Gap(f"{probe.client.base_url} is not encrypted", "look at the address of the clients, --url https://…")
    answer = await probe.client.get("/livez")
    return f"/livez answered {answer.status_code} under a certificate that this machine trusts"
