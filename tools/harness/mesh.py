"""A cluster whose replicas reach each other through proxies, one for each pair and direction."""

from .cluster import Cluster
from .proxy import DOWN, UP, Proxy


class Mesh(Cluster):
    """Clients use the real addresses; between replicas every connection passes a proxy."""

    def __init__(self, directory, replica_count, development=True):
        super().__init__(directory, replica_count, development)
        self.proxies = {}
        for replica in self.replicas:
            addresses = list(self.addresses)
            for other in self.replicas:
                if other is not replica:
                    proxy = Proxy(other.port)
                    self.proxies[replica.index, other.index] = proxy
                    addresses[other.index] = proxy.address
            replica.addresses = addresses

    def cut_one_way(self, source, target):
        """Holds back everything that one replica sends to another, whoever dialled."""
        self._add(self.proxies[source, target], UP)
        self._add(self.proxies[target, source], DOWN)

    def isolate(self, index):
        """Holds back everything between one replica and all others."""
        for other in range(len(self.replicas)):
            if other != index:
                self.cut_one_way(index, other)
                self.cut_one_way(other, index)

    @staticmethod
    def _add(proxy, direction):
        proxy.hold(*proxy.held, direction)

    def heal(self):
        """Ends all faults; what was held back passes."""
        for proxy in self.proxies.values():
            proxy.heal()

    def close(self):
        """Kills the replicas and ends the proxies."""
        self.kill()
        for proxy in self.proxies.values():
            proxy.close()
