//! The sockets that connections come from: TCP or socket files.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use nix::libc;
use nix::sys::stat::{Mode, umask};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::address::Address;

/// How many free ports are tried where one is needed on both loopback addresses.
const FREE_PORTS: usize = 16;

pub(super) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The bound sockets.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<Socket>,
    /// Which of them is asked first for the next connection.
    next: AtomicUsize,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// A socket file that this process has bound, and removes at the end.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// What a path leads to: device and inode. A path alone proves nothing, for another process may have replaced the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    /// Of the file itself, and not of what a symbolic link leads to.
    fn of(path: &Path) -> io::Result<Self> {
        path.symlink_metadata().map(|metadata| Self(metadata.dev(), metadata.ino()))
    }
}

/// Why an address cannot be listened on.
#[derive(Debug)]
pub struct CannotListen {
    address: String,
    why: Why,
}

#[derive(Debug)]
enum Why {
    /// What socket(2), bind(2) or listen(2) said.
    System(io::Error),
    /// There is a file, and it is no socket.
    NoSocket,
    /// There is a socket that somebody listens on.
    Served,
}

impl CannotListen {
    fn new(address: impl fmt::Display, why: Why) -> Self {
        Self { address: address.to_string(), why }
    }
}

impl fmt::Display for CannotListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, why } = self;
        write!(f, "cannot listen on {address}: ")?;
        match why {
            Why::System(error) if error.kind() == io::ErrorKind::AddrInUse => {
                f.write_str("the address is in use; choose another with --listen")
            }
            Why::System(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "{error}; ports below 1024 and directories of other users need more rights; see --listen"
                )
            }
            Why::System(error) => write!(f, "{error}; choose another address with --listen"),
            Why::NoSocket => {
                f.write_str("a file that is not a socket is in the way; remove it, or choose another path")
            }
            Why::Served => f.write_str("another process listens there; choose another path"),
        }
    }
}

impl Listener {
    /// Binds all addresses. `[::]` falls back to `0.0.0.0` on a kernel without IPv6; a socket file that nobody listens on
    /// is replaced. `mode`: the permissions of socket files; `None`: what umask(2) leaves of 0777.
    ///
    /// # Errors
    /// The first address that cannot be listened on.
    pub async fn bind(addresses: &[Address], mode: Option<u32>) -> Result<Self, CannotListen> {
        let mut sockets = Vec::with_capacity(addresses.len() + 1);
        for address in addresses {
            match address {
                Address::Tcp(address) => {
                    let bound = tcp(*address).await;
                    sockets.push(Socket::Tcp(bound.map_err(|why| CannotListen::new(address, why))?));
                }
                Address::Localhost(port) => {
                    let bound = localhost(*port).await?;
                    sockets.extend(bound.into_iter().map(Socket::Tcp));
                }
                Address::Unix(path) => {
                    let bound = socket_file(path, mode).await;
                    let (listener, file) = bound.map_err(|why| CannotListen::new(address, why))?;
                    sockets.push(Socket::Unix(listener, file));
                }
            }
        }
        Ok(Self { sockets, next: AtomicUsize::new(0) })
    }

    /// The next connection.
    ///
    /// # Errors
    /// What accept(2) said.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        poll_fn(|context| {
            // They take turns: one whose queue is never empty must not keep the others waiting, which may be all that a
            // health check or a sidecar has.
            let first = self.next.load(Ordering::Relaxed);
            for (place, socket) in
                self.sockets.iter().enumerate().cycle().skip(first).take(self.sockets.len())
            {
                let accepted = match socket {
                    Socket::Tcp(listener) => {
                        listener.poll_accept(context).map_ok(|(stream, _)| Accepted::Tcp(stream))
                    }
                    Socket::Unix(listener, _) => {
                        listener.poll_accept(context).map_ok(|(stream, _)| Accepted::Unix(stream))
                    }
                };
                if accepted.is_ready() {
                    self.next.store((place + 1) % self.sockets.len(), Ordering::Relaxed);
                    return accepted;
                }
            }
            Poll::Pending
        })
        .await
    }

    fn tcp_addresses(&self) -> impl Iterator<Item = Option<SocketAddr>> {
        self.sockets.iter().filter_map(|socket| match socket {
            Socket::Tcp(listener) => Some(listener.local_addr().ok()),
            Socket::Unix(..) => None, // no browser reaches it, and no name resolves to it
        })
    }

    /// Whether it is reached over TCP, and by this machine only.
    pub fn is_loopback(&self) -> bool {
        let mut addresses = self.tcp_addresses().peekable();
        addresses.peek().is_some()
            && addresses.all(|address| address.is_some_and(|address| address.ip().is_loopback()))
    }

    /// Whether other machines can reach it.
    pub fn is_reachable(&self) -> bool {
        self.tcp_addresses().any(|address| address.is_none_or(|address| !address.ip().is_loopback()))
    }

    /// The URLs of the endpoint at `path`, in the order of the addresses; for a socket file the file.
    pub fn urls(&self, path: &str) -> Vec<String> {
        let url = |socket: &Socket| match socket {
            Socket::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("http://{address}{path}"),
                Err(error) => error.to_string(),
            },
            Socket::Unix(_, file) => format!("unix:{}", file.path.display()),
        };
        self.sockets.iter().map(url).collect()
    }
}

async fn tcp(address: SocketAddr) -> Result<TcpListener, Why> {
    let bound = match TcpListener::bind(address).await {
        Err(error) if has_no_family(&error) && address.ip().is_unspecified() => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.map_err(Why::System)
}

/// Binds one port of both loopback addresses, or of the one that this machine has.
async fn localhost(port: u16) -> Result<Vec<TcpListener>, CannotListen> {
    let mut attempts = if port == 0 { FREE_PORTS } else { 1 };
    loop {
        attempts -= 1;
        let (mut bound, mut port, mut missing) = (Vec::new(), port, None);
        let mut again = false;
        for mut address in Address::Localhost(port).tcp() {
            address.set_port(port);
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    port = listener.local_addr().map_or(port, |address| address.port());
                    bound.push(listener);
                }
                Err(error) if has_no_family(&error) => {
                    missing = Some(CannotListen::new(address, Why::System(error)));
                }
                // A port that is free on one address may be taken on the other.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => again = true,
                Err(error) => return Err(CannotListen::new(address, Why::System(error))),
            }
        }
        match missing {
            _ if again => {}
            Some(missing) if bound.is_empty() => return Err(missing),
            _ => return Ok(bound),
        }
    }
}

/// Whether this machine lacks an address of this kind.
fn has_no_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Binds a socket file. One that nobody listens on is what a killed process has left, and is replaced; everything else
/// that is there is not ours.
async fn socket_file(path: &Path, mode: Option<u32>) -> Result<(UnixListener, SocketFile), Why> {
    let listener = match bind_file(path, mode) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let old = Identity::of(path).map_err(Why::System)?;
            if !path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket()) {
                return Err(Why::NoSocket);
            }
            match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Ok(_) => return Err(Why::Served),
                Err(error) => return Err(Why::System(error)),
            }
            if Identity::of(path).is_ok_and(|now| now == old) {
                std::fs::remove_file(path).map_err(Why::System)?;
            }
            bind_file(path, mode).map_err(Why::System)?
        }
        bound => bound.map_err(Why::System)?,
    };
    let identity = Identity::of(path).map_err(Why::System)?;
    Ok((listener, SocketFile { path: path.to_owned(), identity }))
}

/// The file has its mode from the beginning: between bind(2) and chmod(2) others could connect.
fn bind_file(path: &Path, mode: Option<u32>) -> io::Result<UnixListener> {
    let Some(mode) = mode else { return UnixListener::bind(path) };
    let before = umask(Mode::from_bits_truncate(!mode & 0o777));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?; // the set-group-ID bit of a folder aside
    Ok(listener)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if Identity::of(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("listener-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    async fn bind(path: &Path) -> Result<Listener, String> {
        Listener::bind(&[Address::Unix(path.into())], None).await.map_err(|why| why.to_string())
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_never_replaced() {
        let folder = folder("file");
        let (file, link) = (folder.join("notes"), folder.join("link"));
        std::fs::write(&file, "kept").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [&file, &link, &folder] {
            let why = bind(path).await.unwrap_err();
            let there = "a file that is not a socket is in the way; remove it, or choose another path";
            assert_eq!(why, format!("cannot listen on unix:{}: {there}", path.display()));
        }
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "kept");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_socket_file_is_replaced_only_if_nobody_listens() {
        let folder = folder("socket");
        let path = folder.join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // as a killed process leaves it
        let first = bind(&path).await.unwrap();
        let why = bind(&path).await.unwrap_err();
        assert!(why.ends_with("another process listens there; choose another path"), "{why}");
        drop(first);
        assert!(!path.exists(), "it goes with its listener");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn the_socket_file_of_a_successor_stays() {
        let folder = folder("successor");
        let path = folder.join("s");
        let ending = bind(&path).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let successor = bind(&path).await.unwrap();
        drop(ending);
        UnixStream::connect(&path).await.expect("the successor is reached");
        drop(successor);
        assert!(!path.exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_socket_file_has_the_mode_that_was_asked_for() {
        let folder = folder("mode");
        for mode in [0o600, 0o660, 0o777] {
            let path = folder.join(format!("{mode:o}"));
            let _listener = Listener::bind(&[Address::Unix(path.clone())], Some(mode)).await.unwrap();
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode);
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn localhost_is_one_port_of_both_loopback_addresses() {
        let listener = Listener::bind(&[Address::Localhost(0)], None).await.unwrap();
        let addresses: Vec<_> = listener.tcp_addresses().map(Option::unwrap).collect();
        let port = addresses[0].port();
        assert!(port != 0 && listener.is_loopback() && !listener.is_reachable());
        for address in &addresses {
            assert_eq!(address.port(), port, "{addresses:?}");
            let (connected, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            assert!(connected.is_ok() && accepted.is_ok(), "{address}");
        }
        if TcpListener::bind("[::1]:0").await.is_ok() {
            assert_eq!(addresses.len(), 2);
        }
    }

    #[tokio::test]
    async fn an_address_whose_queue_is_never_empty_does_not_keep_the_others_waiting() {
        let folder = folder("turns");
        let loopback = Address::Tcp(([127, 0, 0, 1], 0).into());
        let file = Address::Unix(folder.join("s"));
        let listener = Listener::bind(&[loopback.clone(), file, loopback], None).await.unwrap();
        let crowded: Vec<_> = listener.tcp_addresses().map(Option::unwrap).collect();
        let mut connected = Vec::new();
        for _ in 0..8 {
            for address in &crowded {
                connected.push(TcpStream::connect(address).await.unwrap());
            }
        }
        let _waiting = UnixStream::connect(folder.join("s")).await.unwrap();
        let mut accepted = Vec::new();
        for _ in 0..3 {
            accepted.push(matches!(listener.accept().await, Ok(Accepted::Unix(_))));
        }
        assert_eq!(accepted, [false, true, false], "each has its turn");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn several_addresses_are_served_and_one_that_others_reach_makes_it_reachable() {
        let folder = folder("several");
        let loopback = Address::Tcp(([127, 0, 0, 1], 0).into());
        let file = Address::Unix(folder.join("s"));
        let listener = Listener::bind(&[loopback.clone(), file.clone()], None).await.unwrap();
        assert!(listener.is_loopback() && !listener.is_reachable());
        let (connected, accepted) = tokio::join!(UnixStream::connect(folder.join("s")), listener.accept());
        assert!(connected.is_ok() && matches!(accepted, Ok(Accepted::Unix(_))));
        drop(listener);
        let any = Address::Tcp(([0, 0, 0, 0], 0).into());
        let listener = Listener::bind(&[loopback, any], None).await.unwrap();
        assert!(!listener.is_loopback() && listener.is_reachable());
        let listener = Listener::bind(&[file], None).await.unwrap();
        assert!(!listener.is_loopback() && !listener.is_reachable());
        drop(listener);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
