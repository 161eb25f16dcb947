//! From a stream of bytes to frames, for one connection.
//!
//! Bytes arrive in a small buffer that belongs to the connection for good. A frame that fits it is
//! completed and checked there, and only then copied into a message of the common pool. For a
//! larger
//! one a message is taken as soon as its header is complete and valid, and the rest arrives there
//! directly. So neither an idle connection nor garbage takes a message from others. The checks and
//! their order are those every receiver of this protocol makes: checksum of the header, command,
//! size, cluster, checksum of the body; whatever fails ends the connection. A frame of a command
//! that
//! exists and is not for us is skipped. Not covered: the rules of each command, sockets.

use std::fmt;

use zerocopy::FromBytes;

use super::ring::Part;
use crate::protocol::{Buffer, Command, HEADER_SIZE, Header, MESSAGE_SIZE_MAX, Message, Pool};
use crate::protocol::{to_index, to_size};

/// Commands from this one on exist nowhere.
const COMMAND_UNKNOWN_MIN: u8 = 28;
/// After a large frame another is expected, and only so much is received on the side.
const RECEIVE_LENGTH_LARGE: u32 = 4096;
/// A large frame is received in portions of this size, to see that there is progress.
const PORTION_LENGTH: u32 = 256 * 1024;

/// Why the bytes of a peer are not followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The header is not as it was sealed.
    HeaderChecksum,
    /// No such command.
    Command(u8),
    /// The size is below that of a header or above the maximum.
    Size(u32),
    /// The peer belongs to this other cluster.
    Cluster(u128),
    /// The body is not as it was sealed.
    BodyChecksum,
    /// It is called a hello, and breaks the rules of one.
    Hello,
}

impl fmt::Display for FrameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::HeaderChecksum => write!(formatter, "a header with a wrong checksum"),
            FrameError::Command(command) => write!(formatter, "the unknown command {command}"),
            FrameError::Size(size) => write!(formatter, "a frame of impossible size {size}"),
            FrameError::Cluster(cluster) => {
                write!(formatter, "a frame for the other cluster {cluster}")
            }
            FrameError::BodyChecksum => write!(formatter, "a body with a wrong checksum"),
            FrameError::Hello => write!(formatter, "a hello that is not valid"),
        }
    }
}

impl std::error::Error for FrameError {}

/// What all connections have in common.
#[derive(Debug)]
pub struct Rules {
    /// Our cluster.
    pub cluster: u128,
    /// Where messages come from; its size bounds a frame.
    pub pool: Pool,
}

/// What one receiver may take from the common pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// So many messages are left to others.
    pub reserve: u32,
    /// It may take a message for a frame that is yet to arrive.
    pub large: bool,
}

impl Rules {
    /// A message, unless others need the last ones.
    fn acquire(&self, reserve: u32) -> Option<Buffer> {
        if self.has_buffer(reserve) { self.pool.try_acquire() } else { None }
    }

    /// Whether a message can be taken now if so many are left to others.
    #[must_use]
    pub fn has_buffer(&self, reserve: u32) -> bool {
        self.pool.available() > reserve
    }

    /// Judges a header.
    fn check(&self, header: &Header) -> Result<(), FrameError> {
        if !header.valid_checksum() {
            return Err(FrameError::HeaderChecksum);
        }
        let frame = &header.frame;
        if frame.command >= COMMAND_UNKNOWN_MIN {
            return Err(FrameError::Command(frame.command));
        }
        let size_max = MESSAGE_SIZE_MAX.min(self.pool.size());
        if frame.size < HEADER_SIZE || frame.size > size_max {
            return Err(FrameError::Size(frame.size));
        }
        if frame.cluster != self.cluster {
            return Err(FrameError::Cluster(frame.cluster));
        }
        Ok(())
    }
}

/// What a receiver can do next.
#[derive(Debug)]
pub enum Step {
    /// A frame is complete.
    Message(Message),
    /// More bytes are needed: see [`Receiver::take_target`].
    NeedBytes,
    /// A message of the pool is needed and none is to be had: try again later.
    NeedBuffer {
        /// It is for a frame that would arrive directly in it.
        large: bool,
    },
    /// The stream cannot be followed any further.
    Broken(FrameError),
}

/// A frame that arrives directly in its message.
#[derive(Debug)]
struct Partial {
    /// Given away while receiving.
    buffer: Option<Buffer>,
    filled: u32,
    size: u32,
}

/// The receiving half of a connection.
#[derive(Debug)]
pub struct Receiver {
    /// The small buffer; given away while receiving.
    small: Option<Buffer>,
    small_size: u32,
    /// Unread bytes in the small buffer.
    start: u32,
    end: u32,
    partial: Option<Partial>,
    /// The last frame was large.
    large: bool,
}

impl Receiver {
    /// A receiver with `small` as its own buffer.
    ///
    /// # Panics
    ///
    /// If the buffer cannot hold 4096 bytes.
    #[must_use]
    pub fn new(small: Buffer) -> Receiver {
        let small_size = small.size();
        assert!(small_size >= RECEIVE_LENGTH_LARGE);
        let small = Some(small);
        Receiver { small, small_size, start: 0, end: 0, partial: None, large: false }
    }

    /// Forgets everything received, for the next connection.
    ///
    /// # Panics
    ///
    /// If a buffer is given away.
    pub fn reset(&mut self) {
        assert!(self.small.is_some());
        self.start = 0;
        self.end = 0;
        self.partial = None;
        self.large = false;
    }

    /// Whether the beginning of a frame is here and its end is not.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.partial.is_some() || self.start < self.end
    }

    /// Whether a message of the pool is held for a frame that is not complete.
    #[must_use]
    pub fn holds_buffer(&self) -> bool {
        self.partial.is_some()
    }

    /// Looks at what has been received.
    ///
    /// # Panics
    ///
    /// If a buffer is given away.
    pub fn next(&mut self, rules: &Rules, allowance: Allowance) -> Step {
        loop {
            if self.partial.is_some() {
                match self.advance_partial() {
                    None => return Step::NeedBytes,
                    Some(message) => match Receiver::finish(message) {
                        Ok(None) => continue,
                        Ok(Some(message)) => return Step::Message(message),
                        Err(error) => return Step::Broken(error),
                    },
                }
            }
            let available = self.end - self.start;
            if available < HEADER_SIZE {
                return Step::NeedBytes;
            }
            let small = self.small.as_ref().expect("nothing is being received");
            let unread = &small.bytes()[to_index(self.start)..to_index(self.end)];
            let (header, _) =
                Header::read_from_prefix(unread).expect("there are enough bytes for a header");
            if let Err(error) = rules.check(&header) {
                return Step::Broken(error);
            }
            let size = header.frame.size;
            self.large = size > self.small_size;
            if self.large {
                let buffer = if allowance.large { rules.acquire(allowance.reserve) } else { None };
                let Some(buffer) = buffer else { return Step::NeedBuffer { large: true } };
                self.partial = Some(Partial { buffer: Some(buffer), filled: 0, size });
                continue;
            }
            if available < size {
                return Step::NeedBytes;
            }
            let frame = &unread[..to_index(size)];
            if !header.valid_checksum_body(&frame[to_index(HEADER_SIZE)..]) {
                return Step::Broken(FrameError::BodyChecksum);
            }
            if Command::try_from(header.frame.command).is_ok() {
                let Some(mut buffer) = rules.acquire(allowance.reserve) else {
                    return Step::NeedBuffer { large: false };
                };
                buffer.bytes_mut()[..frame.len()].copy_from_slice(frame);
                self.start += size;
                return Step::Message(Message(buffer));
            }
            self.start += size;
        }
    }

    /// Moves bytes from the small buffer to the large frame, and takes it if it is complete.
    fn advance_partial(&mut self) -> Option<Message> {
        let partial = self.partial.as_mut().expect("the caller saw it");
        let small = self.small.as_ref().expect("nothing is being received");
        let count = (self.end - self.start).min(partial.size - partial.filled);
        if count > 0 {
            let source = &small.bytes()[to_index(self.start)..to_index(self.start + count)];
            let buffer = partial.buffer.as_mut().expect("nothing is being received");
            let range = to_index(partial.filled)..to_index(partial.filled + count);
            buffer.bytes_mut()[range].copy_from_slice(source);
            self.start += count;
            partial.filled += count;
        }
        if partial.filled < partial.size {
            assert!(self.start == self.end);
            return None;
        }
        let partial = self.partial.take().expect("it was there a moment ago");
        Some(Message(partial.buffer.expect("nothing is being received")))
    }

    /// Judges a complete large frame; `None` if it is to be skipped.
    fn finish(message: Message) -> Result<Option<Message>, FrameError> {
        if !message.valid_checksum_body() {
            return Err(FrameError::BodyChecksum);
        }
        let known = Command::try_from(message.header().frame.command).is_ok();
        Ok(known.then_some(message))
    }

    /// Gives away the memory to receive into next, which part of it, and whether to wait until
    /// the part is full. Only after [`Step::NeedBytes`].
    ///
    /// # Panics
    ///
    /// If it is given away already.
    pub fn take_target(&mut self) -> (Buffer, Part, bool) {
        assert!(self.small.is_some());
        if let Some(partial) = &mut self.partial {
            let length = (partial.size - partial.filled).min(PORTION_LENGTH);
            let part = Part { offset: partial.filled, length };
            return (partial.buffer.take().expect("nothing is being received"), part, true);
        }
        let mut small = self.small.take().expect("asserted above");
        if self.start > 0 {
            small.bytes_mut().copy_within(to_index(self.start)..to_index(self.end), 0);
            self.end -= self.start;
            self.start = 0;
        }
        let mut length = self.small_size - self.end;
        if self.large {
            length = length.min(RECEIVE_LENGTH_LARGE);
        }
        (small, Part { offset: self.end, length }, false)
    }

    /// Takes the memory back, with `count` new bytes.
    ///
    /// # Panics
    ///
    /// If it was not given away, or more bytes came than there was room for.
    pub fn received(&mut self, buffer: Buffer, count: u32) {
        if let Some(partial) = &mut self.partial {
            assert!(partial.buffer.is_none());
            assert!(count <= partial.size - partial.filled);
            partial.filled += count;
            partial.buffer = Some(buffer);
            return;
        }
        assert!(self.small.is_none());
        assert!(count <= self.small_size - self.end);
        assert!(to_size(buffer.bytes().len()) == self.small_size);
        self.end += count;
        self.small = Some(buffer);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::protocol::checksum;

    pub(crate) const CLUSTER: u128 = 0x1234_5678_9abc_def0;

    /// A sealed frame of `size` bytes with a body of `fill`.
    pub(crate) fn frame(command: u8, cluster: u128, size: u32, fill: u8) -> Vec<u8> {
        let pool = Pool::new("test", 1, MESSAGE_SIZE_MAX);
        let mut message = Message::new(pool.acquire(), Command::Request);
        message.header_mut().frame.command = command;
        message.header_mut().frame.cluster = cluster;
        message.set_body_size(size - HEADER_SIZE);
        message.body_mut().fill(fill);
        message.set_checksums();
        message.bytes().to_vec()
    }

    /// Writes the header's checksum again after a change.
    pub(crate) fn reseal(frame: &mut [u8]) {
        let sum = checksum(&frame[16..256]);
        frame[..16].copy_from_slice(&sum.to_le_bytes());
    }

    const ANYTHING: Allowance = Allowance { reserve: 0, large: true };

    fn rules(count: u32) -> Rules {
        Rules { cluster: CLUSTER, pool: Pool::new("test", count, MESSAGE_SIZE_MAX) }
    }

    fn receiver(small_size: u32) -> Receiver {
        Receiver::new(Pool::new("small", 1, small_size).acquire())
    }

    /// Feeds `bytes` in pieces of at most `piece` and collects the frames.
    fn feed(
        receiver: &mut Receiver,
        rules: &Rules,
        bytes: &[u8],
        piece: usize,
    ) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut frames = Vec::new();
        let mut rest = bytes;
        loop {
            match receiver.next(rules, ANYTHING) {
                Step::Message(message) => frames.push(message.bytes().to_vec()),
                Step::NeedBuffer { .. } => panic!("the pool is large enough"),
                Step::Broken(error) => return Err(error),
                Step::NeedBytes if rest.is_empty() => return Ok(frames),
                Step::NeedBytes => {
                    let (mut buffer, part, _) = receiver.take_target();
                    let count = rest.len().min(piece).min(to_index(part.length));
                    let start = to_index(part.offset);
                    buffer.bytes_mut()[start..start + count].copy_from_slice(&rest[..count]);
                    receiver.received(buffer, to_size(count));
                    rest = &rest[count..];
                }
            }
        }
    }

    /// Goal: frames cut at every byte, joined in one piece or dripping byte by byte, are the same
    /// frames; small and large ones mixed.
    #[test]
    fn cut_anywhere() {
        let frames = [
            frame(5, CLUSTER, 256, 0),
            frame(3, CLUSTER, 513, 1),
            frame(5, CLUSTER, 5_000, 2),
            frame(5, CLUSTER, 257, 3),
        ];
        let bytes: Vec<u8> = frames.concat();
        let rules = rules(2);
        for piece in [1, 2, 3, 7, 255, 256, 257, 4_095, bytes.len()] {
            let mut receiver = receiver(4096);
            assert_eq!(feed(&mut receiver, &rules, &bytes, piece).unwrap(), frames);
            assert!(!receiver.is_partial());
        }
        for cut in 0..bytes.len() {
            let mut receiver = receiver(4096);
            let mut found = feed(&mut receiver, &rules, &bytes[..cut], usize::MAX).unwrap();
            found.extend(feed(&mut receiver, &rules, &bytes[cut..], usize::MAX).unwrap());
            assert_eq!(found, frames, "cut at {cut}");
        }
        assert_eq!(rules.pool.available(), 2);
    }

    /// Goal: the largest frame passes, in one piece and in odd ones.
    #[test]
    fn largest() {
        let large = frame(5, CLUSTER, MESSAGE_SIZE_MAX, 9);
        let bytes = [large.clone(), large.clone()].concat();
        for piece in [100_003, usize::MAX] {
            let mut receiver = receiver(65_536);
            let found = feed(&mut receiver, &rules(1), &bytes, piece).unwrap();
            assert!(found == [large.clone(), large.clone()]);
        }
    }

    /// Goal: every single flipped bit of a small frame is noticed, wherever it lies.
    #[test]
    fn flipped_bits() {
        let good = frame(5, CLUSTER, 300, 7);
        let rules = rules(1);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = feed(&mut receiver(4096), &rules, &bad, usize::MAX).unwrap_err();
            let expected =
                if bit < 256 * 8 { FrameError::HeaderChecksum } else { FrameError::BodyChecksum };
            assert_eq!(error, expected, "bit {bit}");
        }
        assert_eq!(rules.pool.available(), 1);
    }

    /// Goal: a damaged body of a large frame ends the stream too, and its message is returned.
    #[test]
    fn damaged_large_body() {
        let mut bad = frame(5, CLUSTER, 9_000, 7);
        bad[8_999] ^= 1;
        let rules = rules(1);
        let error = feed(&mut receiver(4096), &rules, &bad, usize::MAX).unwrap_err();
        assert_eq!(error, FrameError::BodyChecksum);
        assert_eq!(rules.pool.available(), 1);
    }

    /// Goal: sealed headers with impossible commands, sizes and clusters are told apart, and
    /// judged before any body arrives.
    #[test]
    fn impossible_headers() {
        let rules = rules(1);
        let judge = |change: &dyn Fn(&mut [u8])| {
            let mut bytes = frame(5, CLUSTER, 256, 0);
            change(&mut bytes);
            reseal(&mut bytes);
            feed(&mut receiver(4096), &rules, &bytes, usize::MAX).map(|frames| frames.len())
        };
        let size = |value: u32| {
            judge(&|bytes: &mut [u8]| bytes[96..100].copy_from_slice(&value.to_le_bytes()))
        };
        assert_eq!(judge(&|_: &mut [u8]| {}), Ok(1));
        for command in [28, 29, 100, 255] {
            let result = judge(&|bytes: &mut [u8]| bytes[114] = command);
            assert_eq!(result, Err(FrameError::Command(command)));
        }
        for value in [0, 1, 255, MESSAGE_SIZE_MAX + 1, u32::MAX] {
            assert_eq!(size(value), Err(FrameError::Size(value)));
        }
        assert_eq!(size(257), Ok(0));
        assert_eq!(size(MESSAGE_SIZE_MAX), Ok(0));
        let result = judge(&|bytes: &mut [u8]| bytes[80] ^= 1);
        assert_eq!(result, Err(FrameError::Cluster(CLUSTER ^ 1)));
    }

    /// Goal: commands between replicas that are none of ours are skipped with their bodies, small
    /// and large, and what follows arrives.
    #[test]
    fn foreign_commands_are_skipped() {
        let ours = frame(5, CLUSTER, 300, 1);
        let parts =
            [frame(0, CLUSTER, 256, 0), frame(12, CLUSTER, 300, 2), frame(16, CLUSTER, 9_000, 3)];
        let bytes = [parts.concat(), ours.clone()].concat();
        let found = feed(&mut receiver(4096), &rules(1), &bytes, 1_000).unwrap();
        assert_eq!(found, [ours]);
    }

    /// Goal: without a message to be had the receiver waits and loses nothing; the reserve stays.
    #[test]
    fn waits_for_buffer() {
        let rules = rules(3);
        for size in [300, 9_000] {
            let bytes = frame(5, CLUSTER, size, 4);
            let mut receiver = receiver(4096);
            let held = rules.pool.acquire();
            assert!(rules.has_buffer(1) && !rules.has_buffer(2));
            let (mut buffer, part, _) = receiver.take_target();
            let count = bytes.len().min(to_index(part.length));
            buffer.bytes_mut()[..count].copy_from_slice(&bytes[..count]);
            receiver.received(buffer, to_size(count));
            let large = size > 4096;
            for _ in 0..2 {
                let step = receiver.next(&rules, Allowance { reserve: 2, large: true });
                assert!(matches!(step, Step::NeedBuffer { large: found } if found == large));
            }
            assert!(receiver.is_partial());
            assert!(!receiver.holds_buffer());
            drop(held);
            if large {
                let step = receiver.next(&rules, Allowance { reserve: 2, large: false });
                assert!(matches!(step, Step::NeedBuffer { large: true }));
            }
            let found = feed(&mut receiver, &rules, &bytes[count..], 999).unwrap();
            assert_eq!(found, [bytes]);
        }
    }

    /// Goal: neither a half header, nor a half small frame, nor garbage takes a message; a large
    /// frame does with its header, and gives it back on reset.
    #[test]
    fn who_holds_a_buffer() {
        let rules = rules(1);
        let small = frame(5, CLUSTER, 4_000, 1);
        let large = frame(5, CLUSTER, 5_000, 1);
        let mut receiver = receiver(4096);
        for (bytes, holds) in
            [(&small[..255], false), (&small[..3_999], false), (&large[..256], true)]
        {
            assert!(feed(&mut receiver, &rules, bytes, 4096).unwrap().is_empty());
            assert!(receiver.is_partial());
            assert_eq!(receiver.holds_buffer(), holds);
            assert_eq!(rules.pool.available(), u32::from(!holds));
            receiver.reset();
            assert!(!receiver.is_partial());
            assert_eq!(rules.pool.available(), 1);
        }
    }

    /// Goal: garbage of any kind ends the stream with the first header.
    #[test]
    fn garbage() {
        let rules = rules(1);
        for fill in [0_u8, 1, 0xff] {
            let bytes = vec![fill; 1_000];
            let result = feed(&mut receiver(4096), &rules, &bytes, 100);
            assert_eq!(result, Err(FrameError::HeaderChecksum));
        }
    }
}
