"""A cluster that chaos strikes, the clients that must not notice, and the verdict on its files."""

import os
import subprocess
import sys
import time

from harness.checks import require
from harness.cluster import Cluster
from harness.datafile import (Layout, Superblock, copy_file, damaged_places, overwrite, used_blocks)
from harness.server import BINARY

from .load import Load

CHECKPOINT_SECONDS = 120
STOP_SECONDS = 60
TICKS_PER_SECOND, BLOCKS_PER_TICK = 100, 4


class World:
    """A cluster under load."""

    def __init__(self, directory, options, chance, replicas=3):
        self.directory = directory
        self.options = options
        self.chance = chance
        self.cluster = Cluster(directory, replicas, development=not options.production)
        self.replicas = self.cluster.replicas
        for replica in self.replicas:
            replica.options = [f"--scrub-rate={options.scrub_rate}MiB"]
        self.layout = Layout(self.replicas[0].path)
        self.load = Load(options.clients, self.cluster.addresses, options.batch)

    def start(self, fill):
        """Starts replicas and clients; `fill` transfers are there before."""
        self.cluster.start()
        if fill > 0:
            self.fill(fill)
        self.load.start()
        return self

    def fill(self, transfers):
        """Creates transfers that are there from the beginning."""
        addresses = ",".join(self.cluster.addresses)
        start = time.monotonic()
        subprocess.run([str(BINARY), "benchmark", f"--addresses={addresses}", "--clients=2",
                        f"--transfer-count={transfers}", "--query-count=1"],
                       check=True, stdout=subprocess.DEVNULL)
        size = os.stat(self.replicas[0].path).st_blocks * 512 / 2**20
        print(f"  {transfers} transfers in {time.monotonic() - start:.1f} s; a file takes "
              f"{size:.0f} MiB", flush=True)

    def blocks(self):
        """Blocks that a data file has room for."""
        size = os.stat(self.replicas[0].path).st_size
        return (size - self.layout.grid) // self.layout.block_size

    def cycle_seconds(self):
        """How long the scrub takes to read everything, at most."""
        rate = self.options.scrub_rate * 2**20 / self.layout.block_size
        return self.blocks() / min(rate, TICKS_PER_SECOND * BLOCKS_PER_TICK)

    def any_replica(self):
        """One of them."""
        return self.chance.choice(self.replicas)

    def used(self, replica):
        """Used blocks of a replica; of one that runs, as of a moment ago."""
        if not replica.is_running():
            return used_blocks(replica.path)
        copied = self.copy(replica, "moment")
        try:
            return used_blocks(copied)
        finally:
            copied.unlink()

    def copy(self, replica, name):
        """A copy of the file of a replica that runs, as a power failure would leave it."""
        target = self.directory / f"{name}.copy"
        replica.pause()
        try:
            copy_file(replica.path, target)
        finally:
            replica.resume()
        return target

    def spoil_blocks(self, replica, addresses):
        """Overwrites whole blocks with random bytes."""
        size = self.layout.block_size
        overwrite(replica.path, ((self.layout.block(address), self.chance.randbytes(size))
                                 for address in addresses))

    def wait_ops(self, ops, replica):
        """Waits until a replica has made a checkpoint so many ops after the last one. However slow
        the machine is, one checkpoint follows the other."""
        since, newest = time.monotonic(), Superblock(replica.path).checkpoint_op
        target = newest + ops
        while newest < target:
            self.load.check()
            found = Superblock(replica.path).checkpoint_op
            waited = time.monotonic() - since
            if found != newest:
                since, newest = time.monotonic(), found
            require(waited < CHECKPOINT_SECONDS, f"no checkpoint after op {newest} within "
                    f"{waited:.0f} s; waiting for op {target}")
            time.sleep(0.02)

    def wait_equal(self, seconds=CHECKPOINT_SECONDS):
        """Waits until all files have the same checkpoint and lack nothing of it; how long."""
        start = time.monotonic()
        while True:
            found = [Superblock(replica.path) for replica in self.replicas]
            if (all(item.content() == found[0].content() for item in found)
                    and not any(item.sync_op_max for item in found)):
                require(any(found[0].root), "there was a checkpoint")
                return time.monotonic() - start
            for replica in self.replicas:
                require(replica.is_running(), f"replica {replica.index}: {replica.describe_end()}")
            waited = time.monotonic() - start
            require(waited < seconds, "the checkpoints differ: "
                    + ", ".join(f"op {item.checkpoint_op}" for item in found))
            time.sleep(0.02)

    def scrubbed(self, log_damaged):
        """Waits for two cycles of the scrub, since one may be in progress, and for a checkpoint
        behind them, under load."""
        self.load.run_for(2 * self.cycle_seconds() + 1)
        # Damage in slots of the log that nobody needs lasts until they are used again.
        slots = self.layout.slots if log_damaged else 0
        self.wait_ops(slots + self.layout.interval, self.cluster.primary())

    def verify(self):
        """Holds the load, stops all replicas, and demands that each file is intact and all have
        the same content; then goes on."""
        self.load.hold()
        self.wait_equal()
        self.cluster.stop()
        for replica in self.replicas:
            places = damaged_places(replica.path)
            require(not places, f"replica {replica.index}: {places}")
        found = [Superblock(replica.path).content() for replica in self.replicas]
        require(all(content == found[0] for content in found), "the files have the same content")
        for replica in self.replicas:
            replica.spawn()
        self.load.go_on()

    def end(self):
        """Reads everything back and ends the cluster in good order."""
        start = time.monotonic()
        self.load.end()
        created, reads = self.load.created(), self.load.reads()
        print(f"  {created} acknowledged transfers are there, {reads} reads were right; read back "
              f"in {time.monotonic() - start:.1f} s", flush=True)
        self.cluster.stop()

    def panics(self):
        """No replica may have broken an invariant of its own."""
        for replica in self.replicas:
            text = replica.log_path.read_text(errors="replace")
            if "panicked" in text:
                print(text[-3000:], file=sys.stderr)
            require("panicked" not in text, f"replica {replica.index} panicked")
