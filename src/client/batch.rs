//! Bodies with one batch: how the client's calls look on the wire.
//!
//! A body is the batch's elements and a trailer of one element's size: filler, the number of
//! elements and the number of batches, which is one. Change events travel without a trailer.
//! Several batches in a body exist in the protocol, but not in this client.

use super::error::ServerError;
use crate::protocol::{Operation, to_index, to_size};

const FILLER: u8 = 0xff;
/// Number of elements and number of batches, 16 bits each.
const COUNTS_SIZE: u32 = 4;

/// Size of the trailer of a request's or reply's body with one batch of elements of this size.
///
/// # Panics
///
/// If the elements are smaller than the counts: there are no such.
#[must_use]
pub fn trailer_size(element_size: u32) -> u32 {
    assert!(element_size >= COUNTS_SIZE);
    element_size
}

/// Completes a request's body that starts with `count` events; returns its size in bytes.
///
/// # Panics
///
/// If the body or the count does not suit: the caller keeps to [`Operation::events_max`].
pub fn encode(operation: Operation, body: &mut [u8], count: u32) -> u32 {
    let event_size = operation.event_size();
    let payload_size = count * event_size;
    if !operation.is_multi_batch() {
        assert_eq!(count, 1, "such a body is one filter");
        return payload_size;
    }
    let size = payload_size + trailer_size(event_size);
    let count = u16::try_from(count).expect("a batch's size fits 16 bits");
    let trailer = &mut body[to_index(payload_size)..to_index(size)];
    let (filler, counts) = trailer.split_at_mut(to_index(event_size - COUNTS_SIZE));
    filler.fill(FILLER);
    counts[..2].copy_from_slice(&count.to_le_bytes());
    counts[2..].copy_from_slice(&1_u16.to_le_bytes());
    size
}

/// The results in the body of a reply to one batch.
///
/// # Errors
///
/// If the body is not the encoding of one batch of this operation's results.
pub fn decode(operation: Operation, body: &[u8]) -> Result<&[u8], ServerError> {
    let body_size = to_size(body.len());
    let error = ServerError::Body { body_size };
    let result_size = operation.result_size();
    if !operation.is_multi_batch() {
        return if body_size.is_multiple_of(result_size) { Ok(body) } else { Err(error) };
    }
    if body_size < trailer_size(result_size) || !body_size.is_multiple_of(result_size) {
        return Err(error);
    }
    let payload_size = body_size - trailer_size(result_size);
    let (payload, trailer) = body.split_at(to_index(payload_size));
    let (filler, counts) = trailer.split_at(to_index(result_size - COUNTS_SIZE));
    let count = u16::from_le_bytes([counts[0], counts[1]]);
    let batches = u16::from_le_bytes([counts[2], counts[3]]);
    let is_filler = filler.iter().all(|byte| *byte == FILLER);
    if batches != 1 || !is_filler || u32::from(count) * result_size != payload_size {
        return Err(error);
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/fixtures/wire/{name}.bin", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).unwrap()
    }

    /// Goal: encoding the events of captured requests gives the captured bodies.
    #[test]
    fn encodes_golden_requests() {
        let cases = [
            ("005-create_accounts-request", Operation::CreateAccounts, 3),
            ("009-create_transfers-request", Operation::CreateTransfers, 1),
            ("017-lookup_accounts-request", Operation::LookupAccounts, 0),
            ("025-get_account_transfers-request", Operation::GetAccountTransfers, 1),
            ("035-query_transfers-request", Operation::QueryTransfers, 1),
            ("045-get_change_events-request", Operation::GetChangeEvents, 1),
            ("060-max-create_accounts-request", Operation::CreateAccounts, 8189),
        ];
        for (name, operation, count) in cases {
            let frame = fixture(name);
            let body = &frame[256..];
            let trailer = if operation.is_multi_batch() { operation.event_size() } else { 0 };
            let payload = body.len() - to_index(trailer);
            let actual = to_size(payload) / operation.event_size();
            assert!(count == 0 || count == actual, "{name} has {actual} events");
            let mut copy = vec![0; body.len()];
            copy[..payload].copy_from_slice(&body[..payload]);
            assert_eq!(to_index(encode(operation, &mut copy, actual)), body.len(), "{name}");
            assert_eq!(copy, body, "{name}");
        }
    }

    /// Goal: the results of captured replies are found.
    #[test]
    fn decodes_golden_replies() {
        let cases = [
            ("006-create_accounts-reply", Operation::CreateAccounts, 3),
            ("010-create_transfers-reply", Operation::CreateTransfers, 1),
            ("061-max-create_accounts-reply", Operation::CreateAccounts, 8189),
            ("063-max-lookup_accounts-reply", Operation::LookupAccounts, 0),
        ];
        for (name, operation, count) in cases {
            let frame = fixture(name);
            let payload = decode(operation, &frame[256..]).unwrap();
            assert_eq!(to_size(payload.len()), count * operation.result_size(), "{name}");
        }
    }

    /// Goal: every way a body can be malformed is an error.
    #[test]
    fn refuses_malformed_replies() {
        let frame = fixture("006-create_accounts-reply");
        let body = &frame[256..];
        let check = |body: &[u8]| {
            let body_size = to_size(body.len());
            let result = decode(Operation::CreateAccounts, body);
            assert_eq!(result, Err(ServerError::Body { body_size }));
        };
        check(&[]);
        check(&body[..body.len() - 1]);
        check(&body[16..]);
        for index in body.len() - 16..body.len() {
            let mut copy = body.to_vec();
            copy[index] ^= 4;
            check(&copy);
        }
        assert!(decode(Operation::GetChangeEvents, &[0; 383]).is_err());
        assert_eq!(decode(Operation::GetChangeEvents, &[]), Ok(&[][..]));
    }
}
