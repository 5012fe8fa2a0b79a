"""What every balancer promises, played before a service whose bytes the test controls.

A scenario takes a balancer and asserts. That its assertions can fail is shown by the sabotages of each kind.
"""

from collections.abc import Callable, Sequence

from tests.balancer import edge, peers
from tests.balancer.balancer import Balancer
from tests.balancer.cached import CACHING
from tests.balancer.upstream import Upstream

Scenario = Callable[[Balancer, Upstream], None]
SCENARIOS: Sequence[Scenario] = [*edge.EDGE, *peers.PEERS, *CACHING]
# What waits for times to be over: they are shortened for these.
HASTY = {
    edge.a_client_that_does_not_read_is_left,
    edge.a_slow_client_costs_the_service_nothing,
    peers.an_instance_that_does_not_accept_costs_little_time,
    peers.an_instance_that_does_not_read_is_given_up,
    peers.an_instance_that_is_slow_gets_no_second_chance,
    peers.no_request_meets_a_connection_that_is_being_closed,
}
