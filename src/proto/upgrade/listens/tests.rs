use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::*;
use crate::proto::ids::Id;

const ALL: Offered = Offered { tools: true, prompts: true, resources: true, subscribe: true };

fn client(token: &str) -> ClientId {
    ClientId(Id::parse(token).unwrap())
}

/// Adds a subscription whose client calls it by the number of its stream.
fn add(listens: &mut Listens, stream: u64, wants: &str) -> Result<Added, NotAdded> {
    listens.add(StreamId(stream), client(&stream.to_string()), wants, ALL)
}

fn uris(uris: &[&str]) -> String {
    json!({ "resourceSubscriptions": uris }).to_string()
}

fn texts(uris: &[&str]) -> Vec<Box<str>> {
    uris.iter().map(|uri| (*uri).into()).collect()
}

/// What has gone out, parsed.
fn seen(events: Vec<(StreamId, Bytes)>) -> Vec<(u64, Value)> {
    events.into_iter().map(|(stream, text)| (stream.0, serde_json::from_slice(&text).unwrap())).collect()
}

fn acknowledged(stream: u64, notifications: Value) -> (u64, Value) {
    let params = json!({ "_meta": { SUBSCRIPTION_ID: stream }, "notifications": notifications });
    let method = "notifications/subscriptions/acknowledged";
    (stream, json!({ "jsonrpc": "2.0", "method": method, "params": params }))
}

/// What a subscription gets of a change.
fn told(stream: u64, method: &str, mut params: Value) -> (u64, Value) {
    params["_meta"] = json!({ SUBSCRIPTION_ID: stream });
    (stream, json!({ "jsonrpc": "2.0", "method": method, "params": params }))
}

fn list_changed(of: &str) -> (String, String) {
    let method = format!("notifications/{of}/list_changed");
    let text = json!({ "jsonrpc": "2.0", "method": method }).to_string();
    (method, text)
}

fn updated(listens: &mut Listens, uri: &str) -> Vec<(u64, Value)> {
    let text = json!({ "jsonrpc": "2.0", "method": UPDATED, "params": { "uri": uri } }).to_string();
    seen(listens.changed(UPDATED, Some(uri), &text))
}

// The filter.

#[test]
fn a_filter_says_true_or_false_of_lists_and_names_uris() {
    let table = [
        ("", "must be an object"),
        ("null", "must be an object"),
        ("[]", "must be an object"),
        ("true", "must be an object"),
        (r#"{"toolsListChanged":null}"#, "must be true or false"),
        (r#"{"promptsListChanged":1}"#, "must be true or false"),
        (r#"{"resourcesListChanged":"true"}"#, "must be true or false"),
        (r#"{"resourceSubscriptions":null}"#, "must be an array of URIs"),
        (r#"{"resourceSubscriptions":{}}"#, "must be an array of URIs"),
        (r#"{"resourceSubscriptions":"file:///a"}"#, "must be an array of URIs"),
        (r#"{"resourceSubscriptions":["file:///a",1]}"#, "must be an array of URIs"),
        (r#"{"resourceSubscriptions":[["file:///a"]]}"#, "must be an array of URIs"),
        (r#"{"resourceSubscriptions":[""]}"#, "must be an array of URIs"),
        (r#"{"resourceSubscriptions":["\ud800"]}"#, "must be an array of URIs"),
    ];
    for (wants, why) in table {
        let mut listens = Listens::default();
        match add(&mut listens, 1, wants) {
            Err(NotAdded::Invalid(sentence)) => assert!(sentence.ends_with(why), "{wants}: {sentence}"),
            other => panic!("{wants}: {other:?}"),
        }
        assert!(listens.is_empty());
        listens.check();
    }
    for wants in ["{}", r#" {"future":7} "#, r#"{"toolsListChanged":false,"resourceSubscriptions":[]}"#] {
        let added = add(&mut Listens::default(), 1, wants).unwrap();
        assert_eq!(seen(added.events), [acknowledged(1, json!({}))], "{wants}");
    }
}

#[test]
fn a_client_is_told_what_of_its_wishes_the_child_can_tell() {
    let wants = r#"{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true,"resourceSubscriptions":["a"]}"#;
    let table = [
        (Offered::default(), json!({})),
        (Offered { tools: true, ..Offered::default() }, json!({ "toolsListChanged": true })),
        (Offered { prompts: true, ..Offered::default() }, json!({ "promptsListChanged": true })),
        (Offered { resources: true, ..Offered::default() }, json!({ "resourcesListChanged": true })),
    ];
    for (offered, honoured) in table {
        let mut listens = Listens::default();
        let added = listens.add(StreamId(1), client("1"), wants, offered).unwrap();
        assert!(added.subscribe.is_empty(), "{offered:?}: the child has no subscriptions");
        assert_eq!(seen(added.events), [acknowledged(1, honoured)], "{offered:?}");
        listens.check();
    }
}

#[test]
fn ids_come_back_as_their_client_spelt_them() {
    for id in ["1", r#""1""#, r#""\u0061""#, "-0", "123456789012345678901234567890"] {
        let mut listens = Listens::default();
        let added = listens.add(StreamId(4), client(id), r#"{"toolsListChanged":true}"#, ALL).unwrap();
        let member = format!("\"{SUBSCRIPTION_ID}\":{id}}}");
        let (method, text) = list_changed("tools");
        let changed = listens.changed(&method, None, &text);
        for (stream, text) in added.events.into_iter().chain(changed) {
            assert_eq!(stream, StreamId(4));
            assert!(std::str::from_utf8(&text).unwrap().contains(&member), "{text:?}");
        }
    }
}

// Resources.

#[test]
fn a_client_is_told_when_all_its_uris_are_decided_and_of_those_that_the_child_takes() {
    let mut listens = Listens::default();
    let added = add(&mut listens, 1, &uris(&["b", "a", "c"])).unwrap();
    assert_eq!(added, Added { subscribe: texts(&["b", "a", "c"]), events: vec![] });
    assert_eq!(listens.subscribed("a", false), []);
    assert_eq!(listens.subscribed("c", true), []);
    let want = [acknowledged(1, json!({ "resourceSubscriptions": ["b", "c"] }))];
    assert_eq!(seen(listens.subscribed("b", true)), want);
    assert_eq!(updated(&mut listens, "a"), [], "the child has refused it");
    assert_eq!(updated(&mut listens, "b"), [told(1, UPDATED, json!({ "uri": "b" }))]);
    assert_eq!(listens.remove(StreamId(1)), Some(texts(&["b", "c"])));
    assert_eq!(listens.remove(StreamId(1)), None);
    listens.check();
}

#[test]
fn a_client_all_of_whose_uris_are_refused_is_told_that_too() {
    let mut listens = Listens::default();
    add(&mut listens, 1, &uris(&["a"])).unwrap();
    assert_eq!(seen(listens.subscribed("a", false)), [acknowledged(1, json!({}))]);
    assert_eq!(listens.remove(StreamId(1)), Some(vec![]), "the child has nothing to unsubscribe");
}

#[test]
fn the_child_is_asked_once_for_what_several_want_and_let_go_of_with_the_last() {
    let mut listens = Listens::default();
    assert_eq!(add(&mut listens, 1, &uris(&["a"])).unwrap().subscribe, texts(&["a"]));
    // Before the child has answered, and after.
    assert_eq!(add(&mut listens, 2, &uris(&["a"])).unwrap(), Added { subscribe: vec![], events: vec![] });
    let honoured = json!({ "resourceSubscriptions": ["a"] });
    let want = [acknowledged(1, honoured.clone()), acknowledged(2, honoured.clone())];
    assert_eq!(seen(listens.subscribed("a", true)), want);
    let third = add(&mut listens, 3, &uris(&["a"])).unwrap();
    assert_eq!((third.subscribe, seen(third.events)), (vec![], vec![acknowledged(3, honoured)]));
    for stream in [2, 1] {
        assert_eq!(listens.remove(StreamId(stream)), Some(vec![]));
    }
    assert_eq!(updated(&mut listens, "a"), [told(3, UPDATED, json!({ "uri": "a" }))]);
    assert_eq!(listens.remove(StreamId(3)), Some(texts(&["a"])));
    listens.check();
}

#[test]
fn one_uri_in_several_spellings_is_one() {
    let mut listens = Listens::default();
    let wants = r#"{"resourceSubscriptions":["file:///é","file:\/\/\/\u00e9","file:///é"]}"#;
    assert_eq!(add(&mut listens, 1, wants).unwrap().subscribe, texts(&["file:///é"]));
    assert_eq!(add(&mut listens, 2, &uris(&["file:///é"])).unwrap().subscribe, texts(&[]));
    assert_eq!(listens.subscribed("file:///é", true).len(), 2);
    assert_eq!(updated(&mut listens, "file:///é").len(), 2, "and each is told once");
    listens.check();
}

#[test]
fn what_is_let_go_of_and_wanted_again_is_decided_by_the_childs_last_answer() {
    for (first, last) in [(true, true), (false, true), (true, false), (false, false)] {
        let mut listens = Listens::default();
        add(&mut listens, 1, &uris(&["a"])).unwrap();
        assert_eq!(listens.remove(StreamId(1)), Some(texts(&["a"])), "it may have been asked for");
        assert_eq!(add(&mut listens, 2, &uris(&["a"])).unwrap().subscribe, texts(&["a"]), "again");
        assert_eq!(listens.subscribed("a", first), []);
        let honoured = if last { json!({ "resourceSubscriptions": ["a"] }) } else { json!({}) };
        assert_eq!(seen(listens.subscribed("a", last)), [acknowledged(2, honoured)]);
        assert_eq!(listens.subscribed("a", last), [], "the child was asked twice");
        listens.check();
    }
}

#[test]
fn an_answer_that_comes_after_the_last_client_has_gone_changes_nothing() {
    let mut listens = Listens::default();
    add(&mut listens, 1, &uris(&["a"])).unwrap();
    listens.remove(StreamId(1));
    assert_eq!(listens.subscribed("a", true), []);
    assert_eq!(listens.subscribed("b", true), [], "nor one to what was not asked");
    assert!(listens.resources.is_empty());
    listens.check();
}

#[test]
fn who_wants_a_resource_is_told_of_what_is_within_it() {
    let table = [
        ("file:///a", "file:///a", true),
        ("file:///a", "file:///a/b", true),
        ("file:///a", "file:///a/", true),
        ("file:///a/", "file:///a/b/c", true),
        ("file:///a", "file:///ab", false),
        ("file:///a", "file:///", false),
        ("file:///a/", "file:///a", false),
        ("file:///a", "FILE:///a", false),
    ];
    for (wanted, changed, is_told) in table {
        let mut listens = Listens::default();
        add(&mut listens, 1, &uris(&[wanted])).unwrap();
        listens.subscribed(wanted, true);
        assert_eq!(updated(&mut listens, changed).len(), usize::from(is_told), "{wanted} {changed}");
    }
    let mut listens = Listens::default();
    add(&mut listens, 1, &uris(&["a", "a/b"])).unwrap();
    listens.subscribed("a", true);
    listens.subscribed("a/b", true);
    assert_eq!(updated(&mut listens, "a/b").len(), 1, "once");
}

// Changes.

#[test]
fn a_change_reaches_all_who_wanted_it_and_nobody_else() {
    let mut listens = Listens::default();
    for (stream, list) in [(1, "tools"), (2, "prompts"), (3, "resources"), (4, "tools")] {
        add(&mut listens, stream, &format!(r#"{{"{list}ListChanged":true}}"#)).unwrap();
    }
    for (list, streams) in [("tools", vec![1, 4]), ("prompts", vec![2]), ("resources", vec![3])] {
        let (method, text) = list_changed(list);
        let want: Vec<_> = streams.into_iter().map(|stream| told(stream, &method, json!({}))).collect();
        assert_eq!(seen(listens.changed(&method, None, &text)), want);
        assert_eq!(seen(listens.changed(&method, Some("x"), &text)), want, "a URI changes nothing");
    }
    for method in ["notifications/message", "notifications/progress", "notifications/cancelled", UPDATED, "x"]
    {
        assert_eq!(listens.changed(method, None, &list_changed("tools").1), [], "{method}");
    }
}

#[test]
fn a_change_before_the_client_was_told_what_it_will_hear_of_follows_once() {
    let mut listens = Listens::default();
    let wants = r#"{"toolsListChanged":true,"resourceSubscriptions":["a","b","c"]}"#;
    add(&mut listens, 1, wants).unwrap();
    let (method, text) = list_changed("tools");
    let (other, other_text) = list_changed("prompts");
    for _ in 0..3 {
        assert_eq!(listens.changed(&method, None, &text), []);
        assert_eq!(listens.changed(&other, None, &other_text), []);
        for uri in ["a/1", "b", "c"] {
            assert_eq!(updated(&mut listens, uri), []);
        }
    }
    listens.subscribed("a", true);
    listens.subscribed("c", false);
    let want = [
        acknowledged(1, json!({ "toolsListChanged": true, "resourceSubscriptions": ["a", "b"] })),
        told(1, &method, json!({})),
        told(1, UPDATED, json!({ "uri": "a" })),
        told(1, UPDATED, json!({ "uri": "b" })),
    ];
    assert_eq!(seen(listens.subscribed("b", true)), want);
    assert_eq!(
        seen(listens.changed(&method, None, &text)),
        [told(1, &method, json!({}))],
        "from now on at once"
    );
}

#[test]
fn a_message_gets_the_id_of_its_subscription_and_is_else_as_it_was() {
    let table = [
        (r#"{"jsonrpc":"2.0","method":"m"}"#, r#"{"jsonrpc":"2.0","method":"m","params":{"_meta":{@}}}"#),
        (
            r#" {"jsonrpc":"2.0","method":"m" } "#,
            r#" {"jsonrpc":"2.0","method":"m" ,"params":{"_meta":{@}}} "#,
        ),
        (
            r#"{"params":{},"method":"m","jsonrpc":"2.0"}"#,
            r#"{"params":{"_meta":{@}},"method":"m","jsonrpc":"2.0"}"#,
        ),
        (r#"{"params":{ },"x":{}}"#, r#"{"params":{"_meta":{@} },"x":{}}"#),
        (r#"{"params":{"uri":"a\u0062","n":1.0}}"#, r#"{"params":{"_meta":{@},"uri":"a\u0062","n":1.0}}"#),
        (r#"{"params":{"uri":"a","_meta":{}}}"#, r#"{"params":{"uri":"a","_meta":{@}}}"#),
        (
            r#"{"params":{"_meta":{ "k":[{}] },"uri":"a"}}"#,
            r#"{"params":{"_meta":{@, "k":[{}] },"uri":"a"}}"#,
        ),
        (r#"{"params":null}"#, r#"{"params":{"_meta":{@}}}"#),
        (r#"{"params":[1]}"#, r#"{"params":{"_meta":{@}}}"#),
        (r#"{"params":{"_meta":null,"uri":"a"}}"#, r#"{"params":{"_meta":{@},"uri":"a"}}"#),
        (
            r#"{"params":{"_meta":{"io.modelcontextprotocol/subscriptionId":99,"k":1}}}"#,
            r#"{"params":{"_meta":{@,"k":1}}}"#,
        ),
        ("{\"params\":\r\n{\"uri\":\"a\"}}", "{\"params\":  {\"_meta\":{@},\"uri\":\"a\"}}"),
    ];
    for (text, want) in table {
        let mut listens = Listens::default();
        listens.add(StreamId(1), client("\"s\""), r#"{"toolsListChanged":true}"#, ALL).unwrap();
        let got = listens.changed(LISTS[0].1, None, text);
        let want = want.replace('@', &format!("\"{SUBSCRIPTION_ID}\":\"s\""));
        assert_eq!(got, [(StreamId(1), Bytes::from(want))], "{text}");
    }
}

#[test]
fn a_message_of_megabytes_is_not_copied_for_each() {
    let mut listens = Listens::default();
    add(&mut listens, 1, &uris(&["a"])).unwrap();
    listens.subscribed("a", true);
    let text = format!(r#"{{"params":{{"uri":"a/b","x":"{}"}}}}"#, "x".repeat(MAX_COPIED));
    let want = [told(1, UPDATED, json!({ "uri": "a" }))];
    assert_eq!(seen(listens.changed(UPDATED, Some("a/b"), &text)), want);
}

// The end, and the bounds.

#[test]
fn all_end_well_and_nothing_is_left() {
    let mut listens = Listens::default();
    add(&mut listens, 1, &uris(&["a"])).unwrap();
    add(&mut listens, 2, "{}").unwrap();
    let want = [1, 2].map(|stream| (StreamId(stream), graceful_end(&client(&stream.to_string()))));
    assert_eq!(listens.ends(), want);
    assert_eq!((listens.len(), listens.ends()), (0, vec![]));
    assert_eq!(listens.subscribed("a", true), []);
    listens.check();
}

#[test]
fn subscriptions_and_their_uris_are_bounded_and_one_that_ends_makes_room() {
    let mut listens = Listens::default();
    for stream in 0..MAX_LISTENS as u64 {
        add(&mut listens, stream, "{}").unwrap();
    }
    assert_eq!(add(&mut listens, 1000, "{}"), Err(NotAdded::Full));
    listens.remove(StreamId(7));
    add(&mut listens, 1000, "{}").unwrap();
    assert_eq!(add(&mut listens, 1000, "{}"), Err(NotAdded::Full), "a stream has one");
    listens.check();

    let numbered = |count: usize, length: usize| {
        let uris: Vec<String> =
            (0..count).map(|number| format!("{number:04}{}", "x".repeat(length - 4))).collect();
        json!({ "resourceSubscriptions": uris }).to_string()
    };
    let mut listens = Listens::default();
    add(&mut listens, 1, &numbered(600, 4)).unwrap();
    assert_eq!(
        add(&mut listens, 2, &numbered(600, 4)),
        Err(NotAdded::Full),
        "those of several count as often"
    );
    assert_eq!(add(&mut listens, 2, &numbered(401, 5)), Err(NotAdded::Full));
    add(&mut listens, 2, &numbered(400, 5)).unwrap();
    listens.remove(StreamId(1));
    assert_eq!(
        add(&mut listens, 1, &numbered(600, 6)),
        Err(NotAdded::Full),
        "the child has not answered yet"
    );
    (0..600).for_each(|number| assert_eq!(listens.subscribed(&format!("{number:04}"), true), []));
    add(&mut listens, 1, &numbered(600, 6)).unwrap();
    listens.check();

    let mut listens = Listens::default();
    assert_eq!(add(&mut listens, 1, &numbered(1001, 4)), Err(NotAdded::Full));
    assert_eq!(add(&mut listens, 1, &numbered(3, 400_000)), Err(NotAdded::Full));
    assert_eq!(add(&mut listens, 1, &numbered(6, 400_000)), Err(NotAdded::Full), "it is not even read");
    add(&mut listens, 1, &numbered(2, 400_000)).unwrap();
    assert_eq!(add(&mut listens, 2, &numbered(1, 300_000)), Err(NotAdded::Full));
    listens.check();
}

// Whatever happens.

const URIS: [&str; 5] = ["a", "a/b", "b", "é\"\\", "c/"];

#[derive(Clone, Debug)]
enum Step {
    Add { lists: [bool; 3], uris: Vec<&'static str>, offered: bool },
    Subscribed(Index, bool),
    Remove(Index),
    Updated(&'static str),
    ListChanged(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<[bool; 3]>(), prop::collection::vec(select(&URIS[..]), 0..4), prop::bool::weighted(0.9))
            .prop_map(|(lists, uris, offered)| Step::Add { lists, uris, offered }),
        6 => (any::<Index>(), prop::bool::weighted(0.8)).prop_map(|(asked, ok)| Step::Subscribed(asked, ok)),
        2 => any::<Index>().prop_map(Step::Remove),
        3 => select(&URIS[..]).prop_map(Step::Updated),
        2 => (0usize..3).prop_map(Step::ListChanged),
    ]
}

proptest! {
    #[test]
    fn each_client_is_acknowledged_once_and_before_all_else_and_the_child_knows_what_is_wanted(
        steps in prop::collection::vec(any_step(), 0..60),
    ) {
        let mut listens = Listens::default();
        let (mut live, mut acknowledged) = (Vec::new(), BTreeSet::new());
        // What the child has been asked and has not answered, and what it has been asked for and not let go of.
        let (mut asked, mut subscribed) = (Vec::new(), BTreeSet::new());
        for (number, step) in steps.into_iter().enumerate() {
            let stream = StreamId(number as u64);
            let events = match step {
                Step::Add { lists: [tools, prompts, resources], uris, offered } => {
                    let wants = json!({
                        "toolsListChanged": tools, "promptsListChanged": prompts,
                        "resourcesListChanged": resources, "resourceSubscriptions": uris,
                    });
                    let offered = Offered { subscribe: offered, ..ALL };
                    let added = listens.add(stream, client(&number.to_string()), &wants.to_string(), offered).unwrap();
                    live.push(stream);
                    asked.extend(added.subscribe.iter().cloned());
                    subscribed.extend(added.subscribe);
                    added.events
                }
                Step::Subscribed(..) if asked.is_empty() => continue,
                Step::Subscribed(index, ok) => {
                    let uri = asked.remove(index.index(asked.len()));
                    if !ok && !asked.contains(&uri) {
                        subscribed.remove(&uri);
                    }
                    listens.subscribed(&uri, ok)
                }
                Step::Remove(_) if live.is_empty() => continue,
                Step::Remove(index) => {
                    let stream = live.remove(index.index(live.len()));
                    acknowledged.remove(&stream);
                    for uri in listens.remove(stream).unwrap() {
                        prop_assert!(subscribed.remove(&uri), "{uri} was asked for");
                    }
                    vec![]
                }
                Step::Updated(uri) => {
                    let text = json!({ "jsonrpc": "2.0", "method": UPDATED, "params": { "uri": uri } }).to_string();
                    listens.changed(UPDATED, Some(uri), &text)
                }
                Step::ListChanged(list) => listens.changed(LISTS[list].1, None, r#"{"jsonrpc":"2.0","method":"m"}"#),
            };
            for (stream, text) in events {
                prop_assert!(live.contains(&stream));
                let text: Value = serde_json::from_slice(&text).unwrap();
                prop_assert_eq!(&text["params"]["_meta"][SUBSCRIPTION_ID], &json!(stream.0));
                let is_first = text["method"] == "notifications/subscriptions/acknowledged";
                prop_assert_eq!(acknowledged.insert(stream), is_first);
            }
            listens.check();
            let known: BTreeSet<Box<str>> = listens.resources.iter()
                .filter(|(_, resource)| resource.listens > 0).map(|(uri, _)| (**uri).into()).collect();
            prop_assert_eq!(&known, &subscribed);
            prop_assert!(!asked.is_empty() || acknowledged.len() == live.len(), "nothing is left to be decided");
        }
    }

    #[test]
    fn no_filter_and_no_message_is_too_odd(wants in "\\PC{0,60}", text in "\\PC{0,60}", uri in "\\PC{0,9}") {
        let mut listens = Listens::default();
        let _ = add(&mut listens, 1, &wants);
        add(&mut listens, 2, r#"{"toolsListChanged":true,"resourceSubscriptions":["a"]}"#).unwrap();
        listens.subscribed("a", true);
        listens.changed(LISTS[0].1, None, &text);
        listens.changed(UPDATED, Some(&uri), &text);
        listens.check();
    }

    #[test]
    fn what_a_json_message_says_else_stays(params in any_json(), id in select(&["7", "\"s\"", "\"\\u0061\""][..])) {
        let mut listens = Listens::default();
        listens.add(StreamId(1), client(id), r#"{"toolsListChanged":true}"#, ALL).unwrap();
        let message = json!({ "jsonrpc": "2.0", "method": LISTS[0].1, "params": params });
        let events = seen(listens.changed(LISTS[0].1, None, &message.to_string()));
        let id: Value = serde_json::from_str(id).unwrap();
        let mut want = message;
        if !want["params"].is_object() {
            want["params"] = json!({});
        }
        if !want["params"]["_meta"].is_object() {
            want["params"]["_meta"] = json!({});
        }
        want["params"]["_meta"][SUBSCRIPTION_ID] = id;
        prop_assert_eq!(events, [(1, want)]);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let name =
            prop_oneof!["_meta".boxed(), Just(SUBSCRIPTION_ID.to_owned()).boxed(), "[a-z\"]{0,2}".boxed()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}
