"""What can go wrong with a release: each ends with weights that are known and one line, or can be resumed.

The instances are small ones; their versions say how they behave. A scenario leaves a host on which the next one can
release: `one` serves, or both do.
"""

import json
import os
import pty
import resource
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess

from tests.balancer.client import Client
from tests.balancer.haproxy import HAProxyBalancer
from tests.rollout.host import NAMES, Host
from tests.rollout.load import Load

STABLE = {"one": 100, "two": 0}
EVEN = {"one": 100, "two": 100}


def ended(host: Host, done: CompletedProcess[str], code: int, reason: str) -> str:
    """Check how it ended: the exit code, and one line with the reason."""
    assert done.returncode == code, done
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert reason in lines[0], lines[0]
    return lines[0]


def rolled_back(host: Host, users: Load, done: CompletedProcess[str], reason: str) -> str:
    """Check that the stable instance serves everything, as the balancer itself says and as users see."""
    line = ended(host, done, 1, reason)
    assert "was rolled back: " in line
    only_one_serves(host, users)
    return line


def only_one_serves(host: Host, users: Load) -> None:
    """Check who serves."""
    assert host.weights() == STABLE
    deadline, served = time.monotonic() + 5, Counter({"": 1})
    while not all(version.startswith("good") for version in served) and time.monotonic() < deadline:
        before = users.versions.copy()  # the first time there is still an answer that was on its way
        time.sleep(0.5)
        served = users.versions - before
    assert sum(served.values()) > 3
    assert all(version.startswith("good") for version in served), served


# --- a version that is bad


def a_version_that_fails_is_rolled_back_before_50_requests(host: Host, users: Load) -> None:
    """Not even 0.5 % of all users' requests fail meanwhile."""
    users.reset()
    users.wait_for(1000)  # of usual traffic
    with host.configured(release={"steps": [2, 100]}):
        done = host.release("deploy", "fails-0001")
    assert "two: starting fails-0001" in done.stdout
    assert 0 < users.errors < 50
    assert users.errors <= 0.005 * users.total
    rolled_back(host, users, done, "requests failed, of the stable instances 0.0 %")


def a_version_that_is_slow_is_rolled_back(host: Host, users: Load) -> None:
    """Compared with the stable instance at the same time."""
    rolled_back(host, users, host.release("deploy", "slow-0001"), "it is slow: ")


def a_version_that_dies_is_rolled_back(host: Host, users: Load) -> None:
    """By its own silence, or by failed requests: whatever is seen first."""
    rolled_back(host, users, host.release("deploy", "dies-0001"), "")


def a_version_that_never_starts_gets_no_request(host: Host, users: Load) -> None:
    """It is given up after `start_seconds`."""
    users.reset()
    rolled_back(host, users, host.release("deploy", "never-001"), "two is not ready after 2 s: it does not respond")
    assert users.errors == 0


def a_version_that_is_another_one_gets_no_request(host: Host, users: Load) -> None:
    """It answers with 200, and `/version` names another: a deployment that did not deploy."""
    users.reset()
    done = host.release("deploy", "wrong-001")
    rolled_back(host, users, done, "two says that it is 9.9.9 (unknown), not wrong-001")
    assert users.errors == users.versions["wrong-001"] == 0


def a_version_that_fails_its_smoke_test_gets_no_request(host: Host, users: Load) -> None:
    """The command of the configuration knows the address of the instance."""
    users.reset()
    with host.configured(commands={"smoke": "sh -c 'echo $RELEASE_URL; exit 3'"}):
        done = host.release("deploy", "good-smoke")
    rolled_back(host, users, done, f"smoke failed (3): http://127.0.0.1:{host.ports['two']}")
    assert users.versions["good-smoke"] == 0


def a_version_without_requests_is_not_promoted(host: Host, users: Load) -> None:
    """Nobody knows how it does."""
    users.paused.set()
    time.sleep(0.5)
    done = host.release("deploy", "good-idle")
    users.paused.clear()
    rolled_back(host, users, done, "nobody knows how it does: 0 requests reached it, 5 are needed")


def after_a_rollback_the_old_version_is_started_again(host: Host, users: Load) -> None:
    """So that all instances serve, as before."""
    with host.configured(release={"restore": True}):
        done = host.release("deploy", "wrong-002")
    ended(host, done, 1, "was rolled back: two says that it is 9.9.9")
    assert host.weights() == EVEN
    assert host.started("two")[-1].startswith("good")
    last = json.loads((host.home / "state/release.history").read_text().splitlines()[-1])
    assert (last["version"], last["result"]) == ("wrong-002", "rolled back")
    assert "two says that it is 9.9.9" in last["reason"]


# --- staff


def staff_get_a_version_before_anyone_else(host: Host, users: Load) -> None:
    """With a signed cookie, and nobody without it; a version that fails for staff never reaches a user."""
    key = host.home / "staff.key"
    users.reset()
    with host.configured(release={"staff_seconds": 30}):
        key.unlink(missing_ok=True)
        ended(host, host.release("deploy", "fails-staff"), 2, "staff.key: No such file")
        key.write_text("short")
        ended(host, host.release("deploy", "fails-staff"), 2, "needs 32 characters")
        key.write_text("k" * 40)
        cookie = host.release("staff", "fails-staff").stdout.strip().removeprefix("Cookie: ")
        assert len(cookie) == len("release=") + 32
        with host.releasing("deploy", "fails-staff") as release:
            host.wait_for("staff get fails-staff", release)
            time.sleep(1.3)  # HAProxy checks an instance before it is used
            statuses = {}
            for value in (cookie, "release=1", f"{cookie[:-1]}x", "a=b"):
                with Client(host.balancer.port, source="127.0.2.1") as client:
                    statuses[value] = [client.get("/trial", {"Cookie": value}).status for _ in range(3)]
            assert statuses.pop(cookie) == [500] * 3
            assert all(value == [200] * 3 for value in statuses.values()), statuses
            assert release.wait(10) == 1
    assert "was rolled back: 3 of its 3 requests failed" in host.said
    only_one_serves(host, users)
    assert users.errors == 0
    with Client(host.balancer.port, source="127.0.2.1") as client:
        assert client.get("/trial", {"Cookie": cookie}).status == 200


# --- what the machine does


def a_broken_configuration_is_refused_before_anything_moves(host: Host, users: Load) -> None:
    """With the balancer's own words."""
    before = host.weights()
    with host.broken():
        ended(host, host.release("deploy", "good-conf"), 2, "would not load its configuration: ")
    assert host.weights() == before


def a_full_disk_is_rolled_back(host: Host, users: Load) -> None:
    """Nothing can be written any more once the release runs: neither weights nor its record."""
    with host.configured(release={"step_seconds": 1}), host.releasing("deploy", "good-full") as release:
        host.wait_for("10 % of the requests", release)
        resource.prlimit(release.pid, resource.RLIMIT_FSIZE, (0, 0))
        assert release.wait(20) == 1
    resumed = host.release("status")
    assert resumed.returncode == 1 and "was not finished" in resumed.stderr
    only_one_serves(host, users)
    ended(host, host.release("abort"), 1, "was rolled back: aborted")
    only_one_serves(host, users)


def without_statistics_it_is_rolled_back(host: Host, users: Load) -> None:
    """Nobody knows how the canary does."""
    with host.configured(release={"step_seconds": 8}), host.releasing("deploy", "good-blind") as release:
        host.wait_for("10 % of the requests", release)
        with host.blind():
            code = release.wait(40)
    assert "nobody knows how it does: " in host.said
    if code == 2:  # nobody could tell HAProxy either: its next start knows
        assert host.said.count("release: ") == 1 and "the new instances were stopped" in host.said
        only_one_serves_by_file(host, users)
        ended(host, host.release("abort"), 1, "was rolled back: aborted")
    else:
        assert code == 1
    only_one_serves(host, users)


def only_one_serves_by_file(host: Host, users: Load) -> None:
    """What the balancer will do at its next start."""
    line = next(
        each for each in Path(str(host.paths()["peers"])).read_text().splitlines() if str(host.ports["two"]) in each
    )
    assert line.endswith(("weight 0", " down;"))


def a_configuration_that_breaks_meanwhile_stops_the_canary(host: Host, users: Load) -> None:
    """NGINX cannot load anything then: what refuses connections gets no requests either. It can be aborted later."""
    with host.configured(release={"step_seconds": 2}), host.releasing("deploy", "good-meanwhile") as release:
        host.wait_for("10 % of the requests", release)
        with host.broken():
            code = release.wait(30)
            if isinstance(host.balancer, HAProxyBalancer):  # its weights need no configuration
                assert code == 0, host.said
                host.unit_all("good-meanwhile")
                return
            assert code == 2, host.said
            assert "so the new instances were stopped" in host.said
            users.reset()
            users.wait_for(30)
            assert users.errors == users.versions["good-meanwhile"] == 0
    ended(host, host.release("abort"), 1, "was rolled back: aborted")
    only_one_serves(host, users)


def after_a_crash_the_weights_are_those_of_the_release(host: Host, users: Load) -> None:
    """A balancer that is killed and started again meanwhile: HAProxy forgets what was set at run time."""
    with host.configured(release={"step_seconds": 60}), host.releasing("deploy", "good-crash") as release:
        host.wait_for("10 % of the requests", release)
        before = host.weights()
        host.balancer.kill()
        host.balancer.start()
        release.wait_until(lambda: weights(host) == before, 10)
        if isinstance(host.balancer, HAProxyBalancer):
            host.balancer.say("set server service/two weight 77")
            release.wait_until(lambda: weights(host) == before, 10)
            assert "they are set again" in host.said
        release.send(signal.SIGINT)
        assert release.wait(20) == 1, host.said
    host.balancer.kill()
    host.balancer.start()
    deadline = time.monotonic() + 10
    while not weights(host) and time.monotonic() < deadline:
        time.sleep(0.05)
    only_one_serves(host, users)


def weights(host: Host) -> dict[str, int]:
    """Its weights; none while the balancer starts."""
    try:
        return host.weights()
    except OSError:
        return {}


# --- people


def whoever_interrupts_gets_the_stable_version_back(host: Host, users: Load) -> None:
    """At any step, by any signal."""
    for number, (text, what) in enumerate(
        (("starting", signal.SIGHUP), ("10 % of the requests", signal.SIGINT), ("100 % of the", signal.SIGTERM))
    ):
        version = f"good-stop-{number}"
        with host.releasing("deploy", version) as release:
            host.wait_for(text, release)
            release.send(what)
            assert release.wait(20) == 1, host.said
        assert f"was rolled back: interrupted by {what.name}" in host.said.splitlines()[-1]
        only_one_serves(host, users)


def two_operators_do_not_meet(host: Host, users: Load) -> None:
    """The second one is told, and the first one does not notice."""
    with host.configured(release={"step_seconds": 60}), host.releasing("deploy", "good-both") as release:
        host.wait_for("10 % of the requests", release)
        before = host.weights()
        for action in (("deploy", "good-other"), ("restart",), ("abort",)):
            ended(host, host.release(*action), 2, f"another release runs (process {release.pid})")
        assert host.weights() == before
        release.send(signal.SIGINT)
        assert release.wait(20) == 1, host.said
    assert host.started("two")[-1] == "good-both"


def a_killed_release_is_resumed(host: Host, users: Load) -> None:
    """From the step at which it was killed; nothing else can begin before."""
    kill(host, "good-killed")
    assert host.weights()["two"] > 0
    line = ended(host, host.release("deploy", "good-other"), 2, "the canary release of good-killed was not finished")
    assert "`release resume` or `release abort`" in line
    started = len(host.started("two"))
    done = host.release("resume")
    assert done.returncode == 0, done
    assert "all instances are good-killed" in done.stdout
    assert len(host.started("two")) == started  # the step goes on with what runs
    assert host.weights() == EVEN


def a_killed_release_is_aborted(host: Host, users: Load) -> None:
    """And a second time there is nothing left."""
    kill(host, "good-abort")
    ended(host, host.release("abort"), 1, "was rolled back: aborted")
    only_one_serves(host, users)
    ended(host, host.release("abort"), 2, "nothing to abort")


def kill(host: Host, version: str) -> None:
    """Begin a release, and kill its process at 10 %."""
    with host.releasing("deploy", version) as release:
        host.wait_for("10 % of the requests", release)
        release.kill()


def a_command_that_fails_says_so(host: Host, users: Load) -> None:
    """Before anything moves, if it is the first one; its last line is the reason."""
    before, started = host.weights(), host.started("two")
    with host.configured(commands={"prepare": "sh -c 'echo no; echo cannot migrate >&2; exit 4'"}):
        ended(host, host.release("deploy", "good-migr"), 1, "[commands] prepare failed (4): cannot migrate")
    assert (host.weights(), host.started("two")) == (before, started)
    with host.configured(commands={"start": "/does/not/exist {version}"}):
        rolled_back(host, users, host.release("deploy", "good-start"), "start: /does/not/exist: No such file")


def markers_are_set_at_each_end(host: Host, users: Load) -> None:
    """For Sentry, say; one that fails does not decide about a release."""
    seen = host.home / "markers"
    names = ("prepare", "begun", "promoted", "rolled_back")
    commands = {name: f"sh -c 'echo {name} {{version}} >>{seen}; exit {int(name != 'prepare')}'" for name in names}
    with host.configured(commands=commands):
        good, bad = (host.release("deploy", version) for version in ("good-marked", "wrong-marked"))
    assert (good.returncode, bad.returncode) == (0, 1), (good, bad)
    marked = [f"{name} {version}-marked" for version in ("good", "wrong") for name in ("prepare", "begun")]
    assert seen.read_text().splitlines() == [
        *marked[:2],
        "promoted good-marked",
        *marked[2:],
        "rolled_back wrong-marked",
    ]
    only_one_serves(host, users)


def what_is_wrong_in_its_file_is_named(host: Host, users: Load) -> None:
    """One line each, exit code 2, and nothing moves."""
    before, text = host.weights(), host.config.read_text()
    one = f'one = "http://127.0.0.1:{host.ports["one"]}"'
    for old, new, reason in (
        ("[commands]", "[comands]", "there is no [comands]; do you mean commands?"),
        ("samples =", "sampels =", "[release] has no sampels; do you mean samples?"),
        ("samples = 5", 'samples = "5"', "[release] samples must be like 50, not '5'"),
        ("samples = 5", "samples = -5", "[release] samples must be like 50, not -5"),
        ("steps = [10, 100]", "steps = [50, 10]", "steps must be whole percents that rise, up to 100"),
        ("steps = [10, 100]", "steps = []", "steps must be whole percents that rise, up to 100"),
        ('first = ["two"]', 'first = ["three"]', "`first` needs some of [instances], and not all"),
        ('first = ["two"]', "first = 2", "not iterable"),
        (one, 'one = "https://127.0.0.1:1"', "[instances] needs lines such as"),
        (one, f'{one}\nthree = "http://127.0.0.1:9"', "does not list 127.0.0.1:9, which the other file has"),
        (one, "", "[instances] needs two or more"),
        ("[release]", "[release", "release.toml: "),
    ):
        assert old in text, old
        host.config.write_text(text.replace(old, new, 1))
        ended(host, host.release("deploy", "good-file"), 2, reason)
    host.config.unlink()
    ended(host, host.release("status"), 2, "release.toml: No such file or directory")
    host.config.write_text(text)
    for version in ("../1", "", "a b", "-x"):
        assert host.release("deploy", f"--json={version}").returncode == 2
        ended(host, host.release("deploy", "--", version), 2, "is no version")
    assert host.weights() == before


# --- what people see


def a_program_reads_json_and_a_terminal_moves(host: Host, users: Load) -> None:
    """The same release: one object per line, or a line that is written over and over."""
    done = host.release("deploy", "wrong-json", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stderr == ""
    assert lines[-1]["exit"] == 1 and "9.9.9" in lines[-1]["message"]
    plan = host.release("deploy", "good-plan", "--dry-run")
    assert plan.returncode == 0
    assert "would start good-plan on two; 10 → 100 % of the requests; one serves now" in plan.stdout
    assert host.started("two")[-1] == "wrong-json"
    status = [json.loads(line) for line in host.release("status", "--json").stdout.splitlines()]
    assert [(line["percent"], line["ready"]) for line in status[:2]] == [(100.0, True), (0.0, True)]
    screen = on_a_terminal(host.words("deploy", "good-tty"))
    assert screen.count("\r\x1b[K") > 5 and "█" in screen, screen
    assert "all instances are good-tty" in screen


def on_a_terminal(words: Sequence[str]) -> str:
    """What a command writes to a terminal, until it ends."""
    pid, terminal = pty.fork()
    if not pid:
        os.execv(words[0], [*words])  # noqa: S606 no shell is wanted
    screen, deadline = b"", time.monotonic() + 30
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                screen += os.read(terminal, 65_536)
            except OSError:  # the other end is closed
                break
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, screen.decode()
    os.close(terminal)
    return screen.decode()


# --- other ways to release


def a_switch_returns_at_once(host: Host, users: Load) -> None:
    """Blue-green: everything at once, the old one stays; back and forth without a start. A bad one is rolled back."""
    blue_green = ("--strategy", "blue-green")
    done = host.release("deploy", "good-green", *blue_green)
    assert done.returncode == 0, done
    assert "`release back` returns to it" in done.stdout
    assert host.weights() == {"one": 0, "two": 100}
    started = [host.started(name) for name in NAMES]
    for weights in (STABLE, {"one": 0, "two": 100}, STABLE):
        assert host.release("back").returncode == 0
        assert host.weights() == weights
    assert [host.started(name) for name in NAMES] == started
    host.unit("stop", "two", "-")
    ended(host, host.release("back"), 2, "two cannot serve: it does not respond")
    assert host.weights() == STABLE
    rolled_back(host, users, host.release("deploy", "fails-green", *blue_green), "requests failed")
    ended(host, host.release("back"), 2, "there is no release to back")


def one_instance_alone_is_not_restarted(host: Host, users: Load) -> None:
    """It would be an outage."""
    if host.weights() == EVEN:
        host.release("deploy", "wrong-alone")
    started = host.started("one")
    ended(host, host.release("restart"), 2, "only one instance serves")
    assert host.started("one") == started


Scenario = Callable[[Host, Load], None]
SCENARIOS: Sequence[Scenario] = [
    a_version_that_fails_is_rolled_back_before_50_requests,
    a_version_that_is_slow_is_rolled_back,
    a_version_that_dies_is_rolled_back,
    a_version_that_never_starts_gets_no_request,
    a_version_that_is_another_one_gets_no_request,
    a_version_that_fails_its_smoke_test_gets_no_request,
    a_version_without_requests_is_not_promoted,
    one_instance_alone_is_not_restarted,
    after_a_rollback_the_old_version_is_started_again,
    staff_get_a_version_before_anyone_else,
    a_broken_configuration_is_refused_before_anything_moves,
    a_full_disk_is_rolled_back,
    without_statistics_it_is_rolled_back,
    a_configuration_that_breaks_meanwhile_stops_the_canary,
    after_a_crash_the_weights_are_those_of_the_release,
    whoever_interrupts_gets_the_stable_version_back,
    two_operators_do_not_meet,
    a_killed_release_is_resumed,
    a_killed_release_is_aborted,
    a_command_that_fails_says_so,
    markers_are_set_at_each_end,
    what_is_wrong_in_its_file_is_named,
    a_program_reads_json_and_a_terminal_moves,
    a_switch_returns_at_once,
]
