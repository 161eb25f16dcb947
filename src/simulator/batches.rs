//! Multi-batch bodies, written plainly for the model and the workload.
//!
//! Deliberately apart from the code that the server uses: where the two meet in a test, each checks
//! the other. Bodies must be valid; a body that is not is a mistake of the test.

use crate::protocol::operation::Operation;

/// Sizes in bytes of one event and one result of an operation.
///
/// # Panics
///
/// If the operation is none of the state machine's that a client can send.
#[must_use]
pub fn event_and_result_size(operation: Operation) -> (usize, usize) {
    match operation {
        Operation::CreateAccounts | Operation::CreateTransfers => (128, 16),
        Operation::LookupAccounts | Operation::LookupTransfers => (16, 128),
        Operation::GetAccountTransfers | Operation::GetAccountBalances => (128, 128),
        Operation::QueryAccounts | Operation::QueryTransfers => (64, 128),
        Operation::GetChangeEvents => (64, 384),
        _ => panic!("a client cannot send {operation:?}"),
    }
}

/// Puts batches of whole elements into one body: the elements, padding, the batches' element
/// counts in reverse order, and the number of batches.
///
/// # Panics
///
/// If a batch is not of whole elements, or there are no batches or too many.
#[must_use]
pub fn encode_batches(element_size: usize, batches: &[Vec<u8>]) -> Vec<u8> {
    assert!(!batches.is_empty());
    assert!(batches.len() < usize::from(u16::MAX));
    let mut body: Vec<u8> = batches.concat();
    let trailer_size = (2 * batches.len() + 2).next_multiple_of(element_size);
    body.resize(body.len() + trailer_size - 2 * batches.len() - 2, 0xff);
    for batch in batches.iter().rev() {
        assert!(batch.len().is_multiple_of(element_size));
        let count = u16::try_from(batch.len() / element_size).expect("a count fits 16 bits");
        body.extend_from_slice(&count.to_le_bytes());
    }
    let count = u16::try_from(batches.len()).expect("a count fits 16 bits");
    body.extend_from_slice(&count.to_le_bytes());
    body
}

/// Takes a body apart into its batches; the inverse of [`encode_batches`].
///
/// # Panics
///
/// If the body is not a valid multi-batch body.
#[must_use]
pub fn decode_batches(element_size: usize, body: &[u8]) -> Vec<Vec<u8>> {
    let u16_from_end = |index: usize| {
        let at = body.len() - 2 * (index + 1);
        usize::from(u16::from_le_bytes([body[at], body[at + 1]]))
    };
    let batch_count = u16_from_end(0);
    assert!(batch_count != 0);
    assert!(batch_count != usize::from(u16::MAX));
    let trailer_size = (2 * batch_count + 2).next_multiple_of(element_size);
    let payload_size = body.len().checked_sub(trailer_size).expect("the trailer fits");
    let padding_size = trailer_size - 2 * batch_count - 2;
    assert!(body[payload_size..][..padding_size].iter().all(|&byte| byte == 0xff));
    let mut batches = Vec::new();
    let mut at = 0;
    for index in 0..batch_count {
        let size = u16_from_end(index + 1) * element_size;
        batches.push(body[at..at + size].to_vec());
        at += size;
    }
    assert_eq!(at, payload_size, "the counts cover the payload");
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the specification's example of lookups of 2, 0 and 1 ids, and of its reply.
    #[test]
    fn specified_examples() {
        let request = vec![vec![1; 32], Vec::new(), vec![2; 16]];
        let body = encode_batches(16, &request);
        assert_eq!(body.len(), 64);
        assert_eq!(body[48..], [255, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0, 2, 0, 3, 0]);
        assert_eq!(decode_batches(16, &body), request);

        let reply = vec![vec![1; 128], Vec::new(), vec![2; 128]];
        let body = encode_batches(128, &reply);
        assert_eq!(body.len(), 384);
        assert!(body[256..376].iter().all(|&byte| byte == 255));
        assert_eq!(body[376..], [1, 0, 0, 0, 1, 0, 3, 0]);
        assert_eq!(decode_batches(128, &body), reply);
    }

    /// Goal: one empty batch is a trailer alone, and a trailer grows when its counts need it.
    #[test]
    fn smallest_and_growing_trailers() {
        let body = encode_batches(16, &[Vec::new()]);
        assert_eq!(body, [[255; 12].as_slice(), &[0, 0, 1, 0]].concat());
        assert_eq!(encode_batches(16, &vec![Vec::new(); 7]).len(), 16);
        assert_eq!(encode_batches(16, &vec![Vec::new(); 8]).len(), 32);
        assert_eq!(encode_batches(128, &vec![Vec::new(); 63]).len(), 128);
        assert_eq!(encode_batches(128, &vec![Vec::new(); 64]).len(), 256);
    }
}
