"""A stand-in for Vault: no package carries the real one. It speaks the HTTP API over a socket, by a recorded table.

What it answers is in `table.py`, a row for each endpoint with the vendor's page; a request without a row is kept in
`unknown`. The same suite runs against a real server (`tests/vault/`), which is what keeps the table honest.
"""

from tests.servers.vault.server import HANG, Fault, Seen, Vault
from tests.servers.vault.store import Clock

__all__ = ["HANG", "Clock", "Fault", "Seen", "Vault"]
