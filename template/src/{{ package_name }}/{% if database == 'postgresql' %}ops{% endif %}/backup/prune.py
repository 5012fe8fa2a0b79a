"""Which backups are kept: all of the last day, then one per day, week and month (grandfather, father, son)."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta

from .errors import BackupError
from .manifest import IDS, MANIFEST, ids, made_at
from .restore import VERIFIED
from .store import Store

KEEP_ALL = timedelta(days=1)
PERIODS: tuple[tuple[Callable[[datetime], str], int], ...] = (
    (lambda made: f"{made:%Y-%m-%d}", 7),
    (lambda made: f"{made:%G-%V}", 5),
    (lambda made: f"{made:%Y-%m}", 12),
)
TOLERANCE = timedelta(minutes=5)  # between two clocks
ABANDONED = timedelta(days=1)  # after which data without a manifest is not being written any more


def expired(
    made: Mapping[str, datetime], now: datetime, verified: Collection[str], least: int, lock_days: int = 0
) -> list[str]:
    """Choose the backups to delete.

    Args:
        made: When each backup was made, by id.
        now: The time.
        verified: Those that were decrypted and decoded; the newest of them is kept.
        least: How many are kept at least.
        lock_days: How long the store refuses to delete one.

    Returns:
        Their ids, the oldest first.

    Raises:
        BackupError: A backup is from the future, so a clock is wrong, and the ages mean nothing.
    """
    newest_first = sorted(made, key=lambda each: made[each], reverse=True)
    if newest_first and made[newest_first[0]] > now + TOLERANCE:
        raise BackupError(
            f"{newest_first[0]} is from the future: nothing is deleted; correct the clock of this machine"
        )
    kept = {each for each in newest_first if made[each] > now - KEEP_ALL - timedelta(days=lock_days)}
    for period, count in PERIODS:
        newest_of: dict[str, str] = {}
        for each in newest_first:
            newest_of.setdefault(period(made[each]), each)
        kept |= set(list(newest_of.values())[:count])
    kept |= set([each for each in newest_first if each in verified][:1])
    kept |= set(newest_first[:least])
    return sorted(made.keys() - kept)


def deletion_order(name: str) -> bool:
    """Sort the objects of a backup for deletion: the manifest is first."""
    return not name.endswith(f"/{MANIFEST}")


def prune(store: Store, now: datetime, least: int, lock_days: int = 0, *, dry_run: bool = False) -> list[str]:
    """Delete the expired backups, and what killed runs have left.

    A run that is cut off leaves data without a manifest, which is no backup, and which the next one deletes.

    Returns:
        The ids of the deleted backups.

    Raises:
        BackupError: A clock is wrong, or the store refuses.
    """
    names = store.names()
    listed = ids(names)
    verified = {name.partition("/")[0] for name in names if name.endswith(f"/{VERIFIED}")}
    chosen = expired({each: made_at(each) for each in listed}, now, verified, least, lock_days)
    if dry_run:
        return chosen
    found = {name.partition("/")[0] for name in names} - set(listed)
    oldest = now - ABANDONED - timedelta(days=lock_days)
    abandoned = [each for each in found if IDS.fullmatch(each) and made_at(each) < oldest]
    for backup in [*chosen, *abandoned]:
        for name in sorted((name for name in names if name.startswith(f"{backup}/")), key=deletion_order):
            store.delete(name)
    store.clean(now - ABANDONED)
    return chosen
