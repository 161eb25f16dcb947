"""Records of the wire as dictionaries, and requests of raw bytes through the official library.

The official Python client has no call for change events and checks the values of fields; both are
needed here.
"""

import ctypes

import tigerbeetle as tb

from .checks import equal, require

RECORD_FIELDS = {
    "account": "id:16 debits_pending:16 debits_posted:16 credits_pending:16 credits_posted:16 "
               "user_data_128:16 user_data_64:8 user_data_32:4 reserved:4 ledger:4 code:2 flags:2 "
               "timestamp:8",
    "transfer": "id:16 debit_account_id:16 credit_account_id:16 amount:16 pending_id:16 "
                "user_data_128:16 user_data_64:8 user_data_32:4 timeout:4 ledger:4 code:2 flags:2 "
                "timestamp:8",
    "account_filter": "account_id:16 user_data_128:16 user_data_64:8 user_data_32:4 code:2 "
                      "reserved:58 timestamp_min:8 timestamp_max:8 limit:4 flags:4",
    "change_events_filter": "timestamp_min:8 timestamp_max:8 limit:4 reserved:44",
    "balance": "debits_pending:16 debits_posted:16 credits_pending:16 credits_posted:16 "
               "timestamp:8 reserved:56",
    "change_event": "transfer_id:16 transfer_amount:16 transfer_pending_id:16 "
                    "transfer_user_data_128:16 transfer_user_data_64:8 transfer_user_data_32:4 "
                    "transfer_timeout:4 transfer_code:2 transfer_flags:2 ledger:4 type:1 "
                    "reserved:39 debit_account_id:16 debit_account_debits_pending:16 "
                    "debit_account_debits_posted:16 debit_account_credits_pending:16 "
                    "debit_account_credits_posted:16 debit_account_user_data_128:16 "
                    "debit_account_user_data_64:8 debit_account_user_data_32:4 "
                    "debit_account_code:2 debit_account_flags:2 credit_account_id:16 "
                    "credit_account_debits_pending:16 credit_account_debits_posted:16 "
                    "credit_account_credits_pending:16 credit_account_credits_posted:16 "
                    "credit_account_user_data_128:16 credit_account_user_data_64:8 "
                    "credit_account_user_data_32:4 credit_account_code:2 credit_account_flags:2 "
                    "timestamp:8 transfer_timestamp:8 debit_account_timestamp:8 "
                    "credit_account_timestamp:8",
}


def layout(kind):
    """Fields of a record: (name, offset, size)."""
    fields, offset = [], 0
    for field in RECORD_FIELDS[kind].split():
        name, size = field.split(":")
        fields.append((name, offset, int(size)))
        offset += int(size)
    return fields, offset


def pack(kind, values):
    """A record as bytes."""
    fields, size = layout(kind)
    known = {name for name, _, _ in fields}
    require(set(values) <= known, f"fields {set(values) - known} do not exist")
    record = b"".join(values.get(name, 0).to_bytes(width, "little") for name, _, width in fields)
    assert len(record) == size, "the layout is without gaps"
    return record


def unpack(kind, record):
    """A record as a dictionary."""
    fields, size = layout(kind)
    equal(len(record), size, f"size of a {kind}")
    return {name: int.from_bytes(record[offset:offset + width], "little")
            for name, offset, width in fields}


def bytes_type(size):
    """A type of `size` bytes that the Python client takes for events and gives for results."""

    class Bytes(ctypes.Structure):
        """A record as plain bytes."""

        _fields_ = [("words", ctypes.c_uint64 * (size // 8))]

        @classmethod
        def from_param(cls, record):
            """What the client calls to encode an event."""
            return cls.from_buffer_copy(record)

        def to_python(self):
            """What the client calls to decode a result."""
            return bytes(self)

    return Bytes


BYTES = {size: bytes_type(size) for size in (16, 64, 128, 384)}


def submit(client, operation, events, event_size, result_size):
    """Sends events as bytes through the official library; gives results as bytes."""
    number = tb.Operation(operation)
    return client._submit(number, events, BYTES[event_size], BYTES[result_size])  # noqa: SLF001
