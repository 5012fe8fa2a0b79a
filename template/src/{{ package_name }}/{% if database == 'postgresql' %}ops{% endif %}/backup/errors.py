"""The one error of all backup commands."""


class BackupError(Exception):
    """What went wrong and what to do, in one line without secrets; the command exits with 1."""
