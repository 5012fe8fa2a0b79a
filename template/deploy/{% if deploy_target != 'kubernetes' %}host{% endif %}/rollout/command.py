"""The command line: what may be done now, and how it ended.

Exit codes: 0 promoted, 1 rolled back, 2 usage or "could not look".
"""

import argparse
import re
import signal
from pathlib import Path
from types import FrameType
from typing import NoReturn

from . import CannotLook, Interrupted, ReleaseError, blue_green, canary, restart
from .balancer import connect
from .config import HOME, Config, load
from .instances import command, probe
from .moves import SIGNALS, Moves, cookie, names, undisturbed
from .show import Show
from .state import Record, State

RUN = {"canary": canary.run, "blue-green": blue_green.run, "restart": restart.run}
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


def main() -> int:
    """Parse, do, and say in one line how it ended."""
    options = _parser().parse_args()
    show = Show(options.json)
    for each in SIGNALS:
        signal.signal(each, _stop)
    try:
        config = load(options.config)
        code, text = _act(options, config, show)
    except CannotLook as error:
        code, text = 2, str(error)
    except ReleaseError as error:
        code, text = 1, str(error)
    except OSError as error:
        code, text = 2, f"{error.filename or 'the system'}: {error.strerror or error}"
    except KeyboardInterrupt:
        code, text = 2, "interrupted"
    if code and not options.json:
        show.error(text)
    elif text:
        show.line(text, exit=code)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="release", description=__doc__, allow_abbrev=False)
    shared = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    shared.add_argument("--config", type=Path, default=HOME / "release.toml", help="the file (%(default)s)")
    shared.add_argument("--json", action="store_true", help="one JSON object per line")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in {
        "deploy": "release a version",
        "restart": "restart the instances that serve, one after the other",
        "back": "after a blue-green release, return to the version before",
        "resume": "go on with a release that was killed",
        "abort": "roll back a release that was killed",
        "status": "who gets which share of the requests, and which version is it",
        "staff": "the cookie with which staff get a version before anyone else",
    }.items():
        action = actions.add_parser(name, parents=[shared], help=text, description=text, allow_abbrev=False)
        if name in ("deploy", "staff"):
            action.add_argument("version", help="as `/version` says it, or a commit")
        if name == "deploy":
            action.add_argument("--strategy", choices=("canary", "blue-green"), help="another than [release] strategy")
        if name in ("deploy", "restart"):
            action.add_argument("--dry-run", action="store_true", help="look at everything, and change nothing")
    return parser


def _act(options: argparse.Namespace, config: Config, show: Show) -> tuple[int, str]:
    if options.action == "staff":
        return 0, f"Cookie: release={cookie(config, options.version)}"
    state = State(Path(config.release["state"]))
    if options.action == "status":
        return _status(config, show, state)
    with state.lock():
        found = state.read()
        if options.action in ("deploy", "restart"):
            if found and not found.ended:
                raise CannotLook(f"{_title(found)} was not finished: type `release resume` or `release abort`")
            record = _plan(options, config, show, found)
        elif not found or (options.action == "back" and (found.kind, found.phase) != ("blue-green", "done")):
            raise CannotLook(f"there is no release to {options.action}")
        elif found.ended != (options.action == "back"):
            raise CannotLook(f"{_title(found)} is finished: there is nothing to {options.action}")
        else:
            record = found
        moves = Moves(config, connect(config, show.line), state, show, record)
        if options.action == "back":
            return 0, blue_green.back(moves)
        if options.action == "abort":
            return _ended(moves, "aborted")
        moves.balancer.check(moves.weights(0) if record.kind != "restart" else moves.balancer.peers.weights())
        if getattr(options, "dry_run", False):
            return 0, _promise(moves)
        return _run(moves)


def _plan(options: argparse.Namespace, config: Config, show: Show, last: Record | None) -> Record:
    """Decide which instances get the version first: those that serve nothing, else `first`."""
    weights = connect(config, show.line).peers.weights()
    serving = [name for name, each in config.instances.items() if weights[each.address]]
    if options.action == "restart":
        if len(serving) < 2:
            raise CannotLook("only one instance serves: type `release deploy` with its version")
        new = []
    else:
        if not VERSION.fullmatch(options.version):
            raise CannotLook(f"{options.version!r} is no version")
        idle = [name for name in config.instances if name not in serving]
        new = idle or [*config.first]
    old = [name for name in serving if name not in new]
    if not old:
        raise CannotLook("no instance serves: the load balancer's peers file has the weight 0 everywhere")
    healths = {name: probe(config.instances[name], config.release["host"]) for name in old}
    for name, health in healths.items():
        if not health.ready:
            raise CannotLook(f"{name} serves now, and is not well: {health.problem}")
    now = healths[old[0]]
    if other := [name for name, health in healths.items() if health.version != now.version]:
        raise CannotLook(f"{old[0]} is {now.version}, {other[0]} is {healths[other[0]].version}: deploy one of them")
    old_version = last.version if last and now.is_version(last.version) else now.version
    version = old_version if options.action == "restart" else options.version
    kind = "restart" if options.action == "restart" else options.strategy or config.release["strategy"]
    if kind != "restart" and config.release["staff_seconds"]:
        cookie(config, version)
    return Record(kind, version, old_version, new, old)


def _run(moves: Moves) -> tuple[int, str]:
    """Run a release, or the rest of it; whatever ends it leaves weights that are known."""
    record, show = moves.record, moves.show
    if record.kind != "restart" and record.phase == "starting":
        command(moves.config, "prepare", record.version)
        moves.balancer.peers.prepare(moves.weights(0))
    moves.note(record.phase, record.step)
    try:
        if record.kind != "restart" and record.phase == "starting":
            moves.try_command("begun")
        show.line(f"{_title(record)} begins: now {record.old_version}", version=record.version)
        said = RUN[record.kind](moves)
    except BaseException as error:
        reason = str(error) or type(error).__name__
        with undisturbed():
            if record.kind == "restart" or record.phase == "finishing":
                show.line(f"what is ready serves; {_title(record)} can be resumed: type `release resume`")
                return 1, f"{_title(record)} stopped: {reason}"
            quick = isinstance(error, Interrupted) or not isinstance(error, ReleaseError)
            return _ended(moves, reason, again=moves.config.release["restore"] and not quick)
    with undisturbed():
        moves.note("done")
        if record.kind != "restart":
            moves.state.remember(record, "promoted")
            moves.try_command("promoted")
    return 0, f"{_title(record)} is done: {said}"


def _ended(moves: Moves, reason: str, again: bool = False) -> tuple[int, str]:
    """Take the way back, and say why."""
    record = moves.record
    code, text = 1, f"{_title(record)} was rolled back: {reason}"
    with undisturbed():
        try:
            if record.kind != "restart":
                moves.back()
                moves.show.line(f"{names(moves.old)} serves everything", step=0)
            if again and record.kind == "canary":
                canary.restore(moves)
            if record.kind != "restart":
                moves.try_command("rolled_back")
            moves.note("rolled back")
            if record.kind != "restart":
                moves.state.remember(record, "rolled back", reason)
        except ReleaseError as error:
            code, text = 2, f"{text}; {error}: type `release abort` when that is fixed"
        except OSError as error:
            text = f"{text}; the record could not be written ({error.strerror}): type `release abort` later"
    return code, text


def _status(config: Config, show: Show, state: State) -> tuple[int, str]:
    weights = connect(config, show.line).peers.weights()
    total = sum(weights.values()) or 1
    for name, each in config.instances.items():
        health = probe(each, config.release["host"])
        share = 100 * weights[each.address] / total
        text = f"{name:10} {share:5.1f} %  {health.version or '?':12} {health.problem or 'ready'}"
        show.line(text, instance=name, percent=round(share, 1), version=health.version, ready=health.ready)
    record = state.read()
    if record and not record.ended:
        return 1, f"{_title(record)} was not finished, at {record.step} %: type `release resume` or `release abort`"
    return 0, f"last: {_title(record)}" if record else "no release so far"


def _promise(moves: Moves) -> str:
    record, release = moves.record, moves.config.release
    if record.kind == "restart":
        return f"would restart {names(moves.old)}, one after the other"
    steps = " → ".join(map(str, moves.config.steps)) if record.kind == "canary" else "100"
    first = f"{release['staff_seconds']} s of staff, then " if release["staff_seconds"] else ""
    would = f"would start {record.version} on {names(moves.new)}; {first}{steps} % of the requests"
    return f"{would}; {names(moves.old)} serves now"


def _title(record: Record) -> str:
    return f"the {record.kind}{' release' * (record.kind != 'restart')} of {record.version}"


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(f"interrupted by {signal.Signals(number).name}")
