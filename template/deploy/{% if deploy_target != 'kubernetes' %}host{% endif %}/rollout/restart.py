"""A rolling restart: one instance after the other is taken out, started again, and taken back."""

from .moves import Moves


def run(moves: Moves) -> str:
    """Restart those that are left; the value says how it ended."""
    instances = moves.old
    for number, instance in enumerate(instances[moves.record.step :], moves.record.step):
        moves.note("steps", number)
        moves.serve_only([each for each in instances if each != instance])
        moves.drain([instance])
        moves.replace(instance, moves.record.version)
        moves.serve_only(instances)
    return f"{len(instances)} instances were restarted"
