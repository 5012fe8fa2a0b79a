"""Tells systemd the state of the process, if its unit says `Type=notify`; otherwise it does nothing."""

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Send a state to the service manager.

    Args:
        state: `READY=1`, `STOPPING=1` or `WATCHDOG=1`, see sd_notify(3).
    """
    if address := os.environ.get("NOTIFY_SOCKET"):
        # If it cannot be sent, systemd ends the process at its own time-outs.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address.replace("@", "\0", 1))
