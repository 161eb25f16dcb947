"""The rounds of chaos: what goes wrong in each, and for how long clients may wait."""

import time

from harness.checks import require
from harness.datafile import (COPY_SIZE, HEADER_SIZE, SECTOR_SIZE, Superblock, inspect, overwrite,
                              stretch)

# Of used blocks.
DAMAGED = 0.3
# Checkpoints that an absent replica misses beyond what the others' logs reach back.
MISSED = 3
# Nobody may wait for an answer for longer than this, in seconds.
WAIT_MAX = 10.0
SLOTS_PER_SECTOR = SECTOR_SIZE // HEADER_SIZE
HEAD_SIZE = 256


def judged(world, since, log_damaged=False, away=0.0):
    """After the damage: the scrub's cycles, then the verdict. For so many seconds all replicas were
    dead, which does not count."""
    world.scrubbed(log_damaged)
    wait = world.load.slowest(since) - away
    require(wait < WAIT_MAX, f"a client waited for {wait:.2f} s")
    world.verify()
    return wait


def sample(world, addresses):
    """Some of the blocks."""
    return world.chance.sample(addresses, round(len(addresses) * DAMAGED))


def heads(world, replica, addresses):
    """The first bytes of blocks, which name their content."""
    return {address: stretch(replica.path, world.layout.block(address), HEAD_SIZE)
            for address in addresses}


def repaired_after(world, replica, intact):
    """How long it takes until damaged blocks are what they were, and how many there are then; those
    that are no longer used stay as they are, and end the wait after two cycles of the scrub."""
    start = last = time.monotonic()
    wrong = dict(intact)
    while wrong and time.monotonic() - last < 2 * world.cycle_seconds() + 1:
        world.load.check()
        found = heads(world, replica, wrong)
        left = {address: head for address, head in wrong.items() if found[address] != head}
        if len(left) < len(wrong):
            last = time.monotonic()
        wrong = left
        time.sleep(0.05)
    return last - start, len(intact) - len(wrong)


def spoiled(world, is_running):
    """A part of one file is overwritten while its replica runs, or is dead."""
    since = time.monotonic()
    replica = world.any_replica()
    if not is_running:
        replica.kill()
    intact = heads(world, replica, sample(world, world.used(replica)))
    world.spoil_blocks(replica, intact)
    if not is_running:
        replica.spawn()
    seconds, count = repaired_after(world, replica, intact)
    wait = judged(world, since)
    print(f"  replica {replica.index}: {len(intact)} blocks damaged, {count} of them restored within "
          f"{seconds:.1f} s; the slowest answer took {wait:.2f} s", flush=True)


def stopped(world):
    """Damage while the replica is dead."""
    spoiled(world, is_running=False)


def running(world):
    """Damage while the replica runs."""
    spoiled(world, is_running=True)


def helix(world):
    """Damage on all replicas at once, each thing intact somewhere."""
    since = time.monotonic()
    world.cluster.kill()
    used = [set(world.used(replica)) for replica in world.replicas]
    shared = sorted(set.intersection(*used))
    require(shared, "there are blocks that all use")
    spoiled = {replica.index: [] for replica in world.replicas}
    for address in shared:
        spared = world.chance.randrange(len(world.replicas))
        for index, addresses in spoiled.items():
            if index != spared and world.chance.random() < 2 * DAMAGED:
                addresses.append(address)
    for replica in world.replicas:
        world.spoil_blocks(replica, spoiled[replica.index])
        overwrite(replica.path, helix_of_log(world, replica))
        copy = world.chance.randrange(4)
        overwrite(replica.path, [(copy * COPY_SIZE, world.chance.randbytes(COPY_SIZE))])
    for replica in world.replicas:
        replica.spawn()
    away = time.monotonic() - since
    world.load.answered()
    back = time.monotonic() - since - away
    wait = judged(world, since, log_damaged=True, away=away)
    counts = ", ".join(str(len(addresses)) for addresses in spoiled.values())
    print(f"  of {len(shared)} used blocks damaged: {counts}; answers again after {back:.1f} s, the "
          f"slowest took {wait:.2f} s", flush=True)


def helix_of_log(world, replica):
    """What of the log is damaged on this replica: every third group of slots loses its prepares
    here, and the one after it its redundant headers.

    Around the newest op nothing: where all replicas are damaged there, none knows for certain what
    it has acknowledged.
    """
    layout, chance, count = world.layout, world.chance, len(world.replicas)
    newest = inspect(replica.path, "wal")["wal"]["op_max"] % layout.slots
    around = {(newest // SLOTS_PER_SECTOR + step) % (layout.slots // SLOTS_PER_SECTOR)
              for step in (-1, 0, 1)}
    for group in range(layout.slots // SLOTS_PER_SECTOR):
        if group in around:
            continue
        if group % count == replica.index:
            for slot in range(group * SLOTS_PER_SECTOR, (group + 1) * SLOTS_PER_SECTOR):
                yield layout.prepare(slot), chance.randbytes(SECTOR_SIZE)
        elif (group + 1) % count == replica.index:
            yield layout.headers + group * SECTOR_SIZE, chance.randbytes(SECTOR_SIZE)


def stretches(world, replica):
    """Random stretches of each zone: (offset, size)."""
    layout, chance = world.layout, world.chance
    yield chance.randrange(4) * COPY_SIZE + chance.randrange(SECTOR_SIZE), SECTOR_SIZE
    headers = layout.slots * HEADER_SIZE
    for _ in range(2):
        yield layout.headers + chance.randrange(headers - SECTOR_SIZE), SECTOR_SIZE
    prepares = layout.slots * layout.prepare_size
    for _ in range(4):
        size = chance.randrange(1, 4 * layout.prepare_size)
        yield layout.prepares + chance.randrange(prepares - size), size
    # The newest slot, too.
    newest = inspect(replica.path, "wal")["wal"]["op_max"] % layout.slots
    yield layout.prepare(newest), SECTOR_SIZE
    grid = world.blocks() * layout.block_size
    for _ in range(20):
        size = chance.randrange(1, 4 * layout.block_size)
        yield layout.grid + chance.randrange(grid - size), size


def zones(world):
    """Random stretches of each zone of one file."""
    since = time.monotonic()
    replica = world.any_replica()
    replica.kill()
    overwrite(replica.path, [(offset, world.chance.randbytes(size))
                             for offset, size in list(stretches(world, replica))])
    replica.spawn()
    wait = judged(world, since, log_damaged=True)
    print(f"  replica {replica.index}; the slowest answer took {wait:.2f} s", flush=True)


def rollback(world):
    """Stretches of one file become what they were."""
    since = time.monotonic()
    replica = world.any_replica()
    older = world.copy(replica, "older")
    world.wait_ops(2 * world.layout.interval + world.layout.slots, world.cluster.primary())
    replica.kill()
    layout, chance = world.layout, world.chance
    places = [(chance.randrange(4) * COPY_SIZE, COPY_SIZE)]
    # Of a slot, prepare or header: who has lost both has forgotten what it acknowledged, and
    # cannot know it.
    for group in range(layout.slots // SLOTS_PER_SECTOR):
        part = chance.randrange(4)
        if part == 0:
            places.append((layout.headers + group * SECTOR_SIZE, SECTOR_SIZE))
        elif part == 1:
            size = SLOTS_PER_SECTOR * layout.prepare_size
            places.append((layout.prepare(group * SLOTS_PER_SECTOR), size))
    for address in range(1, world.blocks() + 1):
        if chance.random() < DAMAGED:
            places.append((layout.block(address), layout.block_size))
    overwrite(replica.path, ((offset, stretch(older, offset, size)) for offset, size in places))
    older.unlink()
    replica.spawn()
    wait = judged(world, since, log_damaged=True)
    print(f"  replica {replica.index}: {len(places)} stretches; the slowest answer took "
          f"{wait:.2f} s", flush=True)


def caught_up(world, replica, since):
    """Waits until a replica that was away has the checkpoint of the others; how long it took."""
    start = time.monotonic()
    other = next(other for other in world.replicas if other is not replica)
    while True:
        own, theirs = Superblock(replica.path), Superblock(other.path)
        if own.sync_op_max == 0 and own.content() == theirs.content():
            break
        world.load.check()
        require(replica.is_running(), f"replica {replica.index}: {replica.describe_end()}")
        require(time.monotonic() - start < 60, f"after a minute at op {own.checkpoint_op} with "
                f"{own.sync_op_max}, the others at {theirs.checkpoint_op}")
        time.sleep(0.02)
    seconds = time.monotonic() - start
    wait = judged(world, since)
    print(f"  replica {replica.index} had caught up after {seconds:.2f} s under load; the slowest "
          f"answer took {wait:.2f} s", flush=True)


def missed_ops(world):
    """How many ops an absent replica misses."""
    return world.layout.slots + MISSED * world.layout.interval


def absent(world):
    """A replica is dead for long."""
    away(world, lambda replica: replica.kill(), lambda replica: replica.spawn())


def frozen(world):
    """A replica stands still for long."""
    away(world, lambda replica: replica.pause(), lambda replica: replica.resume())


def away(world, leave, come_back):
    """A replica leaves until it has missed more than the others' logs hold, and comes back."""
    since = time.monotonic()
    replica = world.any_replica()
    leave(replica)
    other = next(other for other in world.replicas if other is not replica)
    world.wait_ops(missed_ops(world), other)
    come_back(replica)
    caught_up(world, replica, since)


def lost(world):
    """A data file is gone, and made anew by `florin recover`; on the way its process is killed."""
    since = time.monotonic()
    replica = world.any_replica()
    replica.kill()
    replica.path.unlink()
    replica.recover(len(world.replicas))
    replica.spawn()
    world.load.run_for(world.chance.random())
    replica.kill()
    replica.spawn()
    caught_up(world, replica, since)
    text = replica.log_path.read_text(errors="replace")
    require("this replica votes again" in text, f"replica {replica.index} votes again: {text[-500:]}")
