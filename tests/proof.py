"""The one knob for the size of a proof: what a sentence needs, or more with `PROOF=full`."""

import datetime
import os
import zlib

FULL = os.environ.get("PROOF") == "full"
# What takes turns: ROTATION=<day> repeats the turn of another day.
DAY = int(os.environ.get("ROTATION", datetime.datetime.now(datetime.UTC).date().toordinal()))
DAYS = 3  # until each variant of a proof has had its turn


def count(gate: int, full: int) -> int:
    """How often to try: `gate` times, or `full` times with `PROOF=full`."""
    return full if FULL else gate


def has_turn(name: str, day: int = DAY) -> bool:
    """Whether a variant runs on a day; with `PROOF=full`, all run each day."""
    return FULL or zlib.crc32(name.encode()) % DAYS == day % DAYS
