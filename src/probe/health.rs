//! Asks a running bridge whether it is ready.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::address::Address;

/// How long a health check waits for the bridge.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How much of an answer is read, in bytes: enough for any that a bridge gives.
const MAX_ANSWER: u64 = 4096;

/// Asks the bridge that listens on `address` whether it takes new sessions. Blocks; for a program that does nothing
/// else, in images that hold no other client.
///
/// # Errors
/// Why not, in one sentence.
pub fn ask(address: &Address) -> Result<(), String> {
    let answered = match address {
        Address::Unix(path) => UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(TIMEOUT))?;
            Ok(read_answer(stream))
        }),
        _ => connect(address).and_then(|stream| {
            stream.set_read_timeout(Some(TIMEOUT))?;
            Ok(read_answer(stream))
        }),
    };
    let answer = match answered {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(format!("{address} does not answer: {}", reason(&error))),
        Err(error) => return Err(format!("cannot connect to {address}: {}", reason(&error))),
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1).filter(|_| head.starts_with("HTTP/1.")) {
        Some("200") if body.trim() == "ready" => Ok(()),
        Some("200") => Err(format!("what listens on {address} is not an mcp-bridge")),
        Some("503") => Err(format!("the bridge on {address} is not ready: {}", body.trim())),
        Some(status) => Err(format!("{address} answers /readyz with {status}: is it an mcp-bridge?")),
        None => Err(format!("what listens on {address} does not speak HTTP/1")),
    }
}

fn read_answer(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    match stream.take(MAX_ANSWER).read_to_end(&mut answer) {
        Err(error) if answer.is_empty() => Err(error),
        _ if answer.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// The error in words, without its number; a timeout of a read is called one.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("no answer within {TIMEOUT:?}"),
        io::ErrorKind::NotFound => "no such file".to_owned(),
        kind => kind.to_string(),
    }
}

fn connect(address: &Address) -> io::Result<TcpStream> {
    let mut addresses = address.tcp();
    for address in &mut addresses {
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
    }
    // A bridge on [::] may have fallen back to IPv4.
    if let Some(SocketAddr::V6(first)) = addresses.first().filter(|address| address.ip().is_loopback()) {
        addresses.push((Ipv4Addr::LOCALHOST, first.port()).into());
    }
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
