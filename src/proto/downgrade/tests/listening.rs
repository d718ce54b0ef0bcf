//! What the client is told of unasked: subscriptions of the bridge's own, and those of the client (2026-07-28
//! `basic/patterns/subscriptions`; 2025-11-25 `server/resources`, "Subscriptions").

use std::collections::VecDeque;

use super::listens::{FIRST_PAUSE, LONGEST_PAUSE};
use super::*;
use crate::proto::subscription::{MAX_URI_BYTES, MAX_URIS};

const LISTS: &str = r#"{"tools":{"listChanged":true},"prompts":{"listChanged":false},"resources":{"listChanged":true,"subscribe":true}}"#;

const WANTED: &str = r#""toolsListChanged":true,"resourcesListChanged":true"#;

fn listen(id: &str, notifications: &str) -> String {
    with(id, "subscriptions/listen", &format!(r#""_meta":{{{META}}},"notifications":{{{notifications}}}"#))
}

fn subscribe(id: &str, uri: &str) -> String {
    with(id, "resources/subscribe", &format!(r#""uri":"{uri}""#))
}

fn unsubscribe(id: &str, uri: &str) -> String {
    with(id, "resources/unsubscribe", &format!(r#""uri":"{uri}""#))
}

fn uris(uris: &[&str]) -> String {
    let uris: Vec<_> = uris.iter().map(|uri| format!("\"{uri}\"")).collect();
    format!(r#""resourceSubscriptions":[{}]"#, uris.join(","))
}

fn updated(id: &str, uri: &str) -> String {
    of_subscription(id, "notifications/resources/updated", &format!(r#","uri":"{uri}""#))
}

fn told_updated(uri: &str) -> Vec<Output> {
    let text = with("0", "notifications/resources/updated", &format!(r#""uri":"{uri}""#));
    events(LISTENING, &[text.replace(r#""id":0,"#, "")])
}

const LATE: Note = Note::Dropped(Dropped::Late);

// Lists.

#[test]
fn the_child_is_asked_to_tell_of_its_lists_once_the_client_is_ready_and_once() {
    // `A` the child answers, `i` the client says initialized, `r` it sends a request.
    for (steps, want) in
        [("Ai", "l"), ("iA", "l"), ("Ar", "lr"), ("rA", "rl"), ("Airi", "lr"), ("A", ""), ("i", "")]
    {
        let mut session = Harness::starting(DOWNGRADED, &initialize("2025-11-25", DECLARED));
        session.stdin();
        for (number, step) in steps.chars().enumerate() {
            match step {
                'A' => session.says(&discovered("1", LISTS)),
                'i' => session.send(2, &note("notifications/initialized")),
                _ => session.send(3, &request(&number.to_string(), "x")),
            };
        }
        let seen: String = session
            .stdin()
            .iter()
            .map(|line| {
                let is_listen = line.contains("subscriptions/listen");
                assert!(
                    !is_listen || line.ends_with(&format!(r#""notifications":{{{WANTED}}}}}}}"#)),
                    "{line}"
                );
                if is_listen { 'l' } else { 'r' }
            })
            .collect();
        assert_eq!(seen, want, "{steps}");
    }
}

fn listening() -> Harness<Downgrade> {
    let mut session = Harness::greeted(DOWNGRADED, "2025-11-25", DECLARED, LISTS);
    assert_eq!(session.stdin().pop(), Some(listen("2", WANTED)));
    session
}

#[test]
fn a_change_reaches_who_listens_without_the_bridges_own_subscription() {
    let mut session = listening();
    assert_eq!(session.says(&acknowledged("2", r#""toolsListChanged":true"#)), []);
    let method = "notifications/tools/list_changed";
    let told = session.says(&of_subscription("2", method, ""));
    assert_eq!(told, events(LISTENING, &[note(method).replace('}', r#","params":{}}"#)]));
    let told = session.says(&of_subscription("7", method, ""));
    assert_eq!(told, [dropped(Dropped::UnknownId).unwrap()], "it is nobody's");
    assert!(session.stdin().is_empty());
    assert_eq!(session.front.in_flight(), 0, "and it keeps no session from being idle");
}

#[test]
fn a_subscription_that_the_child_ends_is_made_again_after_a_pause_that_doubles() {
    let ends: [fn(&str) -> String; 3] = [cancel, |id| child_result(id, ""), error];
    for end in ends {
        let mut session = listening();
        let mut id = "2".to_owned();
        let mut pause = FIRST_PAUSE;
        for _ in 0..8 {
            assert_eq!(session.says(&end(&id)), []);
            assert_eq!(session.front.next_deadline(), Some(session.now + pause));
            session.pass(pause - Duration::from_millis(1));
            assert!(session.stdin().is_empty());
            session.pass(Duration::from_millis(1));
            id = session.seen();
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
        assert_eq!(pause, LONGEST_PAUSE);
        session.says(&acknowledged(&id, WANTED));
        session.says(&end(&id));
        assert_eq!(session.front.next_deadline(), Some(session.now + FIRST_PAUSE), "it had been served");
    }
}

#[test]
fn a_child_that_knows_no_subscriptions_is_asked_no_more() {
    let mut session = listening();
    session.says(r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32601,"message":"no"}}"#);
    assert_eq!(session.front.next_deadline(), None);
    session.pass(secs(1000));
    session.passed(3, &request("7", "x"));
}

#[test]
fn a_subscription_whose_answer_cannot_be_taken_has_ended() {
    let mut session = listening();
    session.too_long(r#"{"jsonrpc":"2.0","id":2,"result":{"#);
    session.front.check();
    session.pass(FIRST_PAUSE);
    assert_eq!(session.stdin(), [listen("3", WANTED)]);
    session.broken(r#"{"jsonrpc":"2.0","id":3,"result":NaN}"#);
    session.front.check();
    assert!(session.front.next_deadline().is_some());
}

// Resources.

#[test]
fn a_client_that_subscribes_is_answered_when_the_child_has_agreed() {
    let mut session = Harness::open();
    assert_eq!(session.send(3, &subscribe("7", "u")), []);
    assert_eq!(session.stdin(), [listen("2", &uris(&["u"]))]);
    assert_eq!(session.says(&updated("2", "u")), [Output::Note(LATE)], "not before the child has agreed");
    assert_eq!(session.says(&acknowledged("2", &uris(&["u"]))), answered(3, &result("7")));
    assert_eq!(session.says(&updated("2", "u")), told_updated("u"));
    assert_eq!(session.send(3, &subscribe("8", "u")), answered(3, &result("8")), "it has that");
    assert_eq!(session.send(3, &unsubscribe("9", "x")), answered(3, &result("9")), "it never had that");
    assert!(session.stdin().is_empty());
    session.assert_empty();
}

#[test]
fn each_change_is_another_subscription_and_the_old_one_counts_until_the_new_one_is_there() {
    let mut session = Harness::open();
    session.send(3, &subscribe("7", "u"));
    session.says(&acknowledged("2", &uris(&["u"])));
    session.stdin();
    session.send(3, &subscribe("8", "v"));
    assert_eq!(session.stdin(), [listen("3", &uris(&["u", "v"]))]);
    assert_eq!(session.says(&updated("2", "u")), told_updated("u"));
    assert_eq!(session.says(&acknowledged("3", &uris(&["v", "u"]))), answered(3, &result("8")));
    assert_eq!(session.stdin(), [withdrawn("2")]);
    assert_eq!(session.says(&updated("2", "u")), [Output::Note(LATE)], "none comes twice");
    assert_eq!(session.says(&updated("3", "u")), told_updated("u"));
    assert_eq!(session.says(&child_result("2", "")), [Output::Note(LATE)], "its graceful end");
    assert_eq!(session.send(4, &unsubscribe("9", "u")), []);
    assert_eq!(session.stdin(), [listen("4", &uris(&["v"]))]);
    assert_eq!(session.says(&acknowledged("4", &uris(&["v"]))), answered(4, &result("9")));
    assert_eq!(session.stdin(), [withdrawn("3")]);
    assert_eq!(session.send(4, &unsubscribe("10", "v")), answered(4, &result("10")), "the last: at once");
    assert_eq!(session.stdin(), [withdrawn("4")]);
    assert_eq!(session.front.next_deadline(), None);
    session.assert_empty();
}

#[test]
fn what_changes_meanwhile_waits_and_is_changed_at_once() {
    let mut session = Harness::open();
    session.send(3, &subscribe("7", "a"));
    for (id, text) in [
        ("8", subscribe("8", "b")),
        ("9", subscribe("9", "c")),
        ("10", unsubscribe("10", "a")),
        ("11", unsubscribe("11", "c")),
    ] {
        assert_eq!(session.send(4, &text), [], "{id} waits");
    }
    assert_eq!(session.stdin().len(), 1);
    assert_eq!(session.says(&acknowledged("2", &uris(&["a"]))), answered(3, &result("7")));
    assert_eq!(session.stdin(), [listen("3", &uris(&["b"]))]);
    let done: Vec<_> = ["8", "9", "10", "11"].iter().flat_map(|id| answered(4, &result(id))).collect();
    assert_eq!(session.says(&acknowledged("3", &uris(&["b"]))), done);
}

#[test]
fn a_resource_that_the_child_does_not_tell_of_is_refused_and_is_not_asked_for_again() {
    let mut session = Harness::open();
    session.send(3, &subscribe("7", "u"));
    session.send(4, &subscribe("8", "v"));
    session.send(5, &subscribe("9", "w"));
    session.stdin();
    let refused =
        |id: &str| failure(id, -32602, "invalid_params", "The server does not tell of this resource");
    assert_eq!(session.says(&acknowledged("2", "")), answered(3, &refused("7")));
    assert_eq!(session.stdin(), [withdrawn("2"), listen("3", &uris(&["v", "w"]))]);
    let told = session.says(&acknowledged("3", &uris(&["w"])));
    assert_eq!(told, [answered(4, &refused("8")), answered(5, &result("9"))].concat());
    assert_eq!(session.front.resources.uris(), ["w"]);
    session.assert_empty();
}

#[test]
fn a_child_that_refuses_tells_those_who_asked_and_all_else_stays_as_it_was() {
    let mut session = Harness::open();
    session.send(3, &subscribe("7", "u"));
    session.says(&acknowledged("2", &uris(&["u"])));
    session.send(4, &subscribe("8", "v"));
    session.stdin();
    let told = session.says(r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32021,"message":"no"}}"#);
    assert_eq!(told, answered(4, r#"{"jsonrpc":"2.0","id":8,"error":{"code":-32603,"message":"no"}}"#));
    assert!(session.stdin().is_empty());
    assert_eq!(session.says(&updated("2", "u")), told_updated("u"));
    session.send(4, &subscribe("9", "w"));
    let why = "The server has ended the subscription";
    assert_eq!(
        session.says(&child_result("4", "")),
        answered(4, &failure("9", -32603, "subscription_ended", why))
    );
    assert_eq!(session.front.next_deadline(), None);
    session.assert_empty();
}

#[test]
fn a_child_that_does_not_acknowledge_does_not_keep_its_client_waiting() {
    let mut session = Harness::open();
    session.send(3, &subscribe("7", "u"));
    session.send(4, &subscribe("8", "v"));
    session.stdin();
    let why = "The server has not acknowledged the subscription in time";
    assert_eq!(session.pass(OWN_LIMIT), answered(3, &failure("7", -32603, "request_timeout", why)));
    assert_eq!(session.stdin(), [withdrawn("2"), listen("3", &uris(&["v"]))]);
    assert_eq!(session.says(&acknowledged("2", &uris(&["u"]))), [Output::Note(LATE)]);
    assert_eq!(session.says(&acknowledged("3", &uris(&["v"]))), answered(4, &result("8")));
    assert_eq!(session.front.next_deadline(), None);
}

#[test]
fn subscriptions_that_the_child_ends_are_made_again_after_a_pause_or_with_the_next_change() {
    let mut session = Harness::open();
    session.send(3, &subscribe("7", "u"));
    session.says(&acknowledged("2", &uris(&["u"])));
    session.stdin();
    session.says(&cancel("2"));
    assert_eq!(session.front.next_deadline(), Some(FIRST_PAUSE));
    session.pass(FIRST_PAUSE);
    assert_eq!(session.stdin(), [listen("3", &uris(&["u"]))]);
    session.says(&acknowledged("3", &uris(&["u"])));
    assert_eq!(session.says(&updated("3", "u")), told_updated("u"));
    session.says(&cancel("3"));
    session.send(3, &subscribe("8", "v"));
    assert_eq!(session.stdin(), [listen("4", &uris(&["u", "v"]))]);
    session.says(&error("4"));
    assert_eq!(
        session.front.next_deadline(),
        Some(session.now + 2 * FIRST_PAUSE),
        "what it had is wanted yet"
    );
    session.pass(2 * FIRST_PAUSE);
    assert_eq!(session.stdin(), [listen("5", &uris(&["u"]))]);
    session.says(r#"{"jsonrpc":"2.0","id":5,"error":{"code":-32601,"message":"no"}}"#);
    assert_eq!(session.front.next_deadline(), None, "it knows no subscriptions");
    session.assert_empty();
}

#[test]
fn a_child_that_ends_the_old_one_while_the_new_one_is_made_loses_nothing_of_it() {
    let mut session = Harness::open();
    session.send(3, &subscribe("7", "u"));
    session.says(&acknowledged("2", &uris(&["u"])));
    session.send(4, &subscribe("8", "v"));
    session.stdin();
    session.says(&cancel("2"));
    assert_eq!(session.says(&acknowledged("3", &uris(&["u", "v"]))), answered(4, &result("8")));
    assert!(session.stdin().is_empty(), "there is nothing to end");
    assert_eq!(session.says(&updated("3", "u")), told_updated("u"));
}

#[test]
fn a_subscription_that_its_client_cancels_or_that_is_late_ends_for_the_client() {
    let mut session = Harness::open();
    session.send(3, &subscribe("7", "u"));
    assert_eq!(session.send(4, &cancel("7")), [unanswered(3, "7", Unanswered::Cancelled)]);
    assert_eq!(session.says(&acknowledged("2", &uris(&["u"]))), []);
    session.assert_empty();
    let mut session =
        Harness::greeted(Limits { request_timeout: secs(5), ..LIMITS }, "2025-11-25", DECLARED, CAPABILITIES);
    session.send(3, &subscribe("7", "u"));
    assert_eq!(session.pass(secs(5)), [unanswered(3, "7", Unanswered::Timeout)]);
}

#[test]
fn what_waits_for_the_child_keeps_nothing_of_requests_that_have_ended_and_no_text_of_what_nobody_has() {
    let set = |id: &str| with(id, "logging/setLevel", r#""level":"info""#);
    let mut session = Harness::starting(DOWNGRADED, &initialize("2025-11-25", DECLARED));
    for _ in 0..3 {
        for request in [set("7"), unsubscribe("7", "u"), subscribe("7", "u")] {
            session.send(3, &request);
            assert_eq!(session.send(4, &cancel("7")), [unanswered(3, "7", Unanswered::Cancelled)]);
        }
    }
    session.says(&discovered("1", CAPABILITIES));
    assert!(session.stdin().iter().all(|line| !line.contains("subscriptions/listen")), "nobody wants it now");
    assert_eq!(session.front.level, None);
    session.send(3, &subscribe("7", "u"));
    session.send(3, &unsubscribe("8", &"x".repeat(MAX_URI_BYTES)));
    session.send(3, &unsubscribe("9", "u"));
    assert!(session.front.resources.kept() < 10, "{:?}", session.front.resources);
    let id = session.seen();
    let told = session.says(&acknowledged(&id, &uris(&["u"])));
    assert_eq!(
        told,
        [answer(3, &result("7")), answer(3, &result("8")), answer(3, &result("9"))].map(Option::unwrap)
    );
    assert_eq!(session.stdin(), [withdrawn(&id)]);
}

#[test]
fn what_is_no_subscription_is_refused_and_what_is_too_much() {
    let mut session = Harness::open();
    for params in ["", r#""uri":7"#, r#""uri":"""#] {
        let told = session.send(3, &with("7", "resources/subscribe", params));
        assert!(matches!(told[..], [Output::Answer { success: false, .. }]), "{params}");
    }
    let full = |session: &mut Harness<Downgrade>, uri: &str| {
        let told = session.send(3, &subscribe("\"full\"", uri));
        let want =
            failure("\"full\"", -32603, "too_many_subscriptions", "This session has too many subscriptions");
        assert_eq!(told, answered(3, &want));
    };
    full(&mut session, &"x".repeat(MAX_URI_BYTES + 1));
    assert!(session.stdin().is_empty());
    let mut session =
        Harness::greeted(Limits { max_in_flight: 2000, ..LIMITS }, "2025-11-25", DECLARED, CAPABILITIES);
    for number in 0..MAX_URIS {
        session.send(3, &subscribe(&number.to_string(), &format!("u{number}")));
    }
    full(&mut session, "more");
    let mut session = Harness::greeted(DOWNGRADED, "2025-11-25", DECLARED, r#"{"resources":{}}"#);
    let why = "Method not found: the server offers no subscriptions to resources";
    assert_eq!(
        session.send(3, &subscribe("7", "u")),
        answered(3, &failure("7", -32601, "method_not_found", why))
    );
    session.assert_empty();
}

#[test]
fn a_uri_is_what_it_stands_for_however_it_is_spelt() {
    let mut session = Harness::open();
    session.send(3, &subscribe("7", "\\u0075\\n"));
    assert_eq!(session.stdin(), [listen("2", &uris(&["u\\n"]))]);
    session.says(&acknowledged("2", &uris(&["\\u0075\\u000a"])));
    assert_eq!(session.send(3, &subscribe("8", "u\\n")), answered(3, &result("8")));
}

/// A child that reads a line when it is told to, and tells of each change on all subscriptions that it has.
struct Child {
    unread: VecDeque<Value>,
    /// Its subscriptions, and the resources of each.
    listens: Vec<(String, Vec<String>)>,
}

impl Child {
    fn read(&mut self, session: &mut Harness<Downgrade>) -> Vec<Output> {
        let lines = session.stdin();
        self.unread.extend(lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        let Some(line) = self.unread.pop_front() else { return Vec::new() };
        if line["method"] == "notifications/cancelled" {
            let id = line["params"]["requestId"].to_string();
            self.listens.retain(|(listen, _)| *listen != id);
            return told(session.says(&child_result(&id, "")));
        }
        let wanted = line["params"]["notifications"]["resourceSubscriptions"].as_array().unwrap();
        let wanted: Vec<_> = wanted.iter().map(|uri| uri.as_str().unwrap().to_owned()).collect();
        let id = line["id"].to_string();
        let honoured: Vec<_> = wanted.iter().map(String::as_str).collect();
        let outputs = session.says(&acknowledged(&id, &uris(&honoured)));
        self.listens.push((id, wanted));
        outputs
    }

    fn changes(&self, uri: &str, session: &mut Harness<Downgrade>) -> Vec<Output> {
        let wants = self.listens.iter().filter(|(_, uris)| uris.iter().any(|wanted| wanted == uri));
        wants.flat_map(|(id, _)| told(session.says(&updated(id, uri)))).collect()
    }
}

#[test]
fn in_every_order_each_change_is_told_once_and_each_request_is_answered_once() {
    // The client subscribes to u, lets go of it, and subscribes to v; the child reads a line; u changes.
    const STEPS: [char; 5] = ['u', 'n', 'v', 'r', 'c'];
    const LENGTH: u32 = 5;
    for order in 0..STEPS.len().pow(LENGTH) {
        let then = (0..LENGTH).map(|place| STEPS[order / STEPS.len().pow(place) % STEPS.len()]);
        let steps: String = std::iter::once('u').chain(then).collect();
        let mut session = Harness::open();
        let mut child = Child { unread: VecDeque::new(), listens: Vec::new() };
        let (mut answers, mut sent, mut want) = (Vec::new(), 0, BTreeSet::new());
        for step in steps.chars() {
            if matches!(step, 'u' | 'n' | 'v') {
                sent += 1;
            }
            let id = sent.to_string();
            match step {
                'u' => {
                    want.insert("u");
                    answers.extend(session.send(3, &subscribe(&id, "u")));
                }
                'n' => {
                    want.remove("u");
                    answers.extend(session.send(3, &unsubscribe(&id, "u")));
                }
                'v' => {
                    want.insert("v");
                    answers.extend(session.send(3, &subscribe(&id, "v")));
                }
                'r' => answers.extend(child.read(&mut session)),
                _ => {
                    let counts = session.front.resources.uris().contains(&"u");
                    let events = child.changes("u", &mut session);
                    assert_eq!(events.len(), usize::from(counts), "{steps}: {events:?}");
                }
            }
        }
        loop {
            answers.extend(child.read(&mut session));
            session
                .stdin()
                .iter()
                .for_each(|line| child.unread.push_back(serde_json::from_str(line).unwrap()));
            if child.unread.is_empty() {
                break;
            }
        }
        let answered: BTreeSet<_> = answers
            .iter()
            .map(|output| match output {
                Output::Answer { message, success: true, .. } => {
                    serde_json::from_slice::<Value>(message).unwrap()["id"].as_u64().unwrap()
                }
                other => panic!("{steps}: {other:?}"),
            })
            .collect();
        assert_eq!((answers.len(), answered.len()), (sent, sent), "{steps}");
        assert_eq!(session.front.resources.uris(), want.iter().copied().collect::<Vec<_>>(), "{steps}");
        assert!(child.listens.len() <= 1, "{steps}: {:?}", child.listens);
        let has = child.listens.iter().flat_map(|(_, uris)| uris.iter().map(String::as_str));
        assert_eq!(has.collect::<BTreeSet<_>>(), want, "{steps}");
        session.assert_empty();
    }
}
