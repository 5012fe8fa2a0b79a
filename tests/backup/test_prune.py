"""Which backups `prune` deletes: the rule on many series of times, and the command on a real store."""

import json
import random
import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.backup.conftest import Backups, Made, write_manifest
from tests.projects import Project
from tests.proof import FULL
from tests.sabotage import Body, Sabotage, Value

pytestmark = pytest.mark.servers
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
KILLED = "20260101T000000Z-0001"  # data without a manifest
RULE = """
import json, sys
from datetime import datetime
from my_service.ops.backup.errors import BackupError
from my_service.ops.backup.prune import expired
def answer(case):
    made = {name: datetime.fromisoformat(time) for name, time in case["made"].items()}
    try:
        return expired(made, datetime.fromisoformat(case["now"]), set(case["verified"]), case["least"])
    except BackupError as error:
        return str(error)
print(json.dumps([answer(case) for case in json.load(open(sys.argv[1]))]))
"""
Case = dict[str, Any]


def case(ages: Iterable[timedelta], verified: Sequence[int] = (), least: int = 3) -> Case:
    """A store with a backup of each age; `verified` counts from the oldest."""
    times = sorted(NOW - age for age in ages)
    made = {f"b{number:05}": time.isoformat() for number, time in enumerate(times)}
    return {"made": made, "now": NOW.isoformat(), "verified": [f"b{number:05}" for number in verified], "least": least}


def answers(project: Project, folder: Path, cases: Sequence[Case]) -> list[Any]:
    """What the emitted rule says of each case."""
    file = folder / "cases.json"
    file.write_text(json.dumps(cases))
    found: list[Any] = json.loads(project.run(str(project.venv / "bin/python"), "-c", RULE, str(file)).stdout)
    return found


def left(case: Case, deleted: Sequence[str]) -> dict[str, datetime]:
    return {name: datetime.fromisoformat(time) for name, time in case["made"].items() if name not in deleted}


def random_cases(count: int) -> Iterator[Case]:
    """Stores of any size, age and regularity, of which some backups are verified."""
    for seed in range(count):
        dice = random.Random(seed)  # noqa: S311 the same cases each time
        number = dice.choice([0, 1, 2, 5, 40, 400])
        span = dice.choice([1, 24, 24 * 40, 24 * 800])
        ages = [timedelta(hours=dice.random() * span) for _ in range(number)]
        verified = [each for each in range(number) if dice.random() < 0.1]
        yield case(ages, verified, dice.randint(1, 6))


def broken(project: Project, folder: Path) -> set[str]:
    """The promises that do not hold in some store."""
    cases = list(random_cases(2000 if FULL else 300))
    found = set()
    first = answers(project, folder, cases)
    pruned = [
        {**each, "made": {n: t.isoformat() for n, t in left(each, gone).items()}}
        for each, gone in zip(cases, first, strict=True)
    ]
    for each, gone, again in zip(cases, first, answers(project, folder, pruned), strict=True):
        kept = left(each, gone)
        made = left(each, [])
        if again:
            found.add("a second run deletes more")
        if each["verified"] and max(each["verified"]) not in kept:
            found.add("the newest verified backup is deleted")
        if len(kept) < min(each["least"], len(made)):
            found.add("fewer than the minimum are left")
        if any(NOW - time < timedelta(days=1) for name, time in made.items() if name not in kept):
            found.add("a backup of the last day is deleted")
        days = {time.date() for time in made.values()}
        if {time.date() for time in kept.values()} < set(sorted(days)[-7:]):
            found.add("one of the newest seven days has none")
        months = {(time.year, time.month) for time in made.values()}
        if not set(sorted(months)[-12:]) <= {(time.year, time.month) for time in kept.values()}:
            found.add("one of the newest twelve months has none")
        if len(kept) > 24 * 40 and len(kept) == len(made):
            found.add("nothing is ever deleted")
        hourly = sum(NOW - time < timedelta(days=1) for time in kept.values())
        if len(kept) - hourly > 7 + 5 + 12 + each["least"] + 1:
            found.add("too many are left")
    return found


def test_the_rule_keeps_what_it_promises_in_any_store(project: Project, tmp_path: Path) -> None:
    assert broken(project, tmp_path) == set()


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("change", "promise"),
    [
        (
            Body("ops.backup.prune:expired", "return original(made, now, set(), least)"),
            "the newest verified backup is deleted",
        ),
        (
            Body("ops.backup.prune:expired", "return original(made, now, verified, 0)"),
            "fewer than the minimum are left",
        ),
        (Value("ops.backup.prune:KEEP_ALL", "timedelta(0)"), "a backup of the last day is deleted"),
        (Value("ops.backup.prune:PERIODS", "()"), "one of the newest twelve months has none"),
        (Body("ops.backup.prune:expired", "return []"), "too many are left"),
    ],
    ids=["verified", "least", "day", "periods", "never"],
)
def test_a_changed_rule_breaks_its_promise(project: Project, tmp_path: Path, change: Sabotage, promise: str) -> None:
    assert promise in broken(project.variant(tmp_path / "sick", change), tmp_path)


def test_a_year_of_hourly_backups_shrinks_to_grandfathers_fathers_and_sons(project: Project, tmp_path: Path) -> None:
    hourly = case([timedelta(hours=hour) for hour in range(24 * 365)])
    (gone,) = answers(project, tmp_path, [hourly])
    kept = sorted(left(hourly, gone).values(), reverse=True)
    assert kept[:24] == [NOW - timedelta(hours=hour) for hour in range(24)]
    assert [time.date() for time in kept[24:29]] == [(NOW - timedelta(days=day)).date() for day in range(2, 7)]
    sundays = [time.date() for time in kept if time.weekday() == 6]
    assert [f"{day:%m-%d}" for day in sundays[:4]] == ["11-22", "11-15", "11-08", "11-01"]
    ends = [f"{time:%m-%d}" for time in kept[-10:]]
    assert ends == ["09-30", "08-31", "07-31", "06-30", "05-31", "04-30", "03-31", "02-28", "01-31", "12-31"]


def test_a_backup_of_tomorrow_stops_everything(project: Project, tmp_path: Path) -> None:
    ages = [timedelta(days=day) for day in range(100)]
    fine, wrong = answers(project, tmp_path, [case(ages), case([*ages, timedelta(days=-1)])])
    assert len(fine) > 50
    assert wrong.endswith("is from the future: nothing is deleted; correct the clock of this machine")


# --- the command -----------------------------------------------------------------------------------------------


def aged(backups: Backups, backup: str, days: int) -> str:
    """A copy of a backup, so many days older."""
    old = f"{datetime.now(UTC) - timedelta(days=days):%Y%m%dT%H%M%SZ}-0000"
    shutil.copytree(backups.store / backup, backups.store / old)
    write_manifest(backups.object(old, "manifest.json"), id=old)
    return old


def ids(backups: Backups) -> list[str]:
    return [each["id"] for each in json.loads(backups.must("list", "--json"))]


def test_old_backups_are_deleted_and_the_newest_verified_one_is_kept(backups: Backups) -> None:
    backup = backups.create()
    verified = aged(backups, backup, 900)
    backups.must("verify", verified)
    monthly = [aged(backups, backup, 31 * months) for months in range(1, 14)]
    (backups.store / KILLED).mkdir()
    (backups.store / KILLED / "dump.tar.age").write_bytes(b"half")
    expired, kept = monthly[:-3:-1], monthly[-3::-1]
    assert backups.must("prune", "--dry-run") == "".join(f"would delete {each}\n" for each in expired)
    assert len(ids(backups)) == 15
    assert backups.must("prune") == "".join(f"deleted {each}\n" for each in expired)
    assert ids(backups) == [verified, *kept, backup]
    assert not (backups.store / KILLED).exists()
    assert backups.must("prune") == "nothing to delete\n"
    backups.must("verify", kept[0])


def test_a_clock_that_runs_backwards_is_refused(backups: Backups) -> None:
    backup = backups.create()
    aged(backups, backup, -2)
    aged(backups, backup, 900)
    assert "is from the future: nothing is deleted" in backups.fails("prune")
    assert len(ids(backups)) == 3


# A kill before the deletion of each object in turn.
KILLED_BEFORE = Body(
    "ops.backup.store:Folder.delete",
    """
    left = int(os.environ["KILL_BEFORE"])
    os.environ["KILL_BEFORE"] = str(left - 1)
    if left == 0:
        os.kill(os.getpid(), 9)
    original(name)
    """,
)


def half_listed(backups: Backups) -> set[str]:
    """Kill `prune` at each point: what is listed afterwards and has no data."""
    backup = backups.create()
    for months in range(1, 14):
        aged(backups, backup, 31 * months)
    killed = 0
    found = set()
    for point in range(5):
        done = backups.told(KILL_BEFORE=str(point))("prune")
        killed += done.returncode == -9
        found |= {each for each in ids(backups) if not backups.object(each).exists()}
    assert killed >= 2
    return found


def test_a_killed_run_lists_no_half_backup_and_the_next_one_ends_its_work(make: Made) -> None:
    backups = make(KILLED_BEFORE)
    assert half_listed(backups) == set()
    backups.told(KILL_BEFORE="99").must("prune")
    assert {each.name for each in backups.store.iterdir()} == set(ids(backups))
    assert len(ids(backups)) == 12


@pytest.mark.sabotage
def test_deleting_the_data_first_lists_half_a_backup(make: Made) -> None:
    assert half_listed(make(KILLED_BEFORE, Body("ops.backup.prune:deletion_order", "return name.endswith('.json')")))
