#!/usr/bin/env python3
"""Runs packaging/florin.service under a systemd of its own: three replicas, started, killed, hung,
restarted and stopped.

The systemd is process 1 of namespaces that this script makes: it sees the machine's programs, but
no unit, network or process of the machine, and writes only into folders of this script. The unit is
used as it is packaged; drop-ins set only what differs between replicas, and the path of the
program. Needs root, systemd and a writable control group; the exit code is 77 where one is missing.
Ends with `N passed, M failed`.
"""

import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.dont_write_bytecode = True

from harness.checks import CheckFailed, wait_until  # noqa: E402
from harness.server import BINARY, free_port, remove_directory, scratch_directory  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNIT = ROOT / "packaging" / "florin.service"
SYSTEMD = pathlib.Path("/lib/systemd/systemd")
SKIPPED = 77
REPLICAS = 3
CLUSTER = 7
SECONDS_MAX = 60
# Starts after which systemd gives a unit up unless the unit says otherwise.
STARTS_USUAL = 5
# The only units that this systemd knows besides ours: what every service depends on, empty. None of
# the machine's own may run: systemd-tmpfiles would empty its /tmp, systemd-sysctl set its kernel.
TARGETS = ("sysinit", "basic", "shutdown", "network-online", "network", "multi-user", "umount",
           "final", "sockets", "timers", "paths", "slices", "exit", "rescue", "emergency")
# What the new process 1 does before it becomes systemd: a machine that can be read only, with
# folders of its own where something is written, the unified control groups, and the loopback
# device.
BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/systemd/system /run/florin-test
cp "$1" /run/florin-test/florin
# Before /tmp is covered, in which the repository may lie.
mount --bind "$2" /var/lib
for folder in /tmp /var/tmp /var/log /var/cache /etc/systemd; do
    mount -t tmpfs -o mode=755 tmpfs $folder
done
chmod 1777 /tmp /var/tmp
for target in $3; do
    printf '[Unit]\\nDefaultDependencies=no\\n' > /run/systemd/system/$target.target
done
cp /etc/hosts /run/florin-test/hosts
mount --bind /run/florin-test/hosts /etc/hosts
mount -o remount,bind,ro /
umount -l /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
export container=florin-test SYSTEMD_UNIT_PATH=/run/systemd/system
export SYSTEMD_GENERATOR_PATH=/run/florin-test/none
export SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/florin-test/none
exec /lib/systemd/systemd --system --unit=basic.target --log-target=console --show-status=no
"""


class Machine:
    """The namespaces with their systemd."""

    def __init__(self, directory):
        state = directory / "state"
        state.mkdir()
        self.log = open(directory / "systemd.log", "wb")
        # A control group of its own, which the new namespace shows as the root of all.
        self.group = control_groups() / f"florin-test-{os.getpid()}"
        self.group.mkdir()
        enter = self.group / "cgroup.procs"
        self.inner = None
        self.outer = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--uts",
             "--ipc", "--net", "--cgroup", "sh", "-c", BOOT, "boot", str(BINARY), str(state),
             " ".join(TARGETS)],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            preexec_fn=lambda: enter.write_text(str(os.getpid()), encoding="ascii"))

    def boot(self):
        """Waits until systemd is up."""
        self.inner = wait_until(self._child, "systemd's process")
        wait_until(lambda: self.run("systemctl", "is-system-running").stdout.strip()
                   == "running", "systemd")

    def _child(self):
        """The process that is 1 in there."""
        children = pathlib.Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children")
        found = children.read_text(encoding="ascii").split()
        return int(found[0]) if found else None

    def run(self, *words):
        """Runs a command in there and returns how it ended."""
        return subprocess.run(["nsenter", "--target", str(self.inner), "--all", "--", *words],
                              capture_output=True, text=True, timeout=SECONDS_MAX, check=False)

    def florin(self, *words):
        """Runs `florin` in there."""
        return self.run("/run/florin-test/florin", *words)

    def show(self, index, name):
        """Returns a property of a replica's unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}",
                        f"florin-{index}").stdout.strip()

    def end(self):
        """Ends systemd and all that it started."""
        self.outer.kill()
        self.outer.wait()
        self.log.close()
        (self.group / "cgroup.kill").write_text("1", encoding="ascii")
        wait_until(self.remove_groups, "the end of all processes")

    def remove_groups(self):
        """Removes the control groups; whether nothing is left of them."""
        try:
            for place, _, _ in os.walk(self.group, topdown=False):
                os.rmdir(place)
        except OSError:
            return False
        return True


def control_groups():
    """Returns where the unified control groups are mounted; `None` if they are not."""
    for line in pathlib.Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return pathlib.Path(place)
    return None


def control_group_refused():
    """Returns why no process can enter a control group of this script; `None` if one can."""
    probe = control_groups() / f"florin-test-{os.getpid()}-probe"
    try:
        probe.mkdir()
        try:
            with subprocess.Popen(["sleep", "60"]) as process:
                try:
                    (probe / "cgroup.procs").write_text(str(process.pid), encoding="ascii")
                finally:
                    process.kill()
        finally:
            wait_until(lambda: remove_empty(probe), "the end of the probe")
    except (OSError, CheckFailed) as error:
        return str(error)
    return None


def remove_empty(group):
    """Removes a control group; whether it had no process any more."""
    try:
        group.rmdir()
    except OSError:
        return False
    return True


def install(machine, addresses):
    """Installs a unit for each replica, and makes the data files as the head of the unit says."""
    text = UNIT.read_text(encoding="utf-8").replace("/usr/local/bin/florin",
                                                    "/run/florin-test/florin")
    root = pathlib.Path(f"/proc/{machine.inner}/root/run/systemd/system")
    for index in range(REPLICAS):
        (root / f"florin-{index}.service").write_text(text, encoding="utf-8")
        drop_in = root / f"florin-{index}.service.d"
        drop_in.mkdir()
        (drop_in / "replica.conf").write_text(
            "[Service]\n"
            f"Environment=FLORIN_ADDRESSES={addresses}\n"
            f"Environment=FLORIN_FILE=/var/lib/florin-{index}/data.florin\n"
            "Environment=FLORIN_OPTIONS=--development\n"
            f"StateDirectory=florin-{index}\n"
            "WatchdogSec=3\n", encoding="utf-8")
        # The head of the unit has this as `systemd-run`, which needs D-Bus.
        (root / f"format-{index}.service").write_text(
            "[Service]\nType=oneshot\nDynamicUser=yes\n"
            f"User=florin-{index}\nStateDirectory=florin-{index}\n"
            f"ExecStart=/run/florin-test/florin format --development --cluster={CLUSTER} "
            f"--replica={index} --replica-count={REPLICAS} /var/lib/florin-{index}/data.florin\n",
            encoding="utf-8")
    yield "the units load", machine.run("systemctl", "daemon-reload").returncode == 0, ""
    for index in range(REPLICAS):
        made = machine.run("systemctl", "start", f"format-{index}")
        yield f"format of replica {index} as its user", made.returncode == 0, made.stderr


def is_healthy(machine, addresses):
    """Whether `florin status` says so."""
    return machine.florin("status", f"--cluster={CLUSTER}",
                          f"--addresses={addresses}").returncode == 0


def restarted(machine, index, strike):
    """Strikes the main process of a replica; whether systemd starts it again."""
    before = machine.show(index, "MainPID")
    machine.run("kill", strike, before)

    def again():
        now = machine.show(index, "MainPID")
        return now not in ("0", before) and machine.show(index, "ActiveState") == "active"

    wait_until(again, f"replica {index} after {strike}")
    return True


def check(machine, addresses):
    """Yields each check with whether it passed, and what was seen."""
    yield from install(machine, addresses)
    for index in range(REPLICAS):
        # Returns once the replica says that it is ready, which must not wait for the others.
        started = machine.run("systemctl", "start", f"florin-{index}")
        yield f"replica {index} starts alone and says that it is ready", \
            started.returncode == 0, started.stderr
    wait_until(lambda: is_healthy(machine, addresses), "a healthy cluster")
    yield "the cluster is healthy", True, ""
    statement = ("create_accounts id=1 ledger=1 code=1, id=2 ledger=1 code=1; create_transfers "
                 "id=3 debit_account_id=1 credit_account_id=2 amount=10 ledger=1 code=1;")
    said = machine.florin("repl", f"--cluster={CLUSTER}", f"--addresses={addresses}",
                          f"--command={statement}")
    yield "it takes a transfer", said.returncode == 0, said.stderr
    status = wait_until(lambda: machine.show(0, "StatusText"), "a status text")
    yield "systemctl status says what the replica does", "view" in status, status
    process = machine.show(0, "MainPID")
    user = machine.run("stat", "--format=%u", f"/proc/{process}").stdout.strip()
    yield "the server is not root", user not in ("", "0"), user
    yield "it restarts after SIGKILL", restarted(machine, 1, "-KILL"), ""
    yield "it restarts when its loop hangs", restarted(machine, 2, "-STOP"), ""
    wait_until(lambda: is_healthy(machine, addresses), "a healthy cluster")
    yield "the cluster is healthy again", True, ""
    said = machine.florin("repl", f"--cluster={CLUSTER}", f"--addresses={addresses}",
                          "--format=json", "--command=lookup_accounts id=1;")
    yield "the transfer is there", '"debits_posted":"10"' in said.stdout, said.stdout + said.stderr
    restarts = [machine.show(index, "NRestarts") for index in range(REPLICAS)]
    yield "nothing else made it restart", restarts == ["0", "1", "1"], str(restarts)
    for index in range(REPLICAS):
        machine.run("systemctl", "stop", f"florin-{index}")
        seen = [machine.show(index, name) for name in ("Result", "ExecMainStatus")]
        yield f"replica {index} stops in good order", seen == ["success", "0"], str(seen)
    failed = machine.run("systemctl", "list-units", "--failed", "--plain", "--no-legend").stdout
    yield "no unit has failed", failed == "", failed
    yield from outlasts_an_outage(machine, addresses)


def outlasts_an_outage(machine, addresses):
    """Replica 0 is started while its own name has no address, for longer than systemd's usual limit
    of five starts; then the name gets one."""
    root = pathlib.Path(f"/proc/{machine.inner}/root/run")
    port = addresses.split(",")[0].rpartition(":")[2]
    named = ",".join([f"florin-test-0:{port}", *addresses.split(",")[1:]])
    (root / "systemd/system/florin-0.service.d/zz-name.conf").write_text(
        f"[Service]\nEnvironment=FLORIN_ADDRESSES={named}\nRestartSec=100ms\n", encoding="utf-8")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "--no-block", "florin-0")
    wait_until(lambda: machine.show(0, "ActiveState") == "failed"
               or int(machine.show(0, "NRestarts")) > 2 * STARTS_USUAL, "starts")
    code = wait_until(lambda: machine.show(0, "ExecMainStatus").strip("0"), "an exit code")
    with open(root / "florin-test/hosts", "a", encoding="utf-8") as hosts:
        hosts.write("127.0.0.1 florin-test-0\n")
    yield "it is started again while its name has no address", \
        machine.show(0, "ActiveState") != "failed" and code == "5", \
        f"{machine.show(0, 'ActiveState')}, exit code {code}"
    wait_until(lambda: machine.show(0, "ActiveState") in ("active", "failed"), "the end of it")
    state = machine.show(0, "ActiveState")
    yield "it serves once the name has one", state == "active", state
    machine.run("systemctl", "stop", "florin-0")


def main():
    """Runs all checks."""
    missing = [it for it in ("unshare", "nsenter", "systemctl", "ip")
               if shutil.which(it) is None]
    if os.geteuid() != 0 or missing or not SYSTEMD.exists():
        print(f"SKIPPED: needs root and systemd{': no ' + ', '.join(missing) if missing else ''}")
        sys.exit(SKIPPED)
    if control_groups() is None:
        print("SKIPPED: needs unified control groups (a mount of cgroup2)")
        sys.exit(SKIPPED)
    if refused := control_group_refused():
        print(f"SKIPPED: no control group can be made: {refused}")
        sys.exit(SKIPPED)
    directory = scratch_directory("unit")
    directory.chmod(0o755)
    addresses = ",".join(f"127.0.0.1:{free_port()}" for _ in range(REPLICAS))
    passed, failed = 0, 0
    machine = Machine(directory)
    try:
        machine.boot()
        for name, is_good, seen in check(machine, addresses):
            print(f"{'ok' if is_good else 'FAILED'}: {name}{'' if is_good else f': {seen}'}",
                  flush=True)
            passed, failed = passed + is_good, failed + (not is_good)
    except (OSError, CheckFailed, subprocess.SubprocessError) as error:
        print(f"FAILED: {error}")
        failed += 1
        journal = machine.log.name
        print(pathlib.Path(journal).read_text(encoding="utf-8", errors="replace")[-3000:])
    finally:
        machine.end()
    if not failed:
        remove_directory(directory)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
