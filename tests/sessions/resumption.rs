//! A stream that breaks off at any byte is taken up behind the last whole event: every message once, and in order.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::support::{
    Bridge, Event, PATIENCE, Request, Response, Session, Value, assert_refused, eventually, json, text_of,
    tool_call,
};

// ---------------------------------------------------------------------------------------------- a connection that breaks

/// What was there of a stream when its connection was closed.
struct Cut {
    status: u16,
    /// The events that were whole.
    events: Vec<Event>,
    /// The stream had ended properly before.
    ended: bool,
    /// How many bytes came.
    length: usize,
}

/// Sends a request, reads no more than `limit` bytes of the answer and closes the connection.
#[track_caller]
fn cut(session: &Session, request: Request, limit: usize) -> Cut {
    cut_behind(session, request, limit, 0)
}

/// As [`cut`], but closes only when so many further bytes have come, which are not read.
#[track_caller]
fn cut_behind(session: &Session, request: Request, limit: usize, unread: usize) -> Cut {
    let mut socket = TcpStream::connect(session.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = session.headers(request).header("Connection", "close");
    socket.write_all(&request.to_bytes(&session.address.to_string())).unwrap();
    let mut bytes = Vec::new();
    match (&socket).take(limit as u64).read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{limit} bytes or the end of the stream: {error}"),
    }
    eventually("so many further bytes come", || {
        unread == 0 || socket.peek(&mut vec![0; unread]).unwrap() == unread
    });
    drop(socket);
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Cut { status: 0, events: Vec::new(), ended: false, length: bytes.len() };
    };
    let status = std::str::from_utf8(&bytes[9..12]).unwrap().parse().unwrap();
    let (body, ended) = unchunked(&bytes[head + 4..]);
    Cut { status, events: events(&body), ended, length: bytes.len() }
}

/// What there is of a body in chunks, and whether that is all of it.
fn unchunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        rest = &rest[line + 2..];
        if size == 0 {
            return (body, rest == b"\r\n");
        }
        body.extend(&rest[..size.min(rest.len())]);
        rest = rest.get(size + 2..).unwrap_or_default();
    }
    (body, false)
}

/// The events that are whole. What stands behind the last blank line does not count (HTML, "Server-sent events").
fn events(body: &[u8]) -> Vec<Event> {
    let whole = body.windows(2).rposition(|window| window == b"\n\n").map_or(0, |end| end + 2);
    let text = std::str::from_utf8(&body[..whole]).unwrap();
    let field = |block: &str, name: &str| {
        block.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()))
    };
    let blocks = text.split("\n\n").filter(|block| block.contains("data:"));
    blocks
        .map(|block| Event {
            id: field(block, "id"),
            data: field(block, "data"),
            raw: block.into(),
            ..Event::default()
        })
        .collect()
}

fn resumption(event: &Event) -> Request {
    Request::listen("/mcp").header("Last-Event-ID", event.id.as_deref().unwrap())
}

/// Reads a stream over several connections, each closed after its number of bytes and the last one read to the end.
/// `None`: the first of them broke before it had a whole event, so there is nothing to resume behind.
#[track_caller]
fn in_pieces(session: &Session, first: Request, limits: &[usize]) -> Option<Vec<Event>> {
    let mut events: Vec<Event> = Vec::new();
    let mut request = first;
    for limit in limits.iter().chain(&[usize::MAX]) {
        let piece = cut(session, request, *limit);
        assert!(matches!(piece.status, 0 | 200), "status {} after {limits:?} bytes", piece.status);
        events.extend(piece.events);
        if piece.ended {
            break;
        }
        request = resumption(events.last()?);
    }
    Some(events)
}

/// The messages of a stream whose events are numbered without gap, from 1 or from a priming event's 0.
#[track_caller]
fn messages(events: &[Event], claim: &str) -> Vec<Value> {
    let first = u64::from(events[0].data.as_deref() != Some(""));
    let number =
        |event: &Event| -> u64 { event.id.as_deref().unwrap().rsplit('-').next().unwrap().parse().unwrap() };
    let numbers: Vec<u64> = events.iter().map(number).collect();
    let expected: Vec<u64> = (first..first + numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "{claim}: each event once, none left out");
    events.iter().filter(|event| event.data.as_deref() != Some("")).map(Event::json).collect()
}

// ---------------------------------------------------------------------------------------------- what is streamed

/// Each under an id of its own: a call whose client left goes on.
fn count(session: &Session, to: u64, delay_ms: u64) -> Request {
    let id = session.next_id();
    let arguments = json!({ "to": to, "delay_ms": delay_ms });
    let call = json!({
        "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": { "name": "count", "arguments": arguments, "_meta": { "progressToken": id } },
    });
    Request::post("/mcp", call.to_string())
}

#[track_caller]
fn assert_counted(to: u64, messages: &[Value], claim: &str) {
    let steps: Vec<u64> =
        messages.iter().filter_map(|message| message["params"]["progress"].as_u64()).collect();
    assert_eq!(steps, (1..=to).collect::<Vec<_>>(), "{claim}: progress");
    let answer = messages.last().unwrap();
    assert_eq!(messages.len() as u64, to + 1, "{claim}: one answer");
    assert_eq!(text_of(answer), format!("counted to {to}"), "{claim}");
    let own = |message: &Value| message["params"]["progressToken"] == answer["id"];
    assert!(messages[..messages.len() - 1].iter().all(own), "{claim}: nothing of another call");
}

/// Lets the child say something outside of any stream but the listening one: the call takes no events.
#[track_caller]
fn say(session: &Session, number: u64) {
    let call =
        tool_call(session.next_id(), "log", json!({ "level": "error", "message": number.to_string() }));
    let request = session.headers(Request::post("/mcp", call.to_string())).with("Accept", "application/json");
    assert_eq!(text_of(&request.send(session.address).json()), "logged");
}

fn said(message: &Value) -> u64 {
    message["params"]["data"].as_str().unwrap().parse().unwrap()
}

fn start_primed(version: &str) -> (Bridge, Session) {
    let bridge = Bridge::start(&["--prime", "--sse-after", "0s"], &["notebook"]);
    let session = bridge.initialize_as(version);
    (bridge, session)
}

// ---------------------------------------------------------------------------------------------- the answer to a POST

#[test]
fn an_answer_cut_at_any_byte_is_resumed_behind_the_last_whole_event() {
    let bridge = Bridge::start(&["--sse-after", "0s"], &["notebook"]);
    let session = bridge.session();
    let whole = cut(&session, count(&session, 2, 0), usize::MAX);
    assert!(whole.ended);
    let mut resumed = 0;
    for limit in 1..=whole.length + 20 {
        let Some(events) = in_pieces(&session, count(&session, 2, 0), &[limit]) else { continue };
        let claim = format!("cut after {limit} bytes");
        assert_counted(2, &messages(&events, &claim), &claim);
        resumed += 1;
    }
    assert!(resumed > whole.length / 3, "all but the head and the first event: {resumed}");
}

#[test]
fn an_answer_cut_while_the_child_is_still_at_work_is_resumed_without_loss() {
    let bridge = Bridge::start(&["--sse-after", "0s"], &["notebook"]);
    let session = bridge.session();
    let length = cut(&session, count(&session, 6, 0), usize::MAX).length;
    for limit in (1..=length).step_by(23) {
        let Some(events) = in_pieces(&session, count(&session, 6, 2), &[limit]) else { continue };
        let claim = format!("cut after {limit} bytes");
        assert_counted(6, &messages(&events, &claim), &claim);
    }
}

#[test]
fn an_answer_may_break_off_again_and_again() {
    let bridge = Bridge::start(&["--sse-after", "0s"], &["notebook"]);
    let session = bridge.session();
    for limit in (500..900).step_by(37) {
        let events = in_pieces(&session, count(&session, 12, 1), &[limit; 40]).expect("more than one event");
        let claim = format!("cut after every {limit} bytes");
        assert_counted(12, &messages(&events, &claim), &claim);
    }
}

#[test]
fn with_prime_an_answer_cut_anywhere_behind_its_priming_event_is_whole() {
    let (_bridge, session) = start_primed("2025-11-25");
    let whole = cut(&session, count(&session, 2, 5), usize::MAX);
    for limit in (1..=whole.length + 20).step_by(5) {
        let Some(events) = in_pieces(&session, count(&session, 2, 5), &[limit]) else { continue };
        let claim = format!("cut after {limit} bytes");
        assert_counted(2, &messages(&events, &claim), &claim);
    }
}

/// What a fault of the child does to its messages, it does to a resumed stream no differently.
#[test]
fn the_streams_of_misbehaving_children_are_resumed_alike() {
    let modes: [&[&str]; 12] = [
        &["good"],
        &["strict"],
        &["noise"],
        &["framing"],
        &["cr"],
        &["bad_utf8"],
        &["junk_json"],
        &["unknown_id"],
        &["dup"],
        &["batch"],
        &["deep", "300"],
        &["huge", "300000"],
    ];
    for mode in modes {
        let command = [&["hostile"], mode].concat();
        let bridge = Bridge::start(&["--prime", "--sse-after", "0s"], &command);
        let session = bridge.initialize_as("2025-11-25");
        // Each call under an id of its own.
        let call = || {
            let id = session.next_id();
            let call = tool_call(id, "echo", json!({ "text": "é".repeat(50) })).to_string();
            (format!("\"id\":{id}"), Request::post("/mcp", call))
        };
        let data = |id: &str, events: &[Event]| -> Vec<String> {
            let data =
                events.iter().filter_map(|event| event.data.as_deref()).filter(|data| !data.is_empty());
            data.map(|data| data.replace(id, "\"id\":0")).collect()
        };
        let (id, request) = call();
        let Cut { events, length, .. } = cut(&session, request, usize::MAX);
        let whole = data(&id, &events);
        assert!(!whole.is_empty(), "{mode:?}");
        for part in 1..=16 {
            let limit = length * part / 16;
            let (id, request) = call();
            // The child has said everything when the client leaves: what it says beside an answer would go to another
            // stream if it came later.
            // Some bytes fewer are enough: two events may come in one chunk. A huge one does not fit into the socket.
            let unread = (length - limit).saturating_sub(40).min(10_000);
            let Cut { mut events, ended, .. } = cut_behind(&session, request, limit, unread);
            let Some(last) = events.last() else { continue };
            if !ended {
                events.extend(in_pieces(&session, resumption(last), &[]).unwrap());
            }
            assert!(data(&id, &events) == whole, "{mode:?} cut after {limit} bytes");
        }
    }
}

#[test]
fn a_question_that_nobody_was_there_to_hear_is_asked_when_the_stream_is_resumed() {
    let (_bridge, session) = start_primed("2025-11-25");
    let mut call = session.start_call("list_roots", json!({}));
    let first = call.event().unwrap().id.unwrap();
    // The child asks while this stream is open, or it would ask on another one. The client goes without having seen it.
    assert_eq!(call.message()["method"], "roots/list");
    drop(call);
    let mut resumed = session.resume(&format!("{}-0", first.split('-').next().unwrap()));
    let question = resumed.message();
    assert_eq!(question["method"], "roots/list");
    session.respond(&question["id"], json!({ "roots": [{ "uri": "file:///a" }] }));
    assert_eq!(text_of(&resumed.answer()), "file:///a");
}

#[test]
fn a_stream_resumed_before_its_first_reader_is_gone_goes_on_for_the_newer_one_only() {
    let bridge = Bridge::start(&["--sse-after", "0s"], &["notebook"]);
    let session = bridge.session();
    let mut older = session.headers(count(&session, 20, 10)).send(session.address);
    let first = older.event().unwrap();
    let mut newer = session.headers(resumption(&first)).send(session.address);
    let messages = newer.messages();
    assert_eq!(messages.len(), 20, "{messages:?}");
    assert_eq!(messages[0]["params"]["progress"], 2);
    let rest = older.messages();
    assert!(rest.len() < 20 && rest.iter().all(|message| message.get("result").is_none()), "{rest:?}");
}

#[test]
fn nothing_follows_the_answer() {
    let bridge = Bridge::start(&["--sse-after", "0s"], &["notebook"]);
    let session = bridge.session();
    let whole = cut(&session, count(&session, 2, 0), usize::MAX);
    let after = cut(&session, resumption(whole.events.last().unwrap()), usize::MAX);
    assert!(after.events.is_empty(), "{:?}", after.events);
}

// ---------------------------------------------------------------------------------------------- the listening stream

#[test]
fn a_listening_stream_cut_at_any_byte_is_resumed_behind_the_last_whole_event() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.session();
    let mut produced = 0;
    let mut seen: Vec<Event> = Vec::new();
    for limit in [600].into_iter().chain(1..=600) {
        while produced < seen.len() as u64 + 5 {
            say(&session, produced);
            produced += 1;
        }
        let request = seen.last().map_or(Request::listen("/mcp"), resumption);
        let piece = cut(&session, request, limit);
        assert!(!piece.ended && matches!(piece.status, 0 | 200), "status {}", piece.status);
        seen.extend(piece.events);
    }
    assert!(seen.len() > 100, "{}", seen.len());
    let numbers: Vec<u64> = messages(&seen, "the listening stream").iter().map(said).collect();
    assert_eq!(numbers, (0..seen.len() as u64).collect::<Vec<_>>());
}

#[test]
fn with_prime_a_listening_stream_that_got_nothing_but_its_priming_event_loses_nothing() {
    let (bridge, session) = start_primed("2025-11-25");
    let mut produced = 0;
    for limit in (1..700).step_by(3) {
        let piece = cut(&session, Request::listen("/mcp"), 1);
        assert!(piece.events.is_empty());
        // What is written to a connection that is dead already is lost to whoever does not say what it has seen.
        eventually("the bridge has noticed the cut", || bridge.connections() == 0);
        for _ in 0..3 {
            say(&session, produced);
            produced += 1;
        }
        let piece = cut(&session, Request::listen("/mcp"), limit);
        let Some(last) = piece.events.last() else { continue };
        assert_eq!(piece.events[0].data.as_deref(), Some(""), "the priming event comes first");
        let mut resumed = session.headers(resumption(last)).send(session.address);
        resumed.expect(200, "a primed stream can be resumed");
        let before = piece.events[1..].iter().map(Event::json);
        let after = (piece.events.len()..4).map(|_| resumed.message());
        let numbers: Vec<u64> = before.chain(after).map(|message| said(&message)).collect();
        assert_eq!(numbers, (produced - 3..produced).collect::<Vec<_>>(), "cut after {limit} bytes");
    }
}

#[test]
fn a_flood_is_resumed_without_a_gap_or_refused() {
    let bridge = Bridge::start(&[], &["hostile", "flood_stdout"]);
    let session = bridge.session();
    let number = |event: &Event| -> u64 {
        let message = event.json();
        message["params"]["data"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    let (mut last, mut resumed) = (None::<Event>, 0);
    for round in 0..40 {
        let limit = 2000 + round * 7919 % 20_000;
        let piece = match &last {
            Some(event) => cut(&session, resumption(event), limit),
            None => cut(&session, Request::listen("/mcp"), limit),
        };
        if piece.status == 400 {
            last = None;
            continue;
        }
        assert_eq!(piece.status, 200);
        let numbers: Vec<u64> = last.iter().chain(&piece.events).map(number).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "a gap in {numbers:?}");
        resumed += usize::from(last.is_some());
        last = piece.events.last().cloned().or(last);
    }
    assert!(resumed > 0, "4 MiB of events outlast a reconnection");
}

// ---------------------------------------------------------------------------------------------- ids that name nothing here

#[track_caller]
fn assert_no_replay(session: &Session, id: &str) {
    let mut response = session.resume(id);
    assert!(response.status == 400, "{id:?}: status {} instead of 400", response.status);
    assert_refused(&mut response, 400, "no_replay");
}

#[test]
fn an_event_of_a_foreign_session_is_400() {
    let bridge = Bridge::start(&["--sse-after", "0s"], &["notebook"]);
    let (mine, other) = (bridge.session(), bridge.session());
    for _ in 0..3 {
        cut(&other, count(&other, 1, 0), usize::MAX);
    }
    let foreign = cut(&other, count(&other, 1, 0), usize::MAX).events[0].id.clone().unwrap();
    assert_no_replay(&mine, &foreign);
    other.resume(&foreign).expect(200, "where it belongs");
}

#[test]
fn an_id_that_two_sessions_have_gives_each_its_own() {
    let bridge = Bridge::start(&["--sse-after", "0s"], &["notebook"]);
    let sessions = [bridge.session(), bridge.session()];
    let first: Vec<Event> = (3..)
        .zip(&sessions)
        .map(|(to, session)| cut(session, count(session, to, 0), usize::MAX).events.swap_remove(0))
        .collect();
    assert_eq!(first[0].id, first[1].id);
    for (to, session) in (3..).zip(&sessions) {
        let answer = session.resume(first[0].id.as_deref().unwrap()).messages().pop().unwrap();
        assert_eq!(text_of(&answer), format!("counted to {to}"));
    }
}

#[test]
fn an_event_that_never_was_is_400() {
    let bridge = Bridge::start(&["--sse-after", "0s"], &["notebook"]);
    let session = bridge.session();
    let last = cut(&session, count(&session, 3, 0), usize::MAX).events.pop().unwrap().id.unwrap();
    let (stream, place) = last.split_once('-').unwrap();
    let (stream, place): (u64, u64) = (stream.parse().unwrap(), place.parse().unwrap());
    for id in [
        format!("{stream}-{}", place + 1),
        format!("{}-0", stream + 1),
        format!("{}-1", stream + 1),
        format!("{}-{place}", stream + 1000),
        "0-1".to_owned(),
    ] {
        assert_no_replay(&session, &id);
    }
}

#[test]
fn what_is_no_event_id_is_400() {
    let bridge = Bridge::start(&["--sse-after", "0s"], &["notebook"]);
    let session = bridge.session();
    let id = cut(&session, count(&session, 1, 0), usize::MAX).events[0].id.clone().unwrap();
    let (stream, place) = id.split_once('-').unwrap();
    for malformed in [
        format!("{stream}_{place}"),
        format!("{stream}-{place}-"),
        format!("{stream}-{place}x"),
        format!("0{stream}-{place}"),
        format!("+{stream}-{place}"),
        format!("{stream}- {place}"),
        format!("{stream}-{place},{stream}-{place}"),
        format!("0x{stream}-{place}"),
        "-".to_owned(),
        "1".to_owned(),
        "18446744073709551616-1".to_owned(),
        "x".repeat(5000),
    ] {
        assert_no_replay(&session, &malformed);
    }
    session.resume(&id).expect(200, "the id itself is good");
}

#[test]
fn an_empty_last_event_id_is_none() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.session();
    for empty in ["", " "] {
        let stream = session.resume(empty);
        assert_eq!((stream.status, stream.is_sse()), (200, true), "it listens, as without the header");
    }
}

#[test]
fn an_event_that_has_left_the_buffer_is_400() {
    let bridge = Bridge::start(&["--replay-buffer", "1KiB", "--sse-after", "0s"], &["notebook"]);
    let session = bridge.session();
    let events = cut(&session, count(&session, 20, 0), usize::MAX).events;
    assert_eq!(events.len(), 21);
    for old in &events[..10] {
        assert_no_replay(&session, old.id.as_deref().unwrap());
    }
    let rest = session.resume(events[19].id.as_deref().unwrap()).messages();
    assert_eq!(rest, [events[20].json()], "the newest are still there");
}

#[test]
fn an_answer_that_nobody_heard_stays_in_the_buffer_longer_than_what_is_none() {
    let bridge = Bridge::start(&["--replay-buffer", "1KiB", "--sse-after", "0s"], &["notebook"]);
    let session = bridge.session();
    let mut call = session.headers(count(&session, 2, 100)).send(session.address);
    let first = call.event().unwrap();
    drop(call);
    // While it is in flight no other request may have its id.
    let id = first.json()["params"]["progressToken"].clone();
    let again = json!({ "jsonrpc": "2.0", "id": id, "method": "ping" }).to_string();
    eventually("the call is over", || session.post(&again).status == 200);
    let second = format!("{}-2", first.id.unwrap().split('-').next().unwrap());
    for number in 0..20 {
        say(&session, number);
    }
    let rest = session.resume(&second).messages();
    assert_eq!((&rest[0]["id"], text_of(&rest[0])), (&id, "counted to 2".to_owned()));
}

#[test]
fn an_event_of_the_listening_stream_that_has_left_the_buffer_is_400() {
    let bridge = Bridge::start(&["--replay-buffer", "1KiB"], &["notebook"]);
    let session = bridge.session();
    say(&session, 0);
    let first = session.listen().event().unwrap();
    for number in 1..20 {
        say(&session, number);
    }
    assert_no_replay(&session, first.id.as_deref().unwrap());
}

#[test]
fn a_session_that_is_over_is_404_and_not_400() {
    let bridge = Bridge::start(&["--sse-after", "0s"], &["notebook"]);
    let session = bridge.session();
    let id = cut(&session, count(&session, 1, 0), usize::MAX).events[0].id.clone().unwrap();
    assert_eq!(session.delete().status, 204);
    assert_refused(&mut session.resume(&id), 404, "session_terminated");
}

#[test]
fn last_event_id_means_nothing_on_a_post() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.session();
    for id in ["1-1", "nonsense"] {
        let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        let request = session.headers(Request::post("/mcp", ping)).header("Last-Event-ID", id);
        assert_eq!(bridge.send(request).json()["result"], json!({}));
    }
}

// ---------------------------------------------------------------------------------------------- priming

#[test]
fn with_prime_everything_is_behind_the_event_before_the_first() {
    let (_bridge, session) = start_primed("2025-11-25");
    let events = cut(&session, count(&session, 4, 1), usize::MAX).events;
    let stream = events[1].id.as_deref().unwrap().split_once('-').unwrap().0.to_owned();
    let mut resumed = session.resume(&format!("{stream}-0"));
    resumed.expect(200, "the first event has not been forgotten");
    assert_counted(4, &resumed.messages(), "from the start");
}

/// The first event, and what the revision says about it.
#[track_caller]
fn assert_primed(mut stream: Response, primed: bool, claim: &str) {
    let first = stream.event().unwrap();
    assert_eq!(first.data.as_deref() == Some(""), primed, "{claim}: {first:?}");
    assert_eq!(first.retry.is_some(), primed, "{claim}: {first:?}");
}

#[test]
fn with_prime_only_the_revision_that_knows_priming_gets_it() {
    let versions =
        [("2024-11-05", false), ("2025-03-26", false), ("2025-06-18", false), ("2025-11-25", true)];
    for (version, primed) in versions {
        let (_bridge, session) = start_primed(version);
        say(&session, 0);
        assert_primed(session.listen(), primed, &format!("GET in {version}"));
        assert_primed(
            session.headers(count(&session, 1, 100)).send(session.address),
            primed,
            &format!("POST in {version}"),
        );
    }
}

/// A client of that revision cannot resume a stream whose first event was cut off in the middle.
#[test]
fn with_prime_a_stream_whose_first_event_comes_at_once_begins_with_the_priming_event_too() {
    let bridge = Bridge::start(&["--prime"], &["notebook"]);
    let session = bridge.initialize_as("2025-11-25");
    assert_primed(
        session.headers(count(&session, 3, 1)).send(session.address),
        true,
        "progress before sse-after",
    );
}

#[test]
fn without_prime_no_revision_gets_a_priming_event() {
    let bridge = Bridge::start(&["--sse-after", "0s"], &["notebook"]);
    let session = bridge.initialize_as("2025-11-25");
    say(&session, 0);
    assert_primed(session.listen(), false, "GET");
    assert_primed(session.headers(count(&session, 1, 100)).send(session.address), false, "POST");
}

#[test]
fn a_resumed_stream_is_not_primed_again() {
    let (_bridge, session) = start_primed("2025-11-25");
    let events = cut(&session, count(&session, 2, 5), usize::MAX).events;
    assert_primed(session.headers(resumption(&events[0])).send(session.address), false, "resumed");
}
