"""Replicas that are half dead: stopped for long, or cut off in one direction only."""

import contextlib
import time

from chaos.load import Load
from harness.checks import require
from harness.judge import Judge
from harness.mesh import Mesh
from harness.server import remove_directory, scratch_directory

from .requests import Requests
from .world import connect, in_threads

BATCH = 20


@contextlib.contextmanager
def cluster_under_load(name, clients=3):
    """Serves three replicas with proxies between them, while clients work and judge."""
    directory = scratch_directory(f"practice-{name}")
    mesh = Mesh(directory, 3)
    try:
        mesh.start()
        load = Load(clients, mesh.addresses, BATCH)
        load.start()
        yield mesh, load
        mesh.heal()
        load.answered()
        load.end()
        print(f"  {load.created()} transfers, {load.reads()} reads, all right")
        mesh.stop()
    finally:
        mesh.close()
    remove_directory(directory)


def check_long_stops(options):
    """Each replica is stopped for long, the primary too: clients go on, nothing is lost."""
    seconds = options.size(4, 70)
    with cluster_under_load("stops") as (mesh, load):
        for turn in range(3):
            primary = mesh.primary()
            victim = primary if turn != 1 else mesh.replicas[(primary.index + 1) % 3]
            victim.pause()
            try:
                load.answered()
                load.run_for(seconds)
            finally:
                victim.resume()
            load.answered()
        load.run_for(1)


def check_one_way_cuts(options):
    """Each direction between two replicas is cut in turn: clients are served, nothing is lost."""
    pairs = [(one, two) for one in range(3) for two in range(3) if one != two]
    options.chance("cuts").shuffle(pairs)
    with cluster_under_load("cuts") as (mesh, load):
        for source, target in pairs:
            mesh.cut_one_way(source, target)
            load.answered()
            load.run_for(options.size(1, 15))
            load.answered()
            mesh.heal()
            load.answered()


def check_isolated_replicas(options):
    """Each replica is cut off from both others in both directions, the primary first."""
    with cluster_under_load("isolated") as (mesh, load):
        for turn in range(3):
            primary = mesh.primary()
            mesh.isolate((primary.index + turn) % 3)
            load.answered()
            load.run_for(options.size(2, 70))
            mesh.heal()
            load.answered()
            mesh.primary()


def check_no_quorum_and_back(options):
    """Two replicas are stopped, so nobody is answered; when one is back, everybody is."""
    with cluster_under_load("quorum") as (mesh, load):
        for _ in range(options.size(1, 5)):
            primary = mesh.primary()
            others = [replica for replica in mesh.replicas if replica is not primary]
            for replica in others:
                replica.pause()
            # Until the kernel has stopped them, and what they sent has come.
            time.sleep(0.5)
            stopped = time.monotonic()
            load.run_for(1.5)
            late = load.newest_asked() - stopped
            require(late <= 0, f"a question was answered that was asked {late:.3f} s after a "
                    "majority had stopped")
            for replica in others:
                replica.resume()
            load.answered()


def check_failovers_under_random_requests(options):
    """Primaries are killed, stopped and cut off under random requests: every answer stays true."""
    chance = options.chance("failovers")
    directory = scratch_directory("practice-failovers")
    mesh = Mesh(directory, 3)
    judge, done = Judge(), []
    try:
        mesh.start()
        address = ",".join(mesh.addresses)
        shared = Requests(chance, 1 << 64, accounts=12)
        with connect(address) as client:
            judge.create_accounts(client, shared.accounts)
            judge.create_transfers(client, shared.funding())

        def work(number):
            requests = Requests(options.chance(f"failover {number}"), (number + 2) << 64,
                                timeouts=(0, 1, 2))
            requests.accounts = shared.accounts
            with connect(address) as own:
                while not done:
                    requests.send(judge, own, requests.chance.randrange(1, 20))

        def strike():
            try:
                for turn in range(options.size(4, 30)):
                    victim = mesh.primary()
                    strikes(mesh, victim, turn % 3, 0.5 + chance.random())
            finally:
                done.append(True)

        in_threads([strike, *(lambda number=number: work(number) for number in range(4))])
        with connect(address) as client:
            judge.compare(client, histories=12)
        print(f"  {judge.summary()}")
        mesh.stop()
    finally:
        mesh.close()
    remove_directory(directory)


def strikes(mesh, victim, kind, seconds):
    """Kills, stops or cuts off one replica for a while."""
    if kind == 0:
        victim.kill()
        time.sleep(seconds)
        victim.start()
    elif kind == 1:
        victim.pause()
        time.sleep(seconds)
        victim.resume()
    else:
        mesh.isolate(victim.index)
        time.sleep(seconds)
        mesh.heal()
