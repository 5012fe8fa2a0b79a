"""Encryption with age: for a public key, so that the machine that makes backups cannot read them.

The format is public (https://age-encryption.org/v1), and the program `age` reads it, too.
"""

from contextlib import suppress
from io import BufferedIOBase
from pathlib import Path

import pyrage

from .errors import BackupError


def check_recipient(key: str) -> str:
    """Check that a public key is one of age.

    Raises:
        ValueError: It is not.
    """
    try:
        pyrage.x25519.Recipient.from_str(key)
    except pyrage.RecipientError:
        raise ValueError("use the public key that `age-keygen` prints, age1…, or off") from None
    return key


def encrypt(source: BufferedIOBase, out: BufferedIOBase, recipient: str) -> None:
    """Encrypt all of `source` for a public key."""
    pyrage.encrypt_io(source, out, [pyrage.x25519.Recipient.from_str(recipient)])


def decrypt(source: BufferedIOBase, out: BufferedIOBase, identity_file: Path) -> None:
    """Decrypt all of `source`.

    Raises:
        BackupError: The key is missing or another one, or the data is damaged.
    """
    key = _read_identity(identity_file)
    try:
        pyrage.decrypt_io(source, out, [key])
    except pyrage.DecryptError as error:
        reason = "the key of BACKUP_AGE_IDENTITY_FILE is not the one of this backup, or the data is damaged"
        raise BackupError(f"{reason}: {error}") from None


def _read_identity(file: Path) -> pyrage.x25519.Identity:
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        raise BackupError(f"BACKUP_AGE_IDENTITY_FILE: {file} cannot be read") from None
    for line in lines:
        if line.startswith("AGE-SECRET-KEY-"):
            with suppress(pyrage.IdentityError):
                return pyrage.x25519.Identity.from_str(line.strip())
    raise BackupError(f"BACKUP_AGE_IDENTITY_FILE: {file} contains no key of `age-keygen`, AGE-SECRET-KEY-…")
