//! Asks all the time whether the bridge is alive: whatever anybody does, it answers at once for most of the time.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Soak;
use super::support::Request;
use super::support::http::Connection;

const EVERY: Duration = Duration::from_millis(20);

/// What is at once. A machine that has much else to do may exceed it now and then, and a bridge without a fault does not for
/// half of a wave.
const AT_ONCE: Duration = Duration::from_secs(1);

pub fn wave(soak: &Soak, until: Instant) {
    let begun = Instant::now();
    let (mut late, mut longest) = (Duration::ZERO, Duration::ZERO);
    let mut connection = Connection::open(soak.bridge.address);
    while Instant::now() < until && !soak.failed.load(Ordering::Relaxed) {
        let asked = Instant::now();
        connection.write(&Request::new("GET", "/healthz").to_bytes("localhost"));
        let mut response = connection.response();
        response.expect(200, "the bridge is alive");
        response.bytes();
        connection = response.into_connection();
        let took = asked.elapsed();
        late += if took > AT_ONCE { took } else { Duration::ZERO };
        longest = longest.max(took);
        thread::sleep(EVERY);
    }
    let all = begun.elapsed();
    eprintln!("soak: the longest wait of the probe was {} ms", longest.as_millis());
    assert!(late < all / 2, "the bridge let a probe wait for {late:?} of {all:?}, the longest {longest:?}");
}
