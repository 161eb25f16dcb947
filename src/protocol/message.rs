//! A frame in memory: a buffer with a header at its start and a body behind it.

use super::buffer::Buffer;
use super::command::Command;
use super::header::{
    EvictionHeader, HEADER_SIZE, Header, PingClientHeader, PongClientHeader, ReplyHeader,
    RequestHeader,
};
use super::peer::PeerHeader;
use super::prepare::PrepareHeader;
use super::to_index;

/// A frame in a buffer. Cloning makes another reference to the same memory.
#[derive(Clone, Debug)]
pub struct Message(pub Buffer);

impl Message {
    /// A frame of the given command in `buffer`, without a body, all other fields zero.
    ///
    /// # Panics
    ///
    /// If the buffer has other references or is smaller than a header.
    #[must_use]
    pub fn new(buffer: Buffer, command: Command) -> Message {
        let mut message = Message(buffer);
        *message.header_mut() = Header::new(command);
        message
    }

    /// The header, whatever its command.
    #[must_use]
    pub fn header(&self) -> &Header {
        Header::from_bytes(self.0.bytes())
    }

    /// The header, for writing.
    ///
    /// # Panics
    ///
    /// If the buffer has other references.
    #[must_use]
    pub fn header_mut(&mut self) -> &mut Header {
        Header::from_bytes_mut(self.0.bytes_mut())
    }

    /// Size of header and body in bytes, as the header says.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.header().frame.size
    }

    /// Header and body: what travels.
    ///
    /// # Panics
    ///
    /// If the header's size exceeds the buffer.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes()[..to_index(self.size())]
    }

    /// The body.
    ///
    /// # Panics
    ///
    /// If the header's size exceeds the buffer or is below that of a header.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.bytes()[to_index(HEADER_SIZE)..]
    }

    /// The body, for writing.
    ///
    /// # Panics
    ///
    /// As [`Message::body`], or if the buffer has other references.
    #[must_use]
    pub fn body_mut(&mut self) -> &mut [u8] {
        let size = to_index(self.size());
        &mut self.0.bytes_mut()[to_index(HEADER_SIZE)..size]
    }

    /// Everything behind the header to the end of the buffer, for writing a body whose size is
    /// not known yet.
    ///
    /// # Panics
    ///
    /// If the buffer has other references.
    #[must_use]
    pub fn body_area_mut(&mut self) -> &mut [u8] {
        &mut self.0.bytes_mut()[to_index(HEADER_SIZE)..]
    }

    /// Largest body the buffer can hold, in bytes.
    #[must_use]
    pub fn body_size_max(&self) -> u32 {
        self.0.size() - HEADER_SIZE
    }

    /// Declares the size of the body.
    ///
    /// # Panics
    ///
    /// If it exceeds the buffer, or the buffer has other references.
    pub fn set_body_size(&mut self, body_size: u32) {
        assert!(body_size <= self.body_size_max());
        self.header_mut().frame.size = HEADER_SIZE + body_size;
    }

    /// Writes the body's checksum and the header's.
    ///
    /// # Panics
    ///
    /// If the buffer has other references.
    pub fn set_checksums(&mut self) {
        let size = to_index(self.size());
        let (header, body) = self.0.bytes_mut()[..size].split_at_mut(to_index(HEADER_SIZE));
        Header::from_bytes_mut(header).set_checksums(body);
    }

    /// Writes all three checksums of a reply: body, context and header.
    ///
    /// # Panics
    ///
    /// If it is no reply, or the buffer has other references.
    pub fn seal_reply(&mut self) {
        let size = to_index(self.size());
        let (header, body) = self.0.bytes_mut()[..size].split_at_mut(to_index(HEADER_SIZE));
        Header::from_bytes_mut(header).reply_mut().seal(body);
    }

    /// Whether the body is as it was sealed.
    #[must_use]
    pub fn valid_checksum_body(&self) -> bool {
        self.header().valid_checksum_body(self.body())
    }

    /// The header of a ping.
    #[must_use]
    pub fn ping_client(&self) -> &PingClientHeader {
        self.header().ping_client()
    }

    /// The header of a pong.
    #[must_use]
    pub fn pong_client(&self) -> &PongClientHeader {
        self.header().pong_client()
    }

    /// The header of a request.
    #[must_use]
    pub fn request(&self) -> &RequestHeader {
        self.header().request()
    }

    /// The header of a prepare.
    #[must_use]
    pub fn prepare(&self) -> &PrepareHeader {
        self.header().prepare()
    }

    /// The header of a reply.
    #[must_use]
    pub fn reply(&self) -> &ReplyHeader {
        self.header().reply()
    }

    /// The header of an eviction.
    #[must_use]
    pub fn eviction(&self) -> &EvictionHeader {
        self.header().eviction()
    }

    /// The header of a control message between replicas.
    #[must_use]
    pub fn peer(&self) -> &PeerHeader {
        self.header().peer()
    }

    /// The header of a control message between replicas, for writing.
    #[must_use]
    pub fn peer_mut(&mut self) -> &mut PeerHeader {
        self.header_mut().peer_mut()
    }

    /// The header of a ping, for writing.
    #[must_use]
    pub fn ping_client_mut(&mut self) -> &mut PingClientHeader {
        self.header_mut().ping_client_mut()
    }

    /// The header of a pong, for writing.
    #[must_use]
    pub fn pong_client_mut(&mut self) -> &mut PongClientHeader {
        self.header_mut().pong_client_mut()
    }

    /// The header of a request, for writing.
    #[must_use]
    pub fn request_mut(&mut self) -> &mut RequestHeader {
        self.header_mut().request_mut()
    }

    /// The header of a prepare, for writing.
    #[must_use]
    pub fn prepare_mut(&mut self) -> &mut PrepareHeader {
        self.header_mut().prepare_mut()
    }

    /// The header of a reply, for writing.
    #[must_use]
    pub fn reply_mut(&mut self) -> &mut ReplyHeader {
        self.header_mut().reply_mut()
    }

    /// The header of an eviction, for writing.
    #[must_use]
    pub fn eviction_mut(&mut self) -> &mut EvictionHeader {
        self.header_mut().eviction_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Pool;
    use crate::protocol::header::HeaderError;

    fn message(command: Command) -> Message {
        let pool = Pool::new("test", 1, 4096);
        let mut buffer = pool.acquire();
        buffer.bytes_mut().fill(0xee);
        Message::new(buffer, command)
    }

    /// Goal: a new frame has a zero header but for command and size, and no body.
    #[test]
    fn new_frame() {
        let message = message(Command::Reply);
        assert_eq!(message.size(), 256);
        assert_eq!(message.bytes().len(), 256);
        assert!(message.body().is_empty());
        assert_eq!(message.body_size_max(), 4096 - 256);
        assert_eq!(*message.header(), Header::new(Command::Reply));
    }

    /// Goal: sealing covers exactly header and body, and a change in either is noticed.
    #[test]
    fn sealing() {
        let mut message = message(Command::Request);
        message.set_body_size(32);
        message.body_mut().fill(7);
        message.set_checksums();
        assert!(message.header().valid_checksum());
        assert!(message.valid_checksum_body());
        message.0.bytes_mut()[256 + 32] ^= 1;
        assert!(message.valid_checksum_body());
        message.body_mut()[31] ^= 1;
        assert!(!message.valid_checksum_body());
        message.header_mut().frame.view += 1;
        assert!(!message.header().valid_checksum());
    }

    /// Goal: a sealed reply has its context, which does not depend on an earlier context.
    #[test]
    fn sealing_a_reply() {
        let mut message = message(Command::Reply);
        message.reply_mut().op = 3;
        message.set_body_size(16);
        message.body_area_mut()[..16].fill(1);
        message.seal_reply();
        let first = *message.reply();
        assert_eq!(first.context, first.compute_context());
        assert!(message.header().valid_checksum());
        assert!(message.valid_checksum_body());
        message.seal_reply();
        assert_eq!(*message.reply(), first);
    }

    /// Goal: a body larger than the buffer is a broken invariant.
    #[test]
    #[should_panic(expected = "body_size <= self.body_size_max()")]
    fn oversized_body() {
        message(Command::Reply).set_body_size(4096 - 255);
    }

    /// Goal: looking at a frame as another command is a broken invariant.
    #[test]
    #[should_panic(expected = "self.frame.command")]
    fn wrong_command() {
        let message = message(Command::Reply);
        let _ = message.request();
    }

    /// Goal: every accessor for writing shows in the one for reading.
    #[test]
    fn accessors() {
        let mut ping_frame = message(Command::PingClient);
        ping_frame.ping_client_mut().client = 1;
        assert_eq!(ping_frame.ping_client().client, 1);
        let mut answer = message(Command::PongClient);
        answer.pong_client_mut().ping_timestamp_monotonic = 2;
        assert_eq!(answer.pong_client().ping_timestamp_monotonic, 2);
        let mut request = message(Command::Request);
        request.request_mut().request = 3;
        assert_eq!(request.request().request, 3);
        let mut prepare = message(Command::Prepare);
        prepare.prepare_mut().op = 4;
        assert_eq!(prepare.prepare().op, 4);
        let mut eviction = message(Command::Eviction);
        eviction.eviction_mut().reason = 9;
        assert_eq!(eviction.eviction().reason, 9);
        assert_ne!(eviction.header().invalid(), None);
        assert_eq!(eviction.header().invalid(), Some(HeaderError::ChecksumBody));
    }
}
