"""A canary: the new version gets a few percent of the requests, then more, as long as it is as good as the old one."""

from . import ReleaseError
from .moves import Moves, addresses, cookie, names


def run(moves: Moves) -> str:
    """Take the steps that are left, then start the version everywhere; the value says how it ended."""
    record, config = moves.record, moves.config
    if record.phase == "starting":
        begin(moves)
        staff(moves)
    if record.phase != "finishing":
        for percent in config.steps:
            if percent >= record.step:
                moves.note("steps", percent)
                moves.serve(percent)
                moves.show.line(f"{percent} % of the requests go to {names(moves.new)}", step=percent)
                moves.watch(percent, config.release["step_seconds"], config.release["samples"])
        moves.note("finishing", 100)
    moves.balancer.peers.forget()
    moves.drain(moves.old)
    for instance in config.instances.values():
        if instance not in moves.new:
            moves.replace(instance, record.version)
    moves.serve_only(config.instances.values())
    return f"all instances are {record.version}"


def begin(moves: Moves) -> None:
    """Take the first instances out, and start the version there."""
    moves.serve(0)
    moves.drain(moves.new)
    for instance in moves.new:
        moves.replace(instance, moves.record.version)


def staff(moves: Moves) -> None:
    """If there is time for it, let those with the cookie try it before anyone else."""
    if not (seconds := moves.config.release["staff_seconds"]):
        return
    moves.balancer.admit(addresses(moves.new)[0], cookie(moves.config, moves.record.version))
    moves.show.line(f"staff get {moves.record.version} for {seconds} s: see `release staff`", step=0)
    moves.watch(0, seconds, 0)
    moves.balancer.dismiss()


def restore(moves: Moves) -> None:
    """After the way back, start the old version again where the new one was, so that all instances serve."""
    try:
        for instance in moves.new:
            moves.replace(instance, moves.record.old_version)
        moves.serve_only(moves.new + moves.old)
    except (OSError, ReleaseError) as error:
        moves.show.line(f"warning: {names(moves.new)} stays out: {error}")
