//! The socket: where it is, and whether somebody answers on it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::address::Address;

/// How long a health check waits for the bridge.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection.
pub(super) enum Accepted {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a socket file.
    Unix(UnixStream),
}

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A socket file, removed at the end.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Binds. `[::]` falls back to `0.0.0.0` on a kernel without IPv6; a socket file that nobody listens on any more
    /// is replaced.
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

/// Asks the bridge that listens on `address` whether it takes new sessions. Blocks; for a program that does nothing
/// else, in images that hold no other client.
pub fn is_ready(address: &Address) -> bool {
    fn ask(mut stream: impl Read + Write) -> io::Result<bool> {
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status == *b"HTTP/1.1 200")
    }
    let asked = match address {
        Address::Tcp(address) => {
            let ip = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            // A bridge on [::] may have fallen back to IPv4.
            let addresses =
                [SocketAddr::new(ip, address.port()), (Ipv4Addr::LOCALHOST, address.port()).into()];
            let connect = |address| std::net::TcpStream::connect_timeout(address, HEALTH_TIMEOUT);
            addresses.iter().find_map(|address| connect(address).ok()).map(|stream| {
                stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
                ask(stream)
            })
        }
        Address::Unix(path) => std::os::unix::net::UnixStream::connect(path).ok().map(|stream| {
            stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
            ask(stream)
        }),
    };
    matches!(asked, Some(Ok(true)))
}
