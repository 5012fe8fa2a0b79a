"""A TCP proxy in front of a server, as the network between it and its clients: slow, frozen, cut, or not there."""

import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.servers.process import free_port

PIECE = 65_536
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST instead of FIN, as when a cable is cut


class Proxy:
    """One proxy: from `start` to `stop`, or for the length of a `with`. Without faults it passes everything on.

    Args:
        target: The port of the server, on the loopback interface.

    `delay` is in seconds, before each piece of an answer; with `cutting`, a connection is reset as soon as its client
    says something; `said` counts the pieces that clients have sent, whether they arrived or not, `answered` those that
    the server has; `accepted` counts connections.
    """

    def __init__(self, target: int) -> None:
        self.target, self.port = target, free_port()
        self.delay, self.cutting, self.said, self.answered, self.accepted = 0.0, False, 0, 0, 0
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._frozen: set[socket.socket] = set()
        self._flows, self._over = threading.Event(), threading.Event()
        self._flows.set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._over.clear()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Refuse new connections, and cut those that are open."""
        if self._listener:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
            self._listener.close()
            self._listener = None
        self._over.set()
        self.cut()
        self.resume()

    def pause(self) -> None:
        """Take connections and what is said on them, and pass nothing on."""
        self._flows.clear()

    def resume(self) -> None:
        """Go on after `pause`, with what was held back."""
        self._flows.set()

    def freeze(self, every: int = 1) -> None:
        """Pass nothing on any more on open connections (each, or each second, …), while new ones work."""
        open_ = [pair for pair in self._pairs if pair[0] in self._open]
        self._frozen.update(each for pair in open_[::every] for each in pair)

    def cut(self) -> None:
        """Reset all connections; new ones are taken."""
        for each in list(self._open):
            self._reset(each)

    def _reset(self, connection: socket.socket) -> None:
        self._open.discard(connection)
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RD)  # wakes who waits in recv
        connection.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:  # nobody there: neither is the proxy
                self._reset(client)
                continue
            for each in (client, server):
                each.settimeout(None)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(each)
            self._pairs.append((client, server))
            self.accepted += 1
            threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(PIECE):
                self.said += asks
                self.answered += not asks
                if asks and self.cutting:
                    break
                if not asks and self.delay:
                    self._over.wait(self.delay)
                self._flows.wait()
                if source in self._frozen:  # neither an answer nor an end: the peer's kernel acknowledges what comes
                    self._over.wait()
                    break
                sink.sendall(piece)
            else:
                sink.shutdown(socket.SHUT_WR)
                return
        for each in (source, sink):
            self._reset(each)
