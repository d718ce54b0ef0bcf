//! What must hold for any bytes, in as many cases as there is time for: `PROPTEST_CASES` says how many of each, 2000 by
//! default. The same properties are fuzzed by `tests/fuzz/run`, which finds more in less time.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use hyper::Request;
use hyper::http::request::Parts;
use mcp_bridge::http::guard::Trust;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;

#[path = "fuzz/properties/mod.rs"]
mod properties;

const CASES: u32 = 2000;

/// What all these inputs are made of.
const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    " ",
    "\n",
    "\r\n",
    "\t",
    "\\",
    "\\u0069",
    "\\ud800",
    "\u{feff}",
    "é",
    "\u{1e}",
    "null",
    "true",
    "1",
    "-0",
    "1.0",
    "7e0",
    "18446744073709551616",
    "1e999",
    "\"id\"",
    "\"id\":",
    "\"method\"",
    "\"method\":",
    "\"jsonrpc\":\"2.0\"",
    "\"result\":{}",
    "\"error\":{}",
    "\"params\":{",
    "\"requestId\":",
    "\"progressToken\":",
    "\"_meta\":{",
    "\"protocolVersion\":\"2025-11-25\"",
    "\"initialize\"",
    "\"notifications/initialized\"",
    "\"notifications/cancelled\"",
    "\"sampling/createMessage\"",
    "data: ",
    "event: ",
    "id: ",
    "0-0",
    "1-2",
    "-",
    "00",
    "@",
    "~",
    "+",
    "!",
    ">",
    "=",
    "<",
    "/",
    "://",
    "localhost",
    "http://localhost",
    ":@evil.example",
    "#",
    "127.0.0.1",
    "[::1]",
    ":80",
    "Host: ",
    "Origin: ",
    "Accept: ",
    "Content-Type: ",
    "Mcp-Session-Id: ",
    "MCP-Protocol-Version: ",
    "http",
    "; q=0",
    "application/json",
    "text/event-stream",
    "*/*",
];

const NAMES: &[&str] = &[
    "jsonrpc",
    "id",
    "method",
    "params",
    "result",
    "error",
    "x",
    "\\u0069d",
    "par\\u0061ms",
    "Method",
    "ID",
    "id\\u0000",
    "paramſ",
    "\\ud800id",
];

const VALUES: &[&str] = &[
    "null",
    "1",
    "-0",
    "1.0",
    "\"a\"",
    "\"\\u0061\"",
    "{}",
    "[]",
    "\"2.0\"",
    "\"initialize\"",
    "\"ping\"",
    "{\"requestId\":1,\"requestId\":2}",
    "{\"requestId\":1,\"RequestId\":2}",
    "{\"requestId\":1}",
    "{\"REQUESTID\":1}",
    "{\"_meta\":{\"progressToken\":1,\"progressToKen\":2}}",
    "{\"_meta\":{\"progressToken\":1},\"_Meta\":{\"progressToken\":2}}",
    "{\"_meta\":{\"progressToken\\u0000\":1}}",
    "{\"uri\":\"a\",\"\\u0075ri\":\"b\"}",
    "{\"arguments\":{\"ID\":1,\"id\":2,\"id\":3}}",
    "\"notifications/cancelled\\u0000\"",
    "\"Initialize\"",
    "\"resources/subscribe\"",
    "{\"_meta\":{\"progressToken\":1}}",
    "{\"protocolVersion\":\"2025-11-25\"}",
    "\"notifications\\/cancelled\"",
    "\"notifications/initialized\"",
    "\"\\ud800\"",
    "1e999",
];

/// An object of the field's members, often nearly a message.
fn any_object() -> impl Strategy<Value = String> {
    let member = (select(NAMES), select(VALUES)).prop_map(|(name, value)| format!("\"{name}\":{value}"));
    let version = proptest::option::weighted(0.9, Just("\"jsonrpc\":\"2.0\"".to_owned()));
    (version, vec(member, 0..5)).prop_map(|(version, members)| {
        format!("{{{}}}", version.into_iter().chain(members).collect::<Vec<_>>().join(", "))
    })
}

/// A step of a session, as the property `front` reads it.
fn any_step() -> impl Strategy<Value = String> {
    let kinds = select(&["null", "ask", "doubled", "id", "array", "notes", "bytes"][..]);
    prop_oneof![
        4 => (select(&[">", "=", "<"][..]), any_object()).prop_map(|(sort, text)| format!("{sort}{text}\n")),
        1 => (kinds, 1..1500_usize).prop_map(|(kind, count)| format!("*{kind} {count}\n")),
    ]
}

/// A change of an input.
#[derive(Clone, Debug)]
enum Edit {
    Flip(Index, u8),
    Insert(Index, &'static str),
    Cut(Index, Index),
    /// A part once more, elsewhere.
    Repeat(Index, Index, Index),
}

fn any_edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        any::<(Index, u8)>().prop_map(|(at, byte)| Edit::Flip(at, byte)),
        (any::<Index>(), select(TOKENS)).prop_map(|(at, token)| Edit::Insert(at, token)),
        any::<(Index, Index)>().prop_map(|(from, to)| Edit::Cut(from, to)),
        any::<(Index, Index, Index)>().prop_map(|(from, to, at)| Edit::Repeat(from, to, at)),
    ]
}

fn edited(mut input: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        let at = |index: &Index| index.index(input.len() + 1);
        let part = |one: &Index, other: &Index| at(one).min(at(other))..at(one).max(at(other));
        match edit {
            Edit::Flip(place, byte) => {
                let place = at(place);
                if let Some(old) = input.get_mut(place) {
                    *old ^= byte;
                }
            }
            Edit::Insert(place, token) => {
                let place = at(place);
                input.splice(place..place, token.bytes());
            }
            Edit::Cut(one, other) => drop(input.drain(part(one, other))),
            Edit::Repeat(one, other, place) => {
                let (copy, place) = (input[part(one, other)].to_vec(), at(place));
                if input.len() + copy.len() < 10_000 {
                    input.splice(place..place, copy);
                }
            }
        }
    }
    input
}

/// Real traffic, real traffic with a few changes, words of the field in any order, and any bytes at all.
fn hold(name: &str, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(!corpus.is_empty(), "no traffic in {}", folder.display());
    for input in &corpus {
        property(input);
    }
    let words = vec(select(TOKENS), 0..40).prop_map(|words| words.concat().into_bytes());
    let inputs = prop_oneof![
        4 => (select(corpus), vec(any_edit(), 1..6)).prop_map(|(input, edits)| edited(input, &edits)),
        1 => any_object().prop_map(String::into_bytes),
        1 => vec(any_object(), 0..4).prop_map(|objects| format!("[{}]", objects.join(",")).into_bytes()),
        1 => vec(any_step(), 0..8).prop_map(|steps| steps.concat().into_bytes()),
        2 => words,
        1 => vec(any::<u8>(), 0..200),
    ];
    let default = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { CASES };
    let mut runner = TestRunner::new(ProptestConfig { cases, ..default });
    let held = runner.run(&inputs, |input| {
        property(&input);
        Ok(())
    });
    if let Err(why) = held {
        panic!("{name}: {why}");
    }
}

#[test]
fn frames_depend_on_the_bytes_and_never_on_how_they_came() {
    hold("framing", properties::framing);
}

#[test]
fn the_envelope_agrees_with_a_full_parse_and_a_new_id_changes_nothing_else() {
    hold("envelope", properties::envelope);
}

#[test]
fn no_head_is_let_in_that_a_browser_would_call_foreign() {
    hold("headers", properties::headers);
}

fn loopback(name: &str, value: &str) -> (Trust, Parts) {
    let head = Request::builder().uri("/mcp").header(name, value).body(()).unwrap().into_parts().0;
    (Trust { loopback: true, ..Trust::default() }, head)
}

/// RFC 9112 §3.2: an invalid Host is 400. These name this machine only to who cuts them at their last colon.
#[test]
fn what_stands_behind_a_host_is_a_port() {
    for host in ["localhost:@evil.example", "localhost:x", "127.0.0.1:/", "::1:80", "[::1]:x"] {
        let (trust, head) = loopback("host", host);
        assert!(trust.check_host(&head).is_err(), "{host} was let in");
    }
}

/// RFC 6454 §6.2: a scheme, a host, perhaps a port.
#[test]
fn an_origin_ends_with_its_port() {
    for origin in ["http://localhost#x", "http://localhost#@evil.example", "http://localhost:x"] {
        let (trust, head) = loopback("origin", origin);
        assert!(trust.check_origin(&head.headers).is_err(), "{origin} was let in");
    }
}

#[test]
fn a_place_in_a_stream_has_one_spelling() {
    hold("last_event_id", properties::last_event_id);
}

#[test]
fn a_client_reads_the_events_that_were_written_and_no_others() {
    hold("sse_writer", properties::sse_writer);
}

#[test]
fn a_batch_is_split_where_a_full_parse_splits_it() {
    hold("batch", properties::batch);
}

#[test]
fn each_request_ends_exactly_once_whatever_either_side_says() {
    hold("front", properties::front);
}

#[test]
fn each_request_of_clients_that_share_a_child_ends_exactly_once_and_reaches_no_other() {
    hold("modern", properties::modern);
}

#[test]
fn each_request_of_2026_07_28_to_a_server_of_sessions_ends_exactly_once() {
    hold("translators", properties::upgrade);
}

#[test]
fn each_request_of_a_session_to_a_server_of_2026_07_28_ends_exactly_once() {
    hold("translators", properties::downgrade);
}

#[test]
fn each_request_of_sessions_that_share_a_server_ends_exactly_once_and_reaches_no_other() {
    hold("translators", properties::shared);
}
