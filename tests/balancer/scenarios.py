"""What every balancer promises, played before a service whose bytes the test controls.

A scenario takes a balancer and asserts. That its assertions can fail is shown by the sabotages of each kind.
"""

import re
from collections.abc import Callable, Sequence

from tests.balancer.balancer import OUTER, Balancer
from tests.balancer.client import Client
from tests.balancer.upstream import Upstream

Scenario = Callable[[Balancer, Upstream], None]
FORGED = "203.0.113.9"


def a_forged_address_never_reaches_the_service(balancer: Balancer, upstream: Upstream) -> None:
    """Whatever a client claims, the service gets the address that the balancer sees; another balancer is believed."""
    claims = {"X-Forwarded-For": f"{FORGED}, 127.0.0.1", "X-Forwarded-Proto": "http", "Forwarded": f"for={FORGED}"}
    claims |= {"X-Real-IP": FORGED, "X-Forwarded-Host": "evil.test"}
    with Client(balancer.port, source="127.0.0.5") as client:
        client.get("/", claims)
    assert upstream.last.all("x-forwarded-for") == ["127.0.0.5"]
    assert upstream.last.all("x-forwarded-proto") == ["https"]
    assert FORGED not in str(upstream.last) and "evil.test" not in str(upstream.last)
    with Client(balancer.port, source=OUTER) as client:
        client.get("/", {"X-Forwarded-For": f"{FORGED}, 198.51.100.7"})
    assert upstream.last.all("x-forwarded-for") == ["198.51.100.7"]


def a_request_id_that_is_unsafe_in_logs_is_replaced(balancer: Balancer, upstream: Upstream) -> None:
    """8 to 128 letters, digits, dots, hyphens and underscores, as the service checks it; a good one is kept."""
    good = ("12345678", "a-B_9.z" * 18 + "ab")
    for sent in (*good, "1234567", "x" * 129, "with space", "a<b>c<d>e<f>", '{"a": 1, "b": 2}', ""):
        with Client(balancer.port) as client:
            assert client.get("/", {"X-Request-ID": sent}).status == 200
        (seen,) = upstream.last.all("x-request-id")
        assert (seen == sent) == (sent in good)
        assert re.fullmatch(r"[A-Za-z0-9._-]{8,128}", seen)
        balancer.entry(request_id=seen)
    with Client(balancer.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: orders.test\r\nX-Request-ID: 12345678\r\nX-Request-ID: abcdefgh\r\n\r\n")
        assert client.answer().status == 200
    (seen,) = upstream.last.all("x-request-id")
    assert seen not in ("12345678", "abcdefgh")


SCENARIOS: Sequence[Scenario] = [
    a_forged_address_never_reaches_the_service,
    a_request_id_that_is_unsafe_in_logs_is_replaced,
]
