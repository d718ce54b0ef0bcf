//! Which protocol a connection speaks, by its first bytes.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What an HTTP/2 client says first (RFC 9113 §3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A version of HTTP, as far as its framing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// One request after the other.
    Http1,
    /// Many requests at once.
    Http2,
}

/// Reads until it is clear which protocol the peer speaks, and returns what was read.
///
/// # Errors
/// What read(2) said, or that the connection was closed before.
pub(super) async fn sniff<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(Protocol, Bytes)> {
    let mut first = BytesMut::with_capacity(H2_PREFACE.len());
    loop {
        if stream.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first.starts_with(H2_PREFACE) {
            return Ok((Protocol::Http2, first.freeze()));
        }
        if !H2_PREFACE.starts_with(&first) {
            return Ok((Protocol::Http1, first.freeze()));
        }
    }
}
