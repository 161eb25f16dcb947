"""The client side of the wire protocol over a raw socket, for what no official client can do.

Frames, multi-batch bodies, records as bytes, and `RawClient`: a session that answers at once (an
official client's first reply takes 600 ms), keeps the exact bytes it sent, and can resend them on
a new connection.
"""

import os
import socket
import struct

from .aegis import checksum

HEADER_SIZE = 256
MESSAGE_SIZE_MAX = 1 << 20
RELEASE = 17 << 8 | 9
COMMAND_PING_CLIENT, COMMAND_PONG_CLIENT, COMMAND_REQUEST, COMMAND_REPLY = 3, 4, 5, 8
COMMAND_EVICTION = 18
OPERATION_REGISTER = 2
GET_CHANGE_EVENTS = 137
LOOKUP_ACCOUNTS, LOOKUP_TRANSFERS, GET_ACCOUNT_TRANSFERS, GET_ACCOUNT_BALANCES = 140, 141, 142, 143
QUERY_ACCOUNTS, QUERY_TRANSFERS, CREATE_ACCOUNTS, CREATE_TRANSFERS = 144, 145, 146, 147
CREATED = 0xFFFFFFFF
EVENT_SIZE = {140: 16, 141: 16, 142: 128, 143: 128, 144: 64, 145: 64, 146: 128, 147: 128}
RESULT_SIZE = {140: 128, 141: 128, 142: 128, 143: 128, 144: 128, 145: 128, 146: 16, 147: 16}


class Evicted(Exception):
    """The server ended the session; the argument is the reason's number."""


class ProtocolError(Exception):
    """The server sent what the protocol does not allow."""


def seal(header, body):
    """Fills in the checksums of a header and gives the whole message."""
    header[32:48] = checksum(body)
    header[0:16] = checksum(header[16:HEADER_SIZE])
    return bytes(header) + body


def frame(command, body=b"", fields=(), *, cluster=0, release=RELEASE, view=0, size=None):
    """A sealed message; `fields` are (offset, bytes) that go into the header."""
    header = bytearray(HEADER_SIZE)
    header[80:96] = cluster.to_bytes(16, "little")
    struct.pack_into("<III", header, 96, len(body) + HEADER_SIZE if size is None else size, 0, view)
    struct.pack_into("<I", header, 108, release)
    header[114] = command
    for offset, value in fields:
        header[offset:offset + len(value)] = value
    assert len(header) == HEADER_SIZE, "a field lies in the header"
    return seal(header, body)


def request_frame(operation, body, *, client, session, number, parent=bytes(16), **options):
    """A sealed request."""
    fields = ((128, parent), (160, client.to_bytes(16, "little")),
              (176, struct.pack("<Q", session)), (192, struct.pack("<IB", number, operation)))
    return frame(COMMAND_REQUEST, body, fields, **options)


def ping_frame(client, session=0, timestamp=1, **options):
    """A sealed ping of a client."""
    fields = ((128, client.to_bytes(16, "little")), (144, struct.pack("<QQ", timestamp, session)))
    return frame(COMMAND_PING_CLIENT, b"", fields, **options)


def encode_batches(element_size, batches):
    """The body of a multi-batch operation."""
    payload = b"".join(batches)
    counts = [len(batch) // element_size for batch in batches]
    postamble = struct.pack(f"<{len(counts) + 1}H", *reversed(counts), len(counts))
    padding = -len(postamble) % element_size
    return payload + b"\xff" * padding + postamble


def decode_batches(element_size, body):
    """The batches of a multi-batch body; raises `ProtocolError` if it is malformed."""
    if len(body) < 2:
        raise ProtocolError(f"a body of {len(body)} bytes has no batches")
    (count,) = struct.unpack_from("<H", body, len(body) - 2)
    trailer = 2 * count + 2 + -(2 * count + 2) % element_size
    if count == 0 or trailer > len(body):
        raise ProtocolError(f"{count} batches do not fit {len(body)} bytes")
    counts = struct.unpack_from(f"<{count}H", body, len(body) - 2 * count - 2)[::-1]
    if sum(counts) * element_size != len(body) - trailer:
        raise ProtocolError(f"counts {counts} do not add up to {len(body) - trailer} bytes")
    padding = body[len(body) - trailer:len(body) - 2 * count - 2]
    if padding.strip(b"\xff"):
        raise ProtocolError("the padding of the trailer is not ones")
    batches, start = [], 0
    for elements in counts:
        batches.append(body[start:start + elements * element_size])
        start += elements * element_size
    return batches


def account(account_id, *, ledger=1, code=1, flags=0, user_data=(0, 0, 0), timestamp=0):
    """The 128 bytes of an account to create; user data of 128, 64 and 32 bits."""
    return (account_id.to_bytes(16, "little") + bytes(64) + user_data[0].to_bytes(16, "little")
            + struct.pack("<QIIIHHQ", user_data[1], user_data[2], 0, ledger, code, flags,
                          timestamp))


def transfer(transfer_id, debit, credit, amount, *, ledger=1, code=1, flags=0, pending_id=0,
             timeout=0, user_data=(0, 0, 0), timestamp=0):
    """The 128 bytes of a transfer to create; user data of 128, 64 and 32 bits."""
    wide = (transfer_id, debit, credit, amount, pending_id, user_data[0])
    return (b"".join(value.to_bytes(16, "little") for value in wide)
            + struct.pack("<QIIIHHQ", user_data[1], user_data[2], timeout, ledger, code, flags,
                          timestamp))


def account_filter(account_id, *, limit=8189, flags=3, timestamp_min=0, timestamp_max=0, code=0):
    """The 128 bytes of a filter for transfers or balances of an account."""
    return (account_id.to_bytes(16, "little") + bytes(28) + struct.pack("<H", code) + bytes(58)
            + struct.pack("<QQII", timestamp_min, timestamp_max, limit, flags))


def query_filter(*, limit=8189, flags=0, timestamp_min=0, timestamp_max=0, user_data=(0, 0, 0),
                 ledger=0, code=0):
    """The 64 bytes of a filter for queries of accounts or transfers."""
    return (user_data[0].to_bytes(16, "little")
            + struct.pack("<QIIH6xQQII", user_data[1], user_data[2], ledger, code, timestamp_min,
                          timestamp_max, limit, flags))


def change_events_filter(*, timestamp_min=0, timestamp_max=0, limit=2730):
    """The 64 bytes of a filter for change events."""
    return struct.pack("<QQI44x", timestamp_min, timestamp_max, limit)


def ids(values):
    """Ids as bytes, for lookups."""
    return b"".join(value.to_bytes(16, "little") for value in values)


def results(body):
    """(status, timestamp) of each result of a create operation."""
    return [(status, timestamp) for timestamp, status, _ in struct.iter_unpack("<QII", body)]


def split(body, size):
    """Records of a fixed size."""
    return [body[start:start + size] for start in range(0, len(body), size)]


def read_exact(connection, size):
    """Exactly `size` bytes; raises `ConnectionError` if the server closes before."""
    parts = []
    while size > 0:
        part = connection.recv(min(size, 1 << 20))
        if not part:
            raise ConnectionError("the server closed the connection")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_message(connection):
    """The header and body of the next message; the header's checksum is verified, and so is the
    body's if it is short."""
    header = read_exact(connection, HEADER_SIZE)
    if checksum(header[16:]) != header[:16]:
        raise ProtocolError("the checksum of a header is wrong")
    (size,) = struct.unpack_from("<I", header, 96)
    if not HEADER_SIZE <= size <= MESSAGE_SIZE_MAX:
        raise ProtocolError(f"a message of {size} bytes")
    body = read_exact(connection, size - HEADER_SIZE)
    if len(body) <= 8192 and checksum(body) != header[32:48]:
        raise ProtocolError("the checksum of a body is wrong")
    return header, body


class RawClient:
    """A session over a raw socket."""

    def __init__(self, port, *, release=RELEASE, timeout_seconds=20):
        self.port = port
        self.release = release
        self.timeout_seconds = timeout_seconds
        self.client = int.from_bytes(os.urandom(16), "little") | 1
        self.session = 0
        self.number = 0
        self.parent = bytes(16)
        self.view = 0
        self.batch_size_limit = 0
        self.connection = None
        self.connect()

    def connect(self):
        """Opens a new connection; the session, if any, stays."""
        self.close()
        self.connection = socket.create_connection(("127.0.0.1", self.port),
                                                   timeout=self.timeout_seconds)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self):
        """Closes the connection."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def register(self):
        """Registers the session."""
        message = self.next_message(OPERATION_REGISTER, bytes(256))
        header, body = self.exchange(message)
        self.adopt(header)
        (self.session,) = struct.unpack_from("<Q", header, 216)
        (self.batch_size_limit,) = struct.unpack_from("<I", body, 0)
        return self

    def next_message(self, operation, body):
        """The bytes of the next request. `adopt` the reply's header before the one after."""
        return request_frame(operation, body, client=self.client, session=self.session,
                             number=self.number, parent=self.parent, release=self.release,
                             view=self.view)

    def adopt(self, header):
        """Takes over what the next request needs from a reply."""
        (view,) = struct.unpack_from("<I", header, 104)
        if view < self.view:
            raise ProtocolError(f"the view went back from {self.view} to {view}")
        self.view = view
        self.parent = header[160:176]
        self.number += 1

    def exchange(self, message):
        """Sends a request and gives header and body of its reply."""
        self.connection.sendall(message)
        return self.receive(message)

    def receive(self, message):
        """The header and body of the reply to `message`; raises `Evicted` or `ConnectionError`."""
        while True:
            header, body = read_message(self.connection)
            command = header[114]
            if command == COMMAND_EVICTION:
                raise Evicted(header[255])
            if command != COMMAND_REPLY:
                continue
            if header[128:144] != message[0:16]:
                continue
            self.check_reply(header, message)
            return header, body

    def check_reply(self, header, message):
        """The rules whose breach would make an official client abort or hang."""
        op, commit, timestamp = struct.unpack_from("<QQQ", header, 208)
        checks = (
            (header[108:112] == message[108:112], "release differs from the request's"),
            (header[192:208] == message[160:176], "client differs from the request's"),
            (header[232:237] == message[192:197], "request or operation differ"),
            (op == commit and op > 0, f"op {op}, commit {commit}"),
            (timestamp > 0, "timestamp is zero"),
            (not any(header[144:160] + header[176:192] + header[237:256]), "reserved bytes set"),
            (not any(header[16:32] + header[48:80] + header[116:128]), "frame bytes set"),
            (header[112:114] == bytes(2) and header[100:104] == bytes(4), "protocol or epoch"),
        )
        for holds, message_text in checks:
            if not holds:
                raise ProtocolError(f"reply: {message_text}")
        zeroed = bytearray(header)
        zeroed[160:176] = bytes(16)
        if checksum(zeroed[16:]) != header[160:176]:
            raise ProtocolError("reply: the context is not the checksum of the header without it")

    def request(self, operation, body):
        """Sends the next request and gives the body of the reply."""
        header, reply = self.exchange(self.next_message(operation, body))
        self.adopt(header)
        return reply

    def call(self, operation, events):
        """One batch of a multi-batch operation: events and results as bytes."""
        body = encode_batches(EVENT_SIZE[operation], [events])
        batches = decode_batches(RESULT_SIZE[operation], self.request(operation, body))
        if len(batches) != 1:
            raise ProtocolError(f"expected one batch, got {len(batches)}")
        return batches[0]

    def create(self, operation, events):
        """Creates records, given as a list, and gives (status, timestamp) of each."""
        return results(self.call(operation, b"".join(events)))

    def create_all(self, operation, events):
        """Creates records of which each must succeed."""
        statuses = self.create(operation, events)
        if len(statuses) != len(events) or any(status != CREATED for status, _ in statuses):
            raise ProtocolError(f"not all records were created: {statuses!r:.300}")
        return statuses
