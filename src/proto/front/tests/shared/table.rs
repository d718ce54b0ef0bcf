//! The dialogues. Lane A's client can be asked all there is, lane B's can be asked to fill in a form, lane C's nothing. The
//! child knows the first request of a lane as 2, the next one as 3.

use super::*;

#[test]
fn each_session_gets_what_names_a_call_of_its_own() {
    play(
        "equal ids and tokens do not meet",
        &[
            (
                "A",
                r#"{"id":7,"method":"m","params":{"_meta":{"progressToken":"t"}}}"#,
                &[r#"child {"id":2,"method":"m","params":{"_meta":{"progressToken":2}}}"#],
            ),
            (
                "B",
                r#"{"id":7,"method":"m","params":{"_meta":{"progressToken":"t"}}}"#,
                &[r#"child {"id":3,"method":"m","params":{"_meta":{"progressToken":3}}}"#],
            ),
            (
                "child",
                r#"{"method":"notifications/progress","params":{"progressToken":3}}"#,
                &[r#"B {"method":"notifications/progress","params":{"progressToken":"t"}}"#],
            ),
            ("child", r#"{"id":3,"result":{}}"#, &[r#"B {"id":7,"result":{}}"#]),
            ("child", r#"{"id":3,"result":{}}"#, &["dropped: late"]),
            (
                "child",
                r#"{"method":"notifications/progress","params":{"progressToken":3}}"#,
                &["dropped: shared"],
            ),
            (
                "child",
                r#"{"method":"notifications/progress","params":{"progressToken":"t"}}"#,
                &["dropped: shared"],
            ),
            ("child", r#"{"id":2.0,"error":{}}"#, &[r#"A {"id":7,"error":{}}"#]),
        ],
    );
    play(
        "ids come back as they were written",
        &[
            ("A", r#"{"id":"\u0061","method":"m"}"#, &[r#"child {"id":2,"method":"m"}"#]),
            (
                "child",
                r#"{"method":"notifications/progress","params":{"progressToken":2}}"#,
                &[r#"A {"method":"notifications/progress","params":{"progressToken":"\u0061"}}"#],
            ),
            (
                "A",
                r#"{"id":"a","method":"m"}"#,
                &[r#"refused: DuplicateId(ClientId(Id { raw: "\"a\"", canonical: None }))"#],
            ),
            ("child", r#"{"id":2,"result":{}}"#, &[r#"A {"id":"\u0061","result":{}}"#]),
        ],
    );
    play(
        "a cancellation ends a call of its own session alone",
        &[
            ("A", r#"{"id":7,"method":"m"}"#, &[r#"child {"id":2,"method":"m"}"#]),
            ("B", r#"{"id":7,"method":"m"}"#, &[r#"child {"id":3,"method":"m"}"#]),
            ("C", r#"{"method":"notifications/cancelled","params":{"requestId":7}}"#, &[]),
            ("C", r#"{"method":"notifications/cancelled","params":{"requestId":2}}"#, &[]),
            ("C", r#"{"method":"notifications/cancelled","params":{}}"#, &[]),
            (
                "B",
                r#"{"method":"notifications/cancelled","params":{"requestId":7}}"#,
                &[r#"child {"method":"notifications/cancelled","params":{"requestId":3}}"#],
            ),
            ("ms", "5000", &["B 7 ends: Cancelled"]),
            ("child", r#"{"id":3,"result":{}}"#, &["dropped: late"]),
            ("child", r#"{"id":2,"result":{}}"#, &[r#"A {"id":7,"result":{}}"#]),
        ],
    );
}

#[test]
fn what_would_touch_another_session_is_not_passed_on() {
    play(
        "requests",
        &[
            ("A", r#"{"id":7,"method":"ping"}"#, &[r#"child {"id":2,"method":"ping"}"#]),
            ("child", r#"{"id":2,"result":{}}"#, &[r#"A {"id":7,"result":{}}"#]),
            (
                "A",
                r#"{"id":7,"method":"tasks/list"}"#,
                &[
                    r#"A {"id":7,"error":{"code":-32601,"message":"Sessions that share a server cannot ask it this","data":{"source":"mcp-bridge","reason":"method_not_found"}}}"#,
                ],
            ),
            (
                "A",
                r#"{"id":7,"method":"notifications/cancelled","params":{"requestId":2}}"#,
                &[
                    r#"A {"id":7,"error":{"code":-32601,"message":"Sessions that share a server cannot ask it this","data":{"source":"mcp-bridge","reason":"method_not_found"}}}"#,
                ],
            ),
            ("A", r#"{"id":7,"method":"notifications/initialized"}"#, &[r#"A {"id":7,"result":{}}"#]),
        ],
    );
    play(
        "notifications",
        &[
            ("A", r#"{"method":"notifications/initialized"}"#, &[]),
            ("A", r#"{"method":"notifications/roots/list_changed"}"#, &[]),
            ("A", r#"{"method":"notifications/progress","params":{"progressToken":"t"}}"#, &[]),
            ("A", r#"{"method":"other"}"#, &[r#"child {"method":"other"}"#]),
        ],
    );
}

#[test]
fn the_child_is_told_the_lowest_level_of_all() {
    play(
        "each session hears what it has set",
        &[
            ("C", r#"{"id":1,"method":"m"}"#, &[r#"child {"id":2,"method":"m"}"#]),
            (
                "child",
                r#"{"method":"notifications/message","params":{"level":"debug"}}"#,
                &[r#"C {"method":"notifications/message","params":{"level":"debug"}}"#],
            ),
            ("child", r#"{"id":2,"result":{}}"#, &[r#"C {"id":1,"result":{}}"#]),
            (
                "A",
                r#"{"id":7,"method":"logging/setLevel","params":{"level":"error"}}"#,
                &[r#"child {"id":3,"method":"logging/setLevel","params":{"level":"error"}}"#],
            ),
            ("child", r#"{"id":3,"result":{}}"#, &[r#"A {"id":7,"result":{}}"#]),
            (
                "B",
                r#"{"id":7,"method":"logging/setLevel","params":{"level":"debug","_meta":{"progressToken":1}}}"#,
                &[
                    r#"child {"id":4,"method":"logging/setLevel","params":{"level":"debug","_meta":{"progressToken":4}}}"#,
                ],
            ),
            ("child", r#"{"id":4,"result":{}}"#, &[r#"B {"id":7,"result":{}}"#]),
            (
                "A",
                r#"{"method":"logging/setLevel","params":{"_meta":{"progressToken":1},"level":"alert","x":[]},"id":7}"#,
                &[
                    r#"child {"method":"logging/setLevel","params":{"_meta":{"progressToken":5},"level":"debug","x":[]},"id":5}"#,
                ],
            ),
            (
                "child",
                r#"{"method":"notifications/progress","params":{"progressToken":5}}"#,
                &[r#"A {"method":"notifications/progress","params":{"progressToken":1}}"#],
            ),
            ("child", r#"{"id":5,"result":{}}"#, &[r#"A {"id":7,"result":{}}"#]),
            (
                "A",
                r#"{"id":7,"method":"logging/setLevel","params":{"level":"error","_meta":{"progressToken":1}}}"#,
                &[
                    r#"child {"id":6,"method":"logging/setLevel","params":{"level":"debug","_meta":{"progressToken":6}}}"#,
                ],
            ),
            (
                "child",
                r#"{"method":"notifications/message","params":{"level":"critical"}}"#,
                &[r#"A {"method":"notifications/message","params":{"level":"critical"}}"#],
            ),
            (
                "child",
                r#"{"method":"notifications/message","params":{"level":"warning"}}"#,
                &["dropped: shared"],
            ),
            ("child", r#"{"id":6,"result":{}}"#, &[r#"A {"id":7,"result":{}}"#]),
            ("C", r#"{"id":1,"method":"m"}"#, &[r#"child {"id":7,"method":"m"}"#]),
            (
                "child",
                r#"{"method":"notifications/message","params":{"level":"debug"}}"#,
                &["dropped: shared"],
            ),
            (
                "child",
                r#"{"method":"notifications/message","params":{"level":"info"}}"#,
                &[r#"C {"method":"notifications/message","params":{"level":"info"}}"#],
            ),
            ("B", "leaves", &[r#"child {"id":8,"method":"logging/setLevel","params":{"level":"error"}}"#]),
            ("child", r#"{"id":8,"result":{}}"#, &[]),
            ("child", r#"{"id":7,"result":{}}"#, &[r#"C {"id":1,"result":{}}"#]),
        ],
    );
    play(
        "what the child refuses does not count",
        &[
            (
                "A",
                r#"{"id":7,"method":"logging/setLevel","params":{"level":"error"}}"#,
                &[r#"child {"id":2,"method":"logging/setLevel","params":{"level":"error"}}"#],
            ),
            ("child", r#"{"id":2,"result":{}}"#, &[r#"A {"id":7,"result":{}}"#]),
            (
                "A",
                r#"{"id":7,"method":"logging/setLevel","params":{"level":"loud"}}"#,
                &[r#"child {"id":3,"method":"logging/setLevel","params":{"level":"loud"}}"#],
            ),
            ("child", r#"{"id":3,"error":{}}"#, &[r#"A {"id":7,"error":{}}"#]),
            (
                "B",
                r#"{"id":7,"method":"logging/setLevel","params":{"level":"debug"}}"#,
                &[r#"child {"id":4,"method":"logging/setLevel","params":{"level":"debug"}}"#],
            ),
            (
                "child",
                r#"{"id":4,"error":{}}"#,
                &[
                    r#"B {"id":7,"error":{}}"#,
                    r#"child {"id":5,"method":"logging/setLevel","params":{"level":"error"}}"#,
                ],
            ),
            ("child", r#"{"id":5,"error":{}}"#, &[]),
            ("A", r#"{"id":8,"method":"m"}"#, &[r#"child {"id":6,"method":"m"}"#]),
            (
                "child",
                r#"{"method":"notifications/message","params":{"level":"warning"}}"#,
                &["dropped: shared"],
            ),
            ("child", r#"{"id":6,"result":{}}"#, &[r#"A {"id":8,"result":{}}"#]),
        ],
    );
}

#[test]
fn a_log_line_reaches_the_one_session_that_it_can_be_of() {
    let log = r#"{"method":"notifications/message","params":{"level":"info"}}"#;
    let of_a = r#"A {"method":"notifications/message","params":{"level":"info"}}"#;
    let other = r#"{"method":"notifications/tasks/status"}"#;
    play(
        "a log line",
        &[
            ("child", log, &["dropped: shared"]),
            ("A", r#"{"id":7,"method":"m"}"#, &[r#"child {"id":2,"method":"m"}"#]),
            ("A", r#"{"id":8,"method":"m"}"#, &[r#"child {"id":3,"method":"m"}"#]),
            ("child", log, &[of_a]),
            ("child", other, &[r#"A {"method":"notifications/tasks/status"}"#]),
            ("B", r#"{"id":8,"method":"m"}"#, &[r#"child {"id":4,"method":"m"}"#]),
            ("child", log, &["dropped: shared"]),
            ("child", other, &["dropped: shared"]),
            ("child", r#"{"id":4,"result":{}}"#, &[r#"B {"id":8,"result":{}}"#]),
            ("child", log, &[of_a]),
            ("B", r#"{"id":8,"method":"m"}"#, &[r#"child {"id":5,"method":"m"}"#]),
            (
                "B",
                "leaves",
                &[
                    "B 8 ends: Cancelled",
                    r#"child {"method":"notifications/cancelled","params":{"requestId":5,"reason":"the client has gone"}}"#,
                ],
            ),
            ("child", log, &["dropped: shared"]),
            ("ms", "4999", &[]),
            ("child", log, &["dropped: shared"]),
            ("ms", "1", &[]),
            ("child", log, &[of_a]),
            ("C", r#"{"id":8,"method":"m"}"#, &[r#"child {"id":6,"method":"m"}"#]),
            (
                "C",
                "leaves",
                &[
                    "C 8 ends: Cancelled",
                    r#"child {"method":"notifications/cancelled","params":{"requestId":6,"reason":"the client has gone"}}"#,
                ],
            ),
            ("child", r#"{"id":6,"result":{}}"#, &["dropped: late"]),
            ("child", log, &[of_a]),
            ("child", r#"{"id":2,"result":{}}"#, &[r#"A {"id":7,"result":{}}"#]),
            ("child", r#"{"id":3,"result":{}}"#, &[r#"A {"id":8,"result":{}}"#]),
            ("child", log, &["dropped: shared"]),
        ],
    );
}

#[test]
fn a_resource_has_one_subscription_at_the_child_and_many_here() {
    let updated = r#"{"method":"notifications/resources/updated","params":{"uri":"a:/b/c"}}"#;
    play(
        "holders",
        &[
            (
                "A",
                r#"{"id":7,"method":"resources/subscribe","params":{"uri":"a:/b"}}"#,
                &[r#"child {"id":2,"method":"resources/subscribe","params":{"uri":"a:/b"}}"#],
            ),
            (
                "child",
                updated,
                &[r#"A {"method":"notifications/resources/updated","params":{"uri":"a:/b/c"}}"#],
            ),
            ("child", r#"{"id":2,"result":{}}"#, &[r#"A {"id":7,"result":{}}"#]),
            (
                "B",
                r#"{"id":7,"method":"resources/subscribe","params":{"uri":"a:\/b"}}"#,
                &[r#"B {"id":7,"result":{}}"#],
            ),
            (
                "C",
                r#"{"id":7,"method":"resources/unsubscribe","params":{"uri":"a:/b"}}"#,
                &[r#"C {"id":7,"result":{}}"#],
            ),
            (
                "A",
                r#"{"id":8,"method":"resources/unsubscribe","params":{"uri":"a:/b"}}"#,
                &[r#"A {"id":8,"result":{}}"#],
            ),
            (
                "child",
                updated,
                &[r#"B {"method":"notifications/resources/updated","params":{"uri":"a:/b/c"}}"#],
            ),
            (
                "child",
                r#"{"method":"notifications/resources/updated","params":{"uri":"a:/bc"}}"#,
                &["dropped: shared"],
            ),
            (
                "B",
                r#"{"id":8,"method":"resources/unsubscribe","params":{"uri":"a:/b"}}"#,
                &[r#"child {"id":3,"method":"resources/unsubscribe","params":{"uri":"a:/b"}}"#],
            ),
            ("child", updated, &["dropped: shared"]),
            ("child", r#"{"id":3,"result":{}}"#, &[r#"B {"id":8,"result":{}}"#]),
            (
                "A",
                r#"{"id":7,"method":"resources/unsubscribe","params":{"uri":"x"}}"#,
                &[r#"child {"id":4,"method":"resources/unsubscribe","params":{"uri":"x"}}"#],
            ),
            ("child", r#"{"id":4,"error":{}}"#, &[r#"A {"id":7,"error":{}}"#]),
        ],
    );
    play(
        "a refused one is none, also where another has relied on it",
        &[
            (
                "A",
                r#"{"id":7,"method":"resources/subscribe","params":{"uri":"u"}}"#,
                &[r#"child {"id":2,"method":"resources/subscribe","params":{"uri":"u"}}"#],
            ),
            ("child", r#"{"id":2,"error":{}}"#, &[r#"A {"id":7,"error":{}}"#]),
            (
                "child",
                r#"{"method":"notifications/resources/updated","params":{"uri":"u"}}"#,
                &["dropped: shared"],
            ),
            (
                "A",
                r#"{"id":7,"method":"resources/subscribe","params":{"uri":"u"}}"#,
                &[r#"child {"id":3,"method":"resources/subscribe","params":{"uri":"u"}}"#],
            ),
            (
                "B",
                r#"{"id":7,"method":"resources/subscribe","params":{"uri":"u"}}"#,
                &[r#"child {"id":4,"method":"resources/subscribe","params":{"uri":"u"}}"#],
            ),
            ("child", r#"{"id":3,"result":{}}"#, &[r#"A {"id":7,"result":{}}"#]),
            (
                "A",
                r#"{"id":7,"method":"resources/unsubscribe","params":{"uri":"u"}}"#,
                &[r#"A {"id":7,"result":{}}"#],
            ),
            (
                "child",
                r#"{"id":4,"error":{}}"#,
                &[
                    r#"B {"id":7,"error":{}}"#,
                    r#"child {"id":5,"method":"resources/unsubscribe","params":{"uri":"u"}}"#,
                ],
            ),
            ("child", r#"{"id":5,"result":{}}"#, &[]),
        ],
    );
    play(
        "the last that leaves releases it",
        &[
            (
                "A",
                r#"{"id":7,"method":"resources/subscribe","params":{"uri":"u"}}"#,
                &[r#"child {"id":2,"method":"resources/subscribe","params":{"uri":"u"}}"#],
            ),
            (
                "B",
                r#"{"id":7,"method":"resources/subscribe","params":{"uri":"u"}}"#,
                &[r#"child {"id":3,"method":"resources/subscribe","params":{"uri":"u"}}"#],
            ),
            ("child", r#"{"id":2,"result":{}}"#, &[r#"A {"id":7,"result":{}}"#]),
            ("A", "leaves", &[]),
            (
                "B",
                "leaves",
                &[
                    "B 7 ends: Cancelled",
                    r#"child {"method":"notifications/cancelled","params":{"requestId":3,"reason":"the client has gone"}}"#,
                    r#"child {"id":4,"method":"resources/unsubscribe","params":{"uri":"u"}}"#,
                ],
            ),
        ],
    );
}

#[test]
fn what_is_of_the_server_itself_is_for_all() {
    for list in ["tools", "prompts", "resources"] {
        let changed = format!(r#"{{"method":"notifications/{list}/list_changed"}}"#);
        let told = LANES.map(|lane| format!("{lane} {changed}"));
        let [a, b, c] = &told;
        play(list, &[("child", &changed, &[a, b, c]), ("B", "leaves", &[]), ("child", &changed, &[a, c])]);
    }
}

#[test]
fn the_child_asks_the_session_whose_call_it_is() {
    let asks = r#"{"id":"q","method":"elicitation/create","params":{"_meta":{"progressToken":"p"}}}"#;
    let of_a = r#"A {"id":"q","method":"elicitation/create","params":{"_meta":{"progressToken":"p"}}}"#;
    let call = r#"{"id":7,"method":"m"}"#;
    let refused = |why: &str| format!(r#"child {{"id":"q","error":{{"code":-32601,"message":"{why}"}}}}"#);
    let nobodys = refused("no call is running that this can belong to");
    let unserved = refused("the client of this call does not serve such requests");
    let unclear = refused("it is unclear to which of several calls this belongs");
    play(
        "one session has calls",
        &[
            ("child", r#"{"id":"p","method":"ping"}"#, &[r#"child {"id":"p","result":{}}"#]),
            ("child", asks, &[&nobodys]),
            ("A", call, &[r#"child {"id":2,"method":"m"}"#]),
            ("A", r#"{"id":8,"method":"m"}"#, &[r#"child {"id":3,"method":"m"}"#]),
            ("child", asks, &[of_a]),
            ("child", asks, &[&refused("a request with this id has no answer yet")]),
            ("B", r#"{"id":"q","result":{}}"#, &["refused: UnknownResponse"]),
            ("B", r#"{"method":"notifications/progress","params":{"progressToken":"p"}}"#, &[]),
            (
                "A",
                r#"{"method":"notifications/progress","params":{"progressToken":"p"}}"#,
                &[r#"child {"method":"notifications/progress","params":{"progressToken":"p"}}"#],
            ),
            (
                "A",
                r#"{"id":"\u0071", "result":{"action":"accept"}}"#,
                &[r#"child {"id":"\u0071", "result":{"action":"accept"}}"#],
            ),
            ("A", r#"{"id":"q","result":{}}"#, &["refused: UnknownResponse"]),
            ("A", r#"{"method":"notifications/progress","params":{"progressToken":"p"}}"#, &[]),
            ("child", r#"{"id":"q","method":"x/y"}"#, &[r#"A {"id":"q","method":"x/y"}"#]),
            ("A", r#"{"id":"q","error":{}}"#, &[r#"child {"id":"q","error":{}}"#]),
            ("child", r#"{"id":2,"result":{}}"#, &[r#"A {"id":7,"result":{}}"#]),
            ("child", r#"{"id":3,"result":{}}"#, &[r#"A {"id":8,"result":{}}"#]),
        ],
    );
    play(
        "what a client has not declared it is not asked",
        &[
            ("B", call, &[r#"child {"id":2,"method":"m"}"#]),
            (
                "child",
                asks,
                &[r#"B {"id":"q","method":"elicitation/create","params":{"_meta":{"progressToken":"p"}}}"#],
            ),
            ("B", r#"{"id":"q","result":{}}"#, &[r#"child {"id":"q","result":{}}"#]),
            ("child", r#"{"id":"q","method":"elicitation/create","params":{"mode":"url"}}"#, &[&unserved]),
            ("child", r#"{"id":"q","method":"sampling/createMessage","params":{}}"#, &[&unserved]),
            ("C", call, &[r#"child {"id":3,"method":"m"}"#]),
            ("child", r#"{"id":"q","method":"roots/list"}"#, &[&unserved]),
        ],
    );
    play(
        "it waits until only one session has calls of those that there were",
        &[
            ("A", call, &[r#"child {"id":2,"method":"m"}"#]),
            ("B", call, &[r#"child {"id":3,"method":"m"}"#]),
            ("child", asks, &[]),
            ("C", call, &[r#"child {"id":4,"method":"m"}"#]),
            ("child", r#"{"id":3,"result":{}}"#, &[of_a, r#"B {"id":7,"result":{}}"#]),
            ("A", r#"{"id":"q","result":{}}"#, &[r#"child {"id":"q","result":{}}"#]),
        ],
    );
    play(
        "and for five seconds",
        &[
            ("A", call, &[r#"child {"id":2,"method":"m"}"#]),
            ("B", call, &[r#"child {"id":3,"method":"m"}"#]),
            ("child", asks, &[]),
            ("ms", "4999", &[]),
            ("ms", "1", &[&unclear]),
        ],
    );
    play(
        "a call that has ended without an answer may be the one that asks",
        &[
            ("A", call, &[r#"child {"id":2,"method":"m"}"#]),
            ("B", call, &[r#"child {"id":3,"method":"m"}"#]),
            (
                "B",
                "leaves",
                &[
                    "B 7 ends: Cancelled",
                    r#"child {"method":"notifications/cancelled","params":{"requestId":3,"reason":"the client has gone"}}"#,
                ],
            ),
            ("child", asks, &[]),
            ("child", r#"{"id":3,"error":{}}"#, &["dropped: late", &unclear]),
            (
                "A",
                "leaves",
                &[
                    "A 7 ends: Cancelled",
                    r#"child {"method":"notifications/cancelled","params":{"requestId":2,"reason":"the client has gone"}}"#,
                ],
            ),
            (
                "child",
                r#"{"id":"q","method":"roots/list"}"#,
                &[r#"child {"id":"q","error":{"code":-32603,"message":"the client has not answered"}}"#],
            ),
        ],
    );
    play(
        "and one that was cancelled, which the child then answers",
        &[
            ("A", call, &[r#"child {"id":2,"method":"m"}"#]),
            ("B", call, &[r#"child {"id":3,"method":"m"}"#]),
            ("child", asks, &[]),
            (
                "B",
                r#"{"method":"notifications/cancelled","params":{"requestId":7}}"#,
                &[r#"child {"method":"notifications/cancelled","params":{"requestId":3}}"#],
            ),
            ("child", r#"{"id":3,"error":{}}"#, &[r#"B {"id":7,"error":{}}"#, &unclear]),
            (
                "child",
                r#"{"id":"p","method":"elicitation/create"}"#,
                &[r#"A {"id":"p","method":"elicitation/create"}"#],
            ),
        ],
    );
    play(
        "whose session has gone answers nobody",
        &[
            ("A", call, &[r#"child {"id":2,"method":"m"}"#]),
            ("B", call, &[r#"child {"id":3,"method":"m"}"#]),
            ("child", asks, &[]),
            (
                "A",
                "leaves",
                &[
                    "A 7 ends: Cancelled",
                    r#"child {"method":"notifications/cancelled","params":{"requestId":2,"reason":"the client has gone"}}"#,
                ],
            ),
            (
                "child",
                r#"{"id":3,"result":{}}"#,
                &[r#"B {"id":7,"result":{}}"#, r#"child {"id":"q","result":{"action":"cancel"}}"#],
            ),
        ],
    );
}

#[test]
fn a_session_that_asks_for_a_task_gets_a_plain_answer() {
    let call = |params: &str| format!(r#"{{"id":7,"method":"tools/call","params":{params}}}"#);
    for (asked, passed) in [
        (r#"{"name":"a","task":{"ttl":1}}"#, r#"{"name":"a"}"#),
        (
            r#"{"task" : {"ttl":1}, "_meta":{"progressToken":"t"}, "name":"a"}"#,
            r#"{"_meta":{"progressToken":2}, "name":"a"}"#,
        ),
        (
            r#"{"_meta":{"progressToken":"t"}, "task":{}, "arguments":{"task":1}}"#,
            r#"{"_meta":{"progressToken":2}, "arguments":{"task":1}}"#,
        ),
    ] {
        let sent = format!(r#"child {{"id":2,"method":"tools/call","params":{passed}}}"#);
        play(
            asked,
            &[
                ("A", &call(asked), &[&sent]),
                ("child", r#"{"id":2,"result":{}}"#, &[r#"A {"id":7,"result":{}}"#]),
            ],
        );
    }
}

#[test]
fn the_child_takes_a_question_back() {
    let asks = r#"{"id":5,"method":"roots/list"}"#;
    let back = r#"{"method":"notifications/cancelled","params":{"requestId":5}}"#;
    play(
        "while its session has it, and while it waits",
        &[
            ("child", back, &["dropped: shared"]),
            ("A", r#"{"id":7,"method":"m"}"#, &[r#"child {"id":2,"method":"m"}"#]),
            ("child", asks, &[r#"A {"id":5,"method":"roots/list"}"#]),
            ("child", back, &[r#"A {"method":"notifications/cancelled","params":{"requestId":5}}"#]),
            ("A", r#"{"id":5,"result":{}}"#, &["refused: UnknownResponse"]),
            ("B", r#"{"id":7,"method":"m"}"#, &[r#"child {"id":3,"method":"m"}"#]),
            ("child", asks, &[]),
            ("child", back, &[]),
            ("ms", "5000", &[]),
        ],
    );
}

#[test]
fn who_was_asked_to_open_a_url_hears_that_it_is_done() {
    let done = r#"{"method":"notifications/elicitation/complete","params":{"elicitationId":"e"}}"#;
    let of_a = r#"A {"method":"notifications/elicitation/complete","params":{"elicitationId":"e"}}"#;
    play(
        "in a question",
        &[
            ("A", r#"{"id":7,"method":"m"}"#, &[r#"child {"id":2,"method":"m"}"#]),
            (
                "child",
                r#"{"id":5,"method":"elicitation/create","params":{"mode":"url","elicitationId":"e"}}"#,
                &[r#"A {"id":5,"method":"elicitation/create","params":{"mode":"url","elicitationId":"e"}}"#],
            ),
            ("A", r#"{"id":5,"result":{}}"#, &[r#"child {"id":5,"result":{}}"#]),
            ("child", r#"{"id":2,"result":{}}"#, &[r#"A {"id":7,"result":{}}"#]),
            ("B", r#"{"id":7,"method":"m"}"#, &[r#"child {"id":3,"method":"m"}"#]),
            ("child", done, &[of_a]),
            ("child", done, &["dropped: shared"]),
        ],
    );
    play(
        "in an error",
        &[
            ("A", r#"{"id":7,"method":"m"}"#, &[r#"child {"id":2,"method":"m"}"#]),
            ("B", r#"{"id":7,"method":"m"}"#, &[r#"child {"id":3,"method":"m"}"#]),
            (
                "child",
                r#"{"id":2,"error":{"code":-32042,"data":{"elicitations":[{},{"elicitationId":"e"}]}}}"#,
                &[r#"A {"id":7,"error":{"code":-32042,"data":{"elicitations":[{},{"elicitationId":"e"}]}}}"#],
            ),
            ("child", done, &[of_a]),
        ],
    );
    play(
        "but not of one name that two were given",
        &[
            ("A", r#"{"id":7,"method":"m"}"#, &[r#"child {"id":2,"method":"m"}"#]),
            ("B", r#"{"id":7,"method":"m"}"#, &[r#"child {"id":3,"method":"m"}"#]),
            (
                "child",
                r#"{"id":2,"error":{"code":-32042,"data":{"elicitations":[{"elicitationId":"e"}]}}}"#,
                &[r#"A {"id":7,"error":{"code":-32042,"data":{"elicitations":[{"elicitationId":"e"}]}}}"#],
            ),
            (
                "child",
                r#"{"id":3,"error":{"code":-32042,"data":{"elicitations":[{"elicitationId":"e"}]}}}"#,
                &[r#"B {"id":7,"error":{"code":-32042,"data":{"elicitations":[{"elicitationId":"e"}]}}}"#],
            ),
            ("child", done, &["dropped: shared"]),
        ],
    );
}

#[test]
fn an_answer_without_an_id_ends_the_one_call_that_it_can_be_of() {
    let invalid = r#" ends: Invalid(Wrong { what: "it has no id, and may be the late one to another request", at: 0 })"#;
    play(
        "an answer without an id",
        &[
            ("A", r#"{"id":7,"method":"m"}"#, &[r#"child {"id":2,"method":"m"}"#]),
            ("child", r#"{"id":null,"result":{}}"#, &[r#"A {"id":7,"result":{}}"#]),
            ("A", r#"{"id":7,"method":"m"}"#, &[r#"child {"id":3,"method":"m"}"#]),
            ("B", r#"{"id":7,"method":"m"}"#, &[r#"child {"id":4,"method":"m"}"#]),
            ("child", r#"{"id":null,"result":{}}"#, &["dropped: unknown_id"]),
            (
                "B",
                "leaves",
                &[
                    "B 7 ends: Cancelled",
                    r#"child {"method":"notifications/cancelled","params":{"requestId":4,"reason":"the client has gone"}}"#,
                ],
            ),
            (
                "child",
                r#"{"id":null,"result":{}}"#,
                &[
                    &format!("A 7{invalid}"),
                    r#"child {"method":"notifications/cancelled","params":{"requestId":3,"reason":"it is not clear whether it has been answered"}}"#,
                ],
            ),
        ],
    );
}
