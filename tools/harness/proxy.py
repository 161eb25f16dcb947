"""A network that misbehaves: a proxy in front of one address that loses, holds back and cuts.

Directions are seen from the one that dials: `UP` are bytes to the target, `DOWN` those from it.
Held bytes wait in the proxy and pass later; lost bytes never come, so their connection has to be
cut afterwards. Threads are not bounded: this is a test.
"""

import select
import socket
import threading

UP, DOWN = "up", "down"
PATIENCE_SECONDS = 0.02
CHUNK = 1 << 16


class Proxy:
    """Passes connections on to a target on loopback."""

    def __init__(self, target_port):
        self.target_port = target_port
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.held = set()
        self.losing = set()
        self.refusing = False
        self.passed = {UP: 0, DOWN: 0}
        self.lost = {UP: 0, DOWN: 0}
        self.cuts = 0
        self.ended = False
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self, *directions):
        """Holds back bytes of these directions, and of no other."""
        self.held = set(directions)

    def lose(self, *directions):
        """Loses bytes of these directions, and of no other."""
        self.losing = set(directions)

    def cut(self):
        """Ends all connections."""
        self.cuts += 1

    def heal(self):
        """Ends all faults. Connections that lost bytes are cut."""
        if self.losing:
            self.cut()
        self.held, self.losing, self.refusing = set(), set(), False

    def close(self):
        """Ends all connections and refuses new ones."""
        self.ended = True
        self.cut()
        self.listener.close()

    def _accept(self):
        while not self.ended:
            try:
                ready, _, _ = select.select([self.listener], [], [], 0.2)
                if not ready:
                    continue
                client, _ = self.listener.accept()
            except (OSError, ValueError):
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        if self.refusing:
            client.close()
            return
        try:
            server = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
        except OSError:
            client.close()
            return
        for side in (client, server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            side.settimeout(PATIENCE_SECONDS * 10)
        cuts = self.cuts
        ways = [threading.Thread(target=self._pump, args=(source, target, direction, cuts),
                                 daemon=True)
                for source, target, direction in ((client, server, UP), (server, client, DOWN))]
        for way in ways:
            way.start()
        for way in ways:
            way.join()
        client.close()
        server.close()

    def _pump(self, source, target, direction, cuts):
        """Passes bytes in one direction until either side or a cut ends it."""
        try:
            while self.cuts == cuts:
                ready, _, _ = select.select([source], [], [], PATIENCE_SECONDS)
                if not ready or direction in self.held:
                    if ready:
                        threading.Event().wait(PATIENCE_SECONDS)
                    continue
                data = source.recv(CHUNK)
                if not data:
                    break
                if direction in self.losing:
                    self.lost[direction] += len(data)
                    continue
                self._send(target, data, cuts)
                self.passed[direction] += len(data)
        except (OSError, ValueError):
            pass
        for side in (source, target):
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _send(self, target, data, cuts):
        """Sends all bytes unless a cut comes first."""
        rest = memoryview(data)
        while rest and self.cuts == cuts:
            try:
                rest = rest[target.send(rest):]
            except TimeoutError:
                continue
