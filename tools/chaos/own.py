"""Rounds of chaos with a cluster of their own: full disks, wrong clocks, six replicas."""

import os
import pathlib
import subprocess
import tempfile
import time

from harness.checks import equal, require
from harness.server import BINARY, remove_directory, scratch_directory
from harness.small_disk import BALLAST, mount_small_disk, unmount

from . import rounds
from .world import World

EXIT_MACHINE = 4
FULL_SECONDS = 60
HOUR = 3600
SKEW_MAX = 5.0
# How long nothing is answered while no two clocks agree, and by when replicas complain of that.
SILENT_SECONDS, COMPLAINT_SECONDS = 7.0, 60.0
LEAP_SECONDS = 60.0


def full(options, chance):
    """All replicas run out of space at once; later there is space again."""
    directory = scratch_directory("chaos-full")
    disk = SmallDisk(directory, options.small_disk)
    world = None
    try:
        world = World(disk.place, options, chance)
        for replica in world.replicas:
            # Where messages find room.
            replica.log_path = directory / replica.log_path.name
        world.start(0)
        filler = Filler(world)
        since = time.monotonic()
        try:
            ended = wait_full(world)
        finally:
            filler.stop()
        seconds = time.monotonic() - since
        for replica in ended:
            text = replica.stderr_text()
            equal(replica.reap(), EXIT_MACHINE, f"exit code of a full disk: {text[-500:]}")
            require("nothing is lost: free space" in text, f"the remedy is told: {text[-500:]}")
        disk.give_back()
        for replica in ended:
            replica.spawn()
        world.load.answered()
        world.load.run_for(2)
        world.verify()
        world.end()
        world.panics()
        print(f"  {len(ended)} of {len(world.replicas)} replicas ended after {seconds:.1f} s on a "
              "full disk, and went on when there was room", flush=True)
    finally:
        if world is not None:
            world.cluster.kill()
        disk.remove()
    remove_directory(directory)


def wait_full(world):
    """Waits until so many replicas have ended that the cluster stands still; gives them."""
    deadline = time.monotonic() + FULL_SECONDS
    while time.monotonic() < deadline:
        world.load.check()
        ended = [replica for replica in world.replicas if not replica.is_running()]
        if len(ended) >= 2:
            # The last one may just be ending.
            time.sleep(1)
            return [replica for replica in world.replicas if not replica.is_running()]
        time.sleep(0.05)
    raise AssertionError(f"the disk was not full within {FULL_SECONDS} s")


class SmallDisk:
    """A small file system of its own: one that was mounted for it, or else it mounts one."""

    def __init__(self, directory, mounted=None):
        self.mounted = mounted
        self.place = pathlib.Path(mounted) if mounted else mount_small_disk(directory)
        self.ballast = self.place / "ballast"
        with open(self.ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, BALLAST << 20)

    def give_back(self):
        """There is room again."""
        self.ballast.unlink()

    def remove(self):
        """Leaves nothing behind."""
        if self.mounted:
            for path in self.place.glob("*.florin"):
                path.unlink()
            self.ballast.unlink(missing_ok=True)
        else:
            unmount(self.place)


class Filler:
    """Creates transfers as fast as the cluster takes them, beside the load."""

    def __init__(self, world):
        addresses = ",".join(world.cluster.addresses)
        # A file, since nobody reads a pipe meanwhile.
        self.messages = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [str(BINARY), "benchmark", f"--addresses={addresses}", "--yes",
             "--transfer-count=100000000"],
            stdout=subprocess.DEVNULL, stderr=self.messages)

    def stop(self):
        """Ends it, which must have worked until now; its last request may be done or not."""
        code = self.process.poll()
        self.process.kill()
        self.process.wait()
        self.messages.seek(0)
        text = self.messages.read().decode("utf-8", "replace")
        self.messages.close()
        require(code is None, f"the filler ended by itself with {code}: {text[-500:]}")


def clocks(options, chance):
    """One clock is hours wrong, then two in different ways, then two in the same way."""
    directory = scratch_directory("chaos-clocks")
    world = World(directory, options, chance).start(0)
    try:
        first, second, _ = chance.sample(world.replicas, 3)
        one_wrong(world, first)
        back = two_wrong(world, second)
        leap = two_agree(world, first, second)
        world.verify()
        world.end()
        world.panics()
    finally:
        world.cluster.kill()
    print(f"  no answer while no two clocks agreed, answers {back:.1f} s after one was put right; time "
          f"leapt by {leap:.0f} s when two wrong ones agreed", flush=True)
    remove_directory(directory)


def set_clock(replica, offset):
    """At its next start the replica's clock is so many seconds ahead."""
    replica.options = [option for option in replica.options if "clock-offset" not in option]
    if offset:
        replica.options.append(f"--clock-offset={offset}")


def restart(world, replica, offset):
    """Starts a replica again whose clock is so many seconds ahead."""
    replica.stop()
    set_clock(replica, offset)
    replica.spawn()
    replica.wait_ready()
    world.cluster.primary()


def lead(world, replica):
    """Makes a replica the primary, by taking it from others."""
    for _ in range(2 * len(world.replicas)):
        primary = world.cluster.primary()
        if primary is replica:
            return
        primary.stop()
        time.sleep(1)
        primary.spawn()
        primary.wait_ready()
        world.load.answered()
    raise AssertionError(f"replica {replica.index} does not become primary")


def skew(world):
    """The newest timestamp of each client, less the right time when it was answered, in seconds:
    that which is furthest from zero."""
    return max((client.skew for client in world.load.clients), key=abs)


def one_wrong(world, replica):
    """A clock that nobody agrees with changes nothing, not even as the primary's."""
    restart(world, replica, 5 * HOUR)
    lead(world, replica)
    world.load.run_for(2)
    world.load.answered()
    require(abs(skew(world)) < SKEW_MAX, f"timestamps are {skew(world):.1f} s off")


def two_wrong(world, second):
    """Of three clocks no two agree: no time, no progress; until one is put right."""
    # What was agreed on before would hold for a minute.
    world.cluster.kill()
    set_clock(second, -3 * HOUR)
    # What is in the log by now may still be answered.
    start = time.monotonic()
    for replica in world.replicas:
        replica.spawn()
    while time.monotonic() - start < SILENT_SECONDS or not all_complain(world, start):
        world.load.check()
        require(world.load.newest_asked() <= start, "a timestamp was made without a time that a "
                "majority agrees on")
        time.sleep(0.05)
    second.stop()
    set_clock(second, 0)
    second.spawn()
    start = time.monotonic()
    world.load.answered()
    require(abs(skew(world)) < SKEW_MAX, f"timestamps are {skew(world):.1f} s off")
    return time.monotonic() - start


def all_complain(world, start):
    """Whether all replicas have told of the clocks, which they must within a minute."""
    silent = [replica for replica in world.replicas
              if "clocks agrees on" not in replica.stderr_text()]
    waited = time.monotonic() - start
    for replica in silent:
        require(waited < COMPLAINT_SECONDS, f"replica {replica.index} does not tell of the clocks: "
                f"{replica.stderr_text()[-300:]}")
    return not silent


def two_agree(world, first, second):
    """Two clocks that are wrong in the same way are the majority; time never goes back from
    there (which clients check), and leaps no more."""
    restart(world, first, 5 * HOUR)
    restart(world, second, 5 * HOUR)
    start = time.monotonic()
    while skew(world) < HOUR:
        world.load.check()
        require(time.monotonic() - start < LEAP_SECONDS, "a majority's time was not taken")
        time.sleep(0.05)
    leap = skew(world)
    for replica in (first, second):
        restart(world, replica, 0)
    world.load.answered()
    world.load.run_for(1)
    require(skew(world) <= leap + SKEW_MAX, "time leapt again")
    return leap


def six(options, chance):
    """Damage on all files of a cluster of six."""
    directory = scratch_directory("chaos-six")
    world = World(directory, options, chance, replicas=6)
    try:
        world.start(options.fill // 4)
        world.wait_ops(1, world.replicas[0])
        rounds.helix(world)
        world.end()
        world.panics()
    finally:
        world.cluster.kill()
    remove_directory(directory)
