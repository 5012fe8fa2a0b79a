"""The one knob for the size of a proof: what a sentence needs, or more with `PROOF=full`."""

import os

FULL = os.environ.get("PROOF") == "full"


def count(gate: int, full: int) -> int:
    """How often to try: `gate` times, or `full` times with `PROOF=full`."""
    return full if FULL else gate
