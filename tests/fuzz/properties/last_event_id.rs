//! Places in streams as clients name them.

use hyper::header::{HeaderMap, HeaderValue};
use mcp_bridge::http::head::{self, LAST_EVENT_ID};
use mcp_bridge::proto::ids::{EventId, StreamId};

/// Any text is refused or is the one spelling of an event, and any event is read back as it was written.
pub fn last_event_id(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let event = EventId::parse(text);
        assert_eq!(event.map(|event| (event.stream.0, event.place)), two_numbers(text), "{text:?}");
        assert!(event.is_none_or(|event| event.to_string() == text), "{text:?} is not how it is written");
    }
    if let Ok(value) = HeaderValue::from_bytes(data) {
        let want = match value.as_bytes().trim_ascii() {
            b"" => Some(None), // as if absent
            _ => value.to_str().ok().and_then(EventId::parse).map(Some),
        };
        let got = head::last_event_id(&HeaderMap::from_iter([(LAST_EVENT_ID, value)]));
        assert_eq!(got.ok(), want, "as a header");
    }
    let number = |from: usize| {
        data.iter().skip(from).take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let event = EventId { stream: StreamId(number(0)), place: number(8) };
    assert_eq!(EventId::parse(&event.to_string()), Some(event));
}

/// `<number>-<number>` in plain decimal digits, each below 2^64.
fn two_numbers(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.split('-').map(|part| {
        let plain =
            part.bytes().all(|byte| byte.is_ascii_digit()) && (part.len() == 1 || !part.starts_with('0'));
        // u64::MAX has 20 digits, which u128 holds.
        let number: u128 = part.parse().ok().filter(|_| plain && part.len() <= 20)?;
        u64::try_from(number).ok()
    });
    let both = (parts.next()??, parts.next()??);
    parts.next().is_none().then_some(both)
}
