//! The pipes of a session's child: those of a process, or of a lane to one that sessions share. One type for both, because a
//! session's loop takes part of the program, and would take it twice.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::session::LaneStdin;

/// The stdin of a child.
#[derive(Debug)]
pub(super) enum Stdin {
    Process(Sender),
    Lane(LaneStdin),
}

/// The stdout of a child.
#[derive(Debug)]
pub(super) enum Stdout {
    Process(Receiver),
    Lane(DuplexStream),
}

impl Stdout {
    /// That of a process, which is read on until it exits.
    pub(super) fn into_process(self) -> Option<Receiver> {
        match self {
            Self::Process(stdout) => Some(stdout),
            Self::Lane(_) => None,
        }
    }
}

impl AsyncWrite for Stdin {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Process(stdin) => Pin::new(stdin).poll_write(context, bytes),
            Self::Lane(stdin) => Pin::new(stdin).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // neither keeps anything back
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Process(stdin) => Pin::new(stdin).poll_shutdown(context),
            Self::Lane(stdin) => Pin::new(stdin).poll_shutdown(context),
        }
    }
}

impl AsyncRead for Stdout {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Process(stdout) => Pin::new(stdout).poll_read(context, into),
            Self::Lane(stdout) => Pin::new(stdout).poll_read(context, into),
        }
    }
}
