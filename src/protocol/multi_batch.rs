//! Several batches of events, or of results, in one body.
//!
//! A body is the batches' elements one after the other and a trailer, which counts the elements of
//! each batch; a reader starts from the end. Covered: decoding in place with every reason to
//! refuse, and writing in place. Not covered: which counts an operation allows.

use super::{round_up, to_index, to_size};

/// Batches in one body at most.
pub const BATCH_COUNT_MAX: u32 = 65_534;

/// What fills the trailer up to a whole element.
const PADDING: u8 = 0xff;

/// Size in bytes of the trailer for so many batches of elements of so many bytes.
///
/// # Panics
///
/// If there are no batches or too many, or the elements have no size.
#[must_use]
pub const fn trailer_size(batch_count: u32, element_size: u32) -> u32 {
    assert!(batch_count > 0);
    assert!(batch_count <= BATCH_COUNT_MAX);
    round_up(2 * batch_count + 2, element_size)
}

/// Why a body does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultiBatchError {
    /// No room for the number of batches, in so many bytes.
    TooShort(u32),
    /// The length in bytes is odd.
    LengthOdd(u32),
    /// The number of batches is zero or above the maximum.
    BatchCount(u32),
    /// The trailer of so many bytes does not fit the body.
    TrailerTooLong(u32),
    /// The trailer is not padded as it must be.
    Padding,
    /// The batches together have so many elements, which is not what the body holds.
    ElementCount(u32),
}

/// A decoded body.
#[derive(Clone, Copy, Debug)]
pub struct MultiBatch<'a> {
    payload: &'a [u8],
    /// The u16 counts of the batches, the last batch first.
    counts: &'a [u8],
    element_size: u32,
}

impl<'a> MultiBatch<'a> {
    /// Decodes a body of elements of `element_size` bytes.
    ///
    /// # Errors
    ///
    /// The first thing found wrong.
    ///
    /// # Panics
    ///
    /// If `element_size` is zero or the body is longer than 4 GiB.
    pub fn decode(body: &'a [u8], element_size: u32) -> Result<MultiBatch<'a>, MultiBatchError> {
        assert!(element_size > 0);
        let length = to_size(body.len());
        if length < 2 {
            return Err(MultiBatchError::TooShort(length));
        }
        if !length.is_multiple_of(2) {
            return Err(MultiBatchError::LengthOdd(length));
        }
        let counts_end = body.len() - 2;
        let batch_count = u32::from(count_at(body, counts_end));
        if batch_count == 0 || batch_count > BATCH_COUNT_MAX {
            return Err(MultiBatchError::BatchCount(batch_count));
        }
        let trailer_size = trailer_size(batch_count, element_size);
        if trailer_size > length {
            return Err(MultiBatchError::TrailerTooLong(trailer_size));
        }
        let counts_start = counts_end - to_index(2 * batch_count);
        let payload_size = length - trailer_size;
        let (payload, trailer) = body.split_at(to_index(payload_size));
        let padding = &trailer[..counts_start - payload.len()];
        if padding.iter().any(|byte| *byte != PADDING) {
            return Err(MultiBatchError::Padding);
        }
        let counts = &body[counts_start..counts_end];
        // At most 65534 counts of at most 65535 each: the sum fits.
        let elements: u32 = (0..batch_count).map(|batch| element_count(counts, batch)).sum();
        if u64::from(elements) * u64::from(element_size) != u64::from(payload_size) {
            return Err(MultiBatchError::ElementCount(elements));
        }
        Ok(MultiBatch { payload, counts, element_size })
    }

    /// Batches in the body; at least one.
    #[must_use]
    pub fn batch_count(&self) -> u32 {
        to_size(self.counts.len() / 2)
    }

    /// Elements of all batches together.
    #[must_use]
    pub fn element_count(&self) -> u32 {
        to_size(self.payload.len()) / self.element_size
    }

    /// The batches' elements, in the order of the batches.
    #[must_use]
    pub fn iter(&self) -> MultiBatchIterator<'a> {
        MultiBatchIterator {
            rest: self.payload,
            counts: self.counts,
            element_size: self.element_size,
            batch: 0,
        }
    }
}

impl<'a> IntoIterator for &MultiBatch<'a> {
    type Item = &'a [u8];
    type IntoIter = MultiBatchIterator<'a>;

    fn into_iter(self) -> MultiBatchIterator<'a> {
        self.iter()
    }
}

fn count_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

/// The count of a batch in the counts, which are in reverse order.
fn element_count(counts: &[u8], batch: u32) -> u32 {
    u32::from(count_at(counts, counts.len() - to_index(2 * batch) - 2))
}

/// Goes through the batches of a body; each item is the batch's elements as bytes, maybe none.
#[derive(Clone, Debug)]
pub struct MultiBatchIterator<'a> {
    rest: &'a [u8],
    counts: &'a [u8],
    element_size: u32,
    batch: u32,
}

impl<'a> Iterator for MultiBatchIterator<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if to_index(2 * self.batch) == self.counts.len() {
            assert!(self.rest.is_empty(), "the counts add up to the payload");
            return None;
        }
        let size = element_count(self.counts, self.batch) * self.element_size;
        let (elements, rest) = self.rest.split_at(to_index(size));
        self.rest = rest;
        self.batch += 1;
        Some(elements)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.counts.len() / 2 - to_index(self.batch);
        (left, Some(left))
    }
}

impl ExactSizeIterator for MultiBatchIterator<'_> {}

/// Writes a body in place, batch by batch. The number of batches is known beforehand, so that room
/// for the trailer is kept from the start; counts wait at the end of the area until it is known
/// where the elements end.
#[derive(Debug)]
pub struct MultiBatchWriter<'a> {
    area: &'a mut [u8],
    element_size: u32,
    batch_count: u32,
    payload_size: u32,
    batches_written: u32,
}

impl<'a> MultiBatchWriter<'a> {
    /// Starts a body of `batch_count` batches in `area`, of which only the beginning may be used
    /// in the end.
    ///
    /// # Panics
    ///
    /// If the trailer alone does not fit, or the number of batches is out of range.
    #[must_use]
    pub fn new(area: &'a mut [u8], element_size: u32, batch_count: u32) -> MultiBatchWriter<'a> {
        let trailer_size = trailer_size(batch_count, element_size);
        assert!(to_index(trailer_size) <= area.len(), "no room for the trailer");
        MultiBatchWriter { area, element_size, batch_count, payload_size: 0, batches_written: 0 }
    }

    /// The room left for elements; the current batch is to be written to its start. The length is
    /// a whole number of elements.
    #[must_use]
    pub fn room(&mut self) -> &mut [u8] {
        let start = to_index(self.payload_size);
        let length = to_index(self.elements_left() * self.element_size);
        &mut self.area[start..start + length]
    }

    /// Elements for which there is room.
    #[must_use]
    pub fn elements_left(&self) -> u32 {
        let trailer_size = trailer_size(self.batch_count, self.element_size);
        (to_size(self.area.len()) - trailer_size - self.payload_size) / self.element_size
    }

    /// Ends the current batch, whose elements stand at the start of the room.
    ///
    /// # Panics
    ///
    /// If all batches are written already, or the elements exceed the room.
    pub fn end_batch(&mut self, element_count: u32) {
        assert!(self.batches_written < self.batch_count, "more batches than announced");
        assert!(element_count <= self.elements_left(), "more elements than room");
        let count = u16::try_from(element_count).expect("a batch has at most 65535 elements");
        self.payload_size += element_count * self.element_size;
        self.batches_written += 1;
        let offset = self.area.len() - 2 - to_index(2 * self.batches_written);
        self.area[offset..offset + 2].copy_from_slice(&count.to_le_bytes());
    }

    /// Writes a batch whose elements are elsewhere.
    ///
    /// # Panics
    ///
    /// As [`MultiBatchWriter::end_batch`], or if `elements` is no whole number of elements.
    pub fn write_batch(&mut self, elements: &[u8]) {
        let size = to_size(elements.len());
        assert!(size.is_multiple_of(self.element_size));
        assert!(size / self.element_size <= self.elements_left(), "more elements than room");
        self.room()[..elements.len()].copy_from_slice(elements);
        self.end_batch(size / self.element_size);
    }

    /// Writes the trailer behind the elements and returns the size of the body in bytes.
    ///
    /// # Panics
    ///
    /// If batches are missing.
    #[must_use]
    pub fn finish(self) -> u32 {
        assert!(self.batches_written == self.batch_count, "fewer batches than announced");
        let trailer_size = trailer_size(self.batch_count, self.element_size);
        let count = u16::try_from(self.batch_count).expect("checked when the writer was made");
        let end = self.area.len();
        self.area[end - 2..].copy_from_slice(&count.to_le_bytes());
        let start = end - to_index(trailer_size);
        let counts_start = end - to_index(2 * self.batch_count + 2);
        self.area[start..counts_start].fill(PADDING);
        self.area.copy_within(start..end, to_index(self.payload_size));
        self.payload_size + trailer_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(element_size: u32, batches: &[&[u8]], area_size: usize) -> Vec<u8> {
        let mut area = vec![0xaa; area_size];
        let mut writer = MultiBatchWriter::new(&mut area, element_size, to_size(batches.len()));
        for batch in batches {
            writer.write_batch(batch);
        }
        let size = writer.finish();
        area.truncate(to_index(size));
        area
    }

    fn decode(body: &[u8], element_size: u32) -> Vec<&[u8]> {
        let decoded = MultiBatch::decode(body, element_size).unwrap();
        let batches: Vec<&[u8]> = decoded.iter().collect();
        assert_eq!(to_size(batches.len()), decoded.batch_count());
        assert_eq!(decoded.iter().len(), batches.len());
        let bytes: usize = batches.iter().map(|batch| batch.len()).sum();
        assert_eq!(to_size(bytes), decoded.element_count() * element_size);
        batches
    }

    fn error(body: &[u8], element_size: u32) -> MultiBatchError {
        MultiBatch::decode(body, element_size).unwrap_err()
    }

    /// Goal: the worked example of a lookup with batches of 2, 0 and 1 ids, both ways.
    #[test]
    fn lookup_request() {
        let ids: Vec<u8> = (0..48).collect();
        let batches: [&[u8]; 3] = [&ids[..32], &[], &ids[32..]];
        let mut expected = ids.clone();
        expected.extend([0xff; 8]);
        expected.extend([1, 0, 0, 0, 2, 0, 3, 0]);
        assert_eq!(encode(16, &batches, 4096), expected);
        assert_eq!(decode(&expected, 16), batches);
    }

    /// Goal: the worked example of that lookup's reply, with one account each in two batches.
    #[test]
    fn lookup_reply() {
        let accounts = [7_u8; 256];
        let batches: [&[u8]; 3] = [&accounts[..128], &[], &accounts[128..]];
        let mut expected = accounts.to_vec();
        expected.extend([0xff; 120]);
        expected.extend([1, 0, 0, 0, 1, 0, 3, 0]);
        assert_eq!(expected.len(), 384);
        assert_eq!(encode(128, &batches, 4096), expected);
        assert_eq!(decode(&expected, 128), batches);
    }

    /// Goal: the worked example of a create with no events, and its reply.
    #[test]
    fn empty_create() {
        let mut request = vec![0xff; 124];
        request.extend([0, 0, 1, 0]);
        assert_eq!(encode(128, &[&[]], 4096), request);
        assert_eq!(decode(&request, 128), [&[] as &[u8]]);
        let mut reply = vec![0xff; 12];
        reply.extend([0, 0, 1, 0]);
        assert_eq!(encode(16, &[&[]], 4096), reply);
    }

    /// Goal: the trailer grows by whole elements: 63 batches fit 128 bytes, 7 fit 16.
    #[test]
    fn trailer_sizes() {
        assert_eq!(trailer_size(63, 128), 128);
        assert_eq!(trailer_size(64, 128), 256);
        assert_eq!(trailer_size(7, 16), 16);
        assert_eq!(trailer_size(8, 16), 32);
        assert_eq!(trailer_size(BATCH_COUNT_MAX, 16), 131_072);
    }

    /// Goal: a full create request is exactly a full body, from an area of exactly that size.
    #[test]
    fn full_body() {
        let events = vec![3; 8189 * 128];
        let body = encode(128, &[&events], 1_048_320);
        assert_eq!(body.len(), 1_048_320);
        assert_eq!(decode(&body, 128), [&events[..]]);
    }

    /// Goal: the most batches there can be, all empty, both ways.
    #[test]
    fn most_batches() {
        let batches: Vec<&[u8]> = vec![&[]; to_index(BATCH_COUNT_MAX)];
        let body = encode(16, &batches, 1_048_320);
        assert_eq!(body.len(), 131_072);
        assert_eq!(decode(&body, 16), batches);
    }

    /// Goal: many shapes survive encoding and decoding, whatever the spare area.
    #[test]
    fn round_trips() {
        let data: Vec<u8> = (0..=255).cycle().take(64 * 40).collect();
        for element_size in [8_u32, 16, 64] {
            for batch_count in 1..40_u32 {
                let count = |batch: u32| (batch * 7 + batch_count) % 5;
                let batches: Vec<&[u8]> = (0..batch_count)
                    .map(|batch| &data[..to_index(count(batch) * element_size)])
                    .collect();
                let body = encode(element_size, &batches, 20_000);
                assert_eq!(body.len() % to_index(element_size), 0);
                assert_eq!(decode(&body, element_size), batches);
                let exact = encode(element_size, &batches, body.len());
                assert_eq!(exact, body);
            }
        }
    }

    /// Goal: elements written into the room in place end up in the body, and the room shrinks.
    #[test]
    fn in_place() {
        let mut area = [0; 16 * 4];
        let mut writer = MultiBatchWriter::new(&mut area, 16, 2);
        assert_eq!(writer.elements_left(), 3);
        assert_eq!(writer.room().len(), 48);
        writer.room()[..16].fill(1);
        writer.end_batch(1);
        assert_eq!(writer.elements_left(), 2);
        writer.room()[..32].fill(2);
        writer.end_batch(2);
        assert_eq!(writer.elements_left(), 0);
        assert!(writer.room().is_empty());
        assert_eq!(writer.finish(), 64);
        assert_eq!(decode(&area, 16), [&[1_u8; 16] as &[u8], &[2; 32]]);
    }

    /// Goal: each reason to refuse a body is found and named.
    #[test]
    fn refusals() {
        assert_eq!(error(&[], 16), MultiBatchError::TooShort(0));
        assert_eq!(error(&[1], 16), MultiBatchError::TooShort(1));
        assert_eq!(error(&[0xff; 17], 16), MultiBatchError::LengthOdd(17));
        assert_eq!(error(&[0xff; 16], 16), MultiBatchError::BatchCount(65_535));
        assert_eq!(error(&[0; 16], 16), MultiBatchError::BatchCount(0));
        assert_eq!(error(&[1, 0], 16), MultiBatchError::TrailerTooLong(16));
        let mut body = encode(16, &[&[5; 32]], 4096);
        let last = body.len() - 2;
        body[last] = 8;
        assert_eq!(error(&body[32..], 16), MultiBatchError::TrailerTooLong(32));
        let empty_batches: Vec<&[u8]> = vec![&[]; 8];
        let body = encode(16, &empty_batches, 4096);
        assert_eq!(error(&body[2..], 16), MultiBatchError::TrailerTooLong(32));
    }

    /// Goal: every padding byte must have its value.
    #[test]
    fn refused_padding() {
        let body = encode(128, &[&[5; 128]], 4096);
        for index in 128..252 {
            let mut broken = body.clone();
            broken[index] = 0xfe;
            assert_eq!(error(&broken, 128), MultiBatchError::Padding, "byte {index}");
        }
    }

    /// Goal: counts that do not add up to the payload are refused, also when they are huge.
    #[test]
    fn refused_counts() {
        let body = encode(16, &[&[5; 32], &[6; 16]], 4096);
        let offset = body.len() - 4;
        for count in [0_u16, 1, 3, u16::MAX] {
            let mut broken = body.clone();
            broken[offset..offset + 2].copy_from_slice(&count.to_le_bytes());
            let elements = u32::from(count) + 1;
            assert_eq!(error(&broken, 16), MultiBatchError::ElementCount(elements));
        }
        let mut longer = vec![0; 16];
        longer.extend(&body);
        assert_eq!(error(&longer, 16), MultiBatchError::ElementCount(3));
        let mut uneven = vec![0; 8];
        uneven.extend(&body);
        assert_eq!(error(&uneven, 16), MultiBatchError::ElementCount(3));
        let mut huge = vec![0xff; 131_072];
        let end = huge.len();
        huge[end - 2..].copy_from_slice(&65_534_u16.to_le_bytes());
        assert_eq!(error(&huge, 16), MultiBatchError::ElementCount(65_534 * 65_535));
    }

    /// Goal: a writer that is used wrongly is a broken invariant.
    #[test]
    #[should_panic(expected = "fewer batches than announced")]
    fn missing_batch() {
        let mut area = [0; 64];
        let mut writer = MultiBatchWriter::new(&mut area, 16, 2);
        writer.end_batch(0);
        let _ = writer.finish();
    }

    /// Goal: more batches than announced would overwrite the trailer's room.
    #[test]
    #[should_panic(expected = "more batches than announced")]
    fn surplus_batch() {
        let mut area = [0; 64];
        let mut writer = MultiBatchWriter::new(&mut area, 16, 1);
        writer.end_batch(0);
        writer.end_batch(0);
    }

    /// Goal: more elements than the room would overwrite the counts.
    #[test]
    #[should_panic(expected = "more elements than room")]
    fn surplus_elements() {
        let mut area = [0; 64];
        let mut writer = MultiBatchWriter::new(&mut area, 16, 1);
        writer.write_batch(&[0; 64]);
    }

    /// Goal: an area without room for the trailer is refused at once.
    #[test]
    #[should_panic(expected = "no room for the trailer")]
    fn area_too_small() {
        let mut area = [0; 15];
        let _ = MultiBatchWriter::new(&mut area, 16, 1);
    }
}
