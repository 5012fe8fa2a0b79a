"""Tells systemd how the process is, where its unit says `Type=notify`; elsewhere nobody asks, and nothing is sent."""

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Send a state to the service manager.

    Args:
        state: `READY=1`, `STOPPING=1` or `WATCHDOG=1`, see sd_notify(3).
    """
    if address := os.environ.get("NOTIFY_SOCKET"):
        # Without READY=1 systemd ends the start, without WATCHDOG=1 the process: it is told by silence, too.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address.replace("@", "\0", 1))
