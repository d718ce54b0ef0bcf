//! Asks a running bridge whether it is ready.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::address::Address;

/// How long a health check waits for the bridge.
const TIMEOUT: Duration = Duration::from_secs(2);

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
            let connect = |address| TcpStream::connect_timeout(address, TIMEOUT);
            addresses.iter().find_map(|address| connect(address).ok()).map(|stream| {
                stream.set_read_timeout(Some(TIMEOUT))?;
                ask(stream)
            })
        }
        Address::Unix(path) => UnixStream::connect(path).ok().map(|stream| {
            stream.set_read_timeout(Some(TIMEOUT))?;
            ask(stream)
        }),
    };
    matches!(asked, Some(Ok(true)))
}
