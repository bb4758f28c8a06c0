//! Kafka's frames: a length, then that many bytes.

use super::Api;
use std::io::{self, Read};

/// A broker takes requests of up to 100 MiB, and replies are not much larger.
const LARGEST_BYTES: usize = 128 << 20;
const LENGTH: usize = 4;

/// One request or reply, with its length in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame(Vec<u8>);

impl Frame {
    /// Reads the next one; `None` at the end of the connection, however it comes, and at what cannot be a frame.
    pub(super) fn read(mut from: impl Read) -> Option<Frame> {
        let mut length = [0; LENGTH];
        from.read_exact(&mut length).ok()?;
        let bytes = usize::try_from(i32::from_be_bytes(length)).ok().filter(|bytes| *bytes <= LARGEST_BYTES)?;
        let mut frame = length.to_vec();
        let read = from.take(bytes as u64).read_to_end(&mut frame);
        matches!(read, Ok(read) if read == bytes).then_some(Frame(frame))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its first half, length included.
    pub(super) fn half(&self) -> &[u8] {
        &self.0[..self.0.len() / 2]
    }

    /// Of a request.
    pub(super) fn api(&self) -> Option<Api> {
        Some(Api(i16::from_be_bytes(*self.0.get(LENGTH..)?.first_chunk()?)))
    }

    /// Of a request, after API key and version.
    pub(super) fn request_id(&self) -> Option<i32> {
        Some(i32::from_be_bytes(*self.0.get(LENGTH + 4..)?.first_chunk()?))
    }

    /// Of a reply.
    pub(super) fn reply_id(&self) -> Option<i32> {
        Some(i32::from_be_bytes(*self.0.get(LENGTH..)?.first_chunk()?))
    }

    /// What follows a reply's correlation id.
    pub(super) fn reply_body(&self) -> &[u8] {
        self.0.get(LENGTH + 4..).unwrap_or_default()
    }
}

/// Writes a request or a reply.
pub(super) fn write(mut to: impl io::Write, bytes: &[u8]) -> bool {
    to.write_all(bytes).is_ok()
}
