"""Blue-green: the new version starts beside the old one and gets everything at once; the old one stays."""

from . import CannotLook
from .canary import begin, staff
from .instances import probe
from .moves import Moves, names


def run(moves: Moves) -> str:
    """Start the version where nothing is served, switch, watch; the value says how it ended."""
    record, release = moves.record, moves.config.release
    if record.phase == "starting":
        begin(moves)
        staff(moves)
    moves.note("steps", 100)
    moves.serve(100)
    moves.show.line(f"all requests go to {names(moves.new)}", step=100)
    moves.watch(100, release["step_seconds"], release["samples"])
    moves.balancer.peers.forget()
    return f"{names(moves.new)} serves; {names(moves.old)} is still {record.old_version}: `release back` returns to it"


def back(moves: Moves) -> str:
    """Return at once to the instances that served before, if they are well.

    Raises:
        CannotLook: They are not.
    """
    for instance in moves.old:
        if not (health := probe(instance, moves.config.release["host"])).ready:
            raise CannotLook(f"{instance.name} cannot serve: {health.problem}")
        if not moves.balancer.usable(instance.address):
            raise CannotLook(f"{instance.name} cannot serve: the load balancer's own check of it fails")
    moves.serve(0)
    record = moves.record
    moves.state.remember(record, "rolled back", "release back")
    record.new, record.old = record.old, record.new
    record.version, record.old_version = record.old_version, record.version
    moves.note("done")
    return f"all requests go to {names(moves.new)}, which is {record.version}"
