//! The socket that connections come from: TCP or a socket file.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::address::Address;

pub(super) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    /// A socket file, removed at the end.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Binds. `[::]` falls back to `0.0.0.0` on a kernel without IPv6; a socket file without a listener is replaced.
    ///
    /// # Errors
    /// What socket(2), bind(2) or listen(2) said.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => match TcpListener::bind(address).await {
                Err(error)
                    if error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT)
                        && address.ip().is_unspecified() =>
                {
                    TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
                        .await
                        .map(Self::Tcp)
                }
                bound => bound.map(Self::Tcp),
            },
            Address::Unix(path) => {
                let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
                let listener = match UnixListener::bind(path) {
                    Err(error) if in_use(&error) && UnixStream::connect(path).await.is_err() => {
                        std::fs::remove_file(path)?;
                        UnixListener::bind(path)?
                    }
                    bound => bound?,
                };
                Ok(Self::Unix(listener, path.clone()))
            }
        }
    }

    /// The next connection.
    ///
    /// # Errors
    /// What accept(2) said.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Accepted::Tcp(stream)),
            Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        }
    }

    /// Whether only this machine reaches it.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp(listener) => listener.local_addr().is_ok_and(|address| address.ip().is_loopback()),
            Self::Unix(..) => false, // no browser reaches it, and no name resolves to it
        }
    }

    /// Whether other machines can reach it.
    pub fn is_reachable(&self) -> bool {
        matches!(self, Self::Tcp(_)) && !self.is_loopback()
    }

    /// The base URL that reaches it.
    ///
    /// # Errors
    /// What getsockname(2) said.
    pub fn url(&self) -> io::Result<String> {
        Ok(match self {
            Self::Tcp(listener) => format!("http://{}", listener.local_addr()?),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}
