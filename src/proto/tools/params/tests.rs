use proptest::prelude::*;
use serde_json::json;

use super::*;

fn learnt(schema: &Value) -> ToolParams {
    let mut params = ToolParams::default();
    let tools = json!({ "tools": [{ "name": "t", "inputSchema": schema }] });
    params.learn(&tools.to_string());
    params
}

/// The headers that a schema names, each with where its parameter is.
fn named(schema: &Value) -> Vec<(String, String)> {
    let params = learnt(schema);
    let named = params.tools.get("t").into_iter().flat_map(|params| params.iter());
    named.map(|param| (param.header.to_string(), param.path.join("."))).collect()
}

fn property(annotation: &Value, kind: &Value) -> Value {
    json!({ "properties": { "a": { "type": kind, "x-mcp-header": annotation } } })
}

fn headers(headers: &[(&str, &str)]) -> Vec<(Box<str>, Box<[u8]>)> {
    headers.iter().map(|(name, value)| ((*name).into(), value.as_bytes().into())).collect()
}

// Schemas.

#[test]
fn a_parameter_anywhere_in_a_chain_of_properties_is_found() {
    let schema = json!({
        "type": "object",
        "properties": {
            "region": { "type": "string", "x-mcp-header": "Region", "description": "x" },
            "query": { "type": "string" },
            "nested": { "properties": {
                "deep": { "type": "object", "properties": { "flag": { "type": "boolean", "x-mcp-header": "FLAG" } } },
                "count": { "x-mcp-header": "a!#$%&'*+-.^_`|~9", "type": "integer" },
            } },
            "x-mcp-header": { "type": "string" },
            "é.b": { "type": "string", "x-mcp-header": "E" },
        },
    });
    let mut got = named(&schema);
    got.sort();
    let want = [
        ("a!#$%&'*+-.^_`|~9", "nested.count"),
        ("e", "é.b"),
        ("flag", "nested.deep.flag"),
        ("region", "region"),
    ];
    assert_eq!(got, want.map(|(header, path)| (header.to_owned(), path.to_owned())));
}

#[test]
fn a_tool_one_of_whose_annotations_is_not_valid_has_none() {
    let good = json!({ "type": "string", "x-mcp-header": "Good" });
    let bad = |property: Value| json!({ "properties": { "good": good, "a": property } });
    let within = |keyword: &str, value: Value| bad(json!({ "type": "object", keyword: value }));
    let mark = || json!({ "type": "string", "x-mcp-header": "A" });
    let mut table = vec![
        json!({ "type": "string", "x-mcp-header": "Root", "properties": { "good": good } }),
        bad(json!({ "type": "string", "x-mcp-header": "gOOD" })),
        bad(json!({ "x-mcp-header": "A" })),
    ];
    table.extend(
        ["", " ", "a b", "a:b", "é", "a\r", "a\nb", "\u{0}", "a/b", "a=b", "\"a\""]
            .map(|name| bad(json!({ "type": "string", "x-mcp-header": name }))),
    );
    table.extend(
        [json!(null), json!(1), json!(true), json!(["A"]), json!({})]
            .map(|name| bad(json!({ "type": "string", "x-mcp-header": name }))),
    );
    table.extend(
        [json!("number"), json!("object"), json!("array"), json!("null"), json!(["string"]), json!(null)]
            .map(|kind| bad(json!({ "type": kind, "x-mcp-header": "A" }))),
    );
    for keyword in
        ["items", "not", "if", "then", "else", "additionalProperties", "contains", "propertyNames", "future"]
    {
        table.push(within(keyword, mark()));
        table.push(within(keyword, json!({ "properties": { "x": mark() } })));
    }
    for keyword in ["oneOf", "anyOf", "allOf", "prefixItems", "items"] {
        table.push(within(keyword, json!([{}, mark()])));
    }
    for keyword in ["$defs", "definitions", "patternProperties", "dependentSchemas"] {
        table.push(within(keyword, json!({ "x": mark() })));
        table.push(within(keyword, json!({ "x-mcp-header": mark() })));
    }
    for schema in table {
        assert_eq!(named(&schema), [], "{schema}");
    }
    assert_eq!(named(&json!({ "properties": { "good": good } })).len(), 1, "the rest of it is");
}

#[test]
fn what_only_looks_like_an_annotation_is_none() {
    for keyword in ["const", "default", "enum", "examples"] {
        let schema = json!({ "properties": {
            "good": { "type": "string", "x-mcp-header": "Good", keyword: [{ "x-mcp-header": 1 }] },
        } });
        assert_eq!(named(&schema).len(), 1, "{schema}");
    }
    for keyword in ["$defs", "patternProperties"] {
        let schema = json!({ "properties": {
            "good": { "type": "string", "x-mcp-header": "Good", keyword: { "x-mcp-header": { "type": "string" } } },
        } });
        assert_eq!(named(&schema).len(), 1, "{schema}");
    }
}

#[test]
fn an_annotation_that_is_written_with_escapes_is_one() {
    let mut params = ToolParams::default();
    params.learn(r#"{"tools":[{"n\u0061me":"\u0074","inputSchema":{"properties":{"a":{"type":"string","x-mcp-he\u0061der":"A"}}}}]}"#);
    assert_eq!(params.check("t", Some(r#"{"a":"x"}"#), &headers(&[("a", "x")])), Ok(()));
    assert!(params.check("t", Some(r#"{"a":"x"}"#), &[]).is_err());
}

#[test]
fn a_page_says_all_that_is_known_of_its_tools_and_nothing_of_others() {
    let mut params = ToolParams::default();
    let tool = |name: &str, header: Option<&str>| {
        let mut a = json!({ "type": "string" });
        if let Some(header) = header {
            a["x-mcp-header"] = header.into();
        }
        json!({ "name": name, "inputSchema": { "properties": { "a": a } } })
    };
    let page = |tools: &[Value]| json!({ "tools": tools }).to_string();
    params.learn(&page(&[tool("one", Some("A")), tool("two", Some("B"))]));
    params.learn(&page(&[
        json!(1),
        json!({}),
        json!({ "name": 1 }),
        tool("two", Some("C")),
        tool("three", None),
    ]));
    params.learn(&page(&[json!({ "name": "four", "inputSchema": 7 }), json!({ "name": "five" })]));
    let missing = |params: &ToolParams, tool| {
        params.check(tool, Some(r#"{"a":"x"}"#), &headers(&[("b", "x")])).is_err()
    };
    let expects = ["one", "two", "three", "four", "five", "six"].map(|tool| missing(&params, tool));
    assert_eq!(expects, [true, true, false, false, false, false]);
    assert_eq!(
        params.check("two", Some(r#"{"a":"x"}"#), &headers(&[("c", "x")])),
        Ok(()),
        "it is learnt anew"
    );
    params.learn(&page(&[tool("one", None)]));
    assert!(!missing(&params, "one"));
    assert_eq!(params.bytes, "two".len() + "c".len() + "a".len());
    params = ToolParams::default();
    assert!(!missing(&params, "two") && params.bytes == 0);
    for odd in ["", "null", "[]", "{", r#"{"tools":7}"#, r#"{"tools":{}}"#, r#"{"tools":[{"name":"x"#] {
        params.learn(odd);
        assert!(params.tools.is_empty(), "{odd}");
    }
}

#[test]
fn a_cursor_names_the_next_page() {
    let table = [
        (r#"{"tools":[],"nextCursor":"a\u0062"}"#, Some("ab")),
        (r#"{"nextCursor":""}"#, Some("")),
        (r#"{"nextCursor":null}"#, None),
        (r#"{"nextCursor":7}"#, None),
        (r#"{"tools":[{"nextCursor":"x"}]}"#, None),
        ("", None),
    ];
    for (result, want) in table {
        assert_eq!(ToolParams::next_cursor(result).as_deref(), want, "{result}");
    }
}

#[test]
fn what_is_remembered_is_bounded_and_what_is_beyond_is_not_checked() {
    let mut params = ToolParams::default();
    let tools: Vec<Value> = (0..MAX_TOOLS + 5)
        .map(|number| json!({ "name": number.to_string(), "inputSchema": property(&json!("A"), &json!("string")) }))
        .collect();
    params.learn(&json!({ "tools": tools }).to_string());
    assert_eq!(params.tools.len(), MAX_TOOLS);
    assert_eq!(params.check("1004", Some(r#"{"a":"x"}"#), &[]), Ok(()));

    let mut params = ToolParams::default();
    let long = |length: usize| property(&json!("h".repeat(length)), &json!("string"));
    let tools: Vec<Value> =
        (0..20).map(|number| json!({ "name": number.to_string(), "inputSchema": long(100_000) })).collect();
    params.learn(&json!({ "tools": tools }).to_string());
    assert!(params.bytes <= MAX_BYTES && params.tools.len() == 10, "{}", params.bytes);
    let bytes = params.tools.iter().map(|(name, params)| bytes(name, params)).sum::<usize>();
    assert_eq!(params.bytes, bytes);
    assert_eq!(named(&long(MAX_SCHEMA)), [], "it is not looked into");
    let many = |count: usize| {
        let param = |number| json!({ "type": "string", "x-mcp-header": format!("h{number}") });
        let properties: serde_json::Map<_, _> =
            (0..count).map(|number| (format!("p{number}"), param(number))).collect();
        json!({ "properties": properties })
    };
    assert_eq!((named(&many(MAX_PARAMS)).len(), named(&many(MAX_PARAMS + 1)).len()), (MAX_PARAMS, 0));
    let mut params = ToolParams::default();
    let tool = json!({ "name": "t", "inputSchema": property(&json!("A"), &json!("string")) });
    params.learn(&json!({ "tools": [tool], "x": "x".repeat(MAX_PAGE) }).to_string());
    assert!(params.tools.is_empty());
    let mut deep = json!({ "type": "string", "x-mcp-header": "A" });
    for _ in 0..100_000 / 16 {
        deep = json!({ "properties": { "a": deep } });
        if deep.to_string().len() > 4000 {
            break;
        }
    }
    assert_eq!(named(&deep), [], "nobody nests so deep");
}

// Calls.

#[test]
fn a_header_says_what_its_argument_says() {
    let schema = json!({ "properties": {
        "s": { "type": "string", "x-mcp-header": "S" },
        "n": { "type": "object", "properties": { "i": { "type": "integer", "x-mcp-header": "I" } } },
        "b": { "type": "boolean", "x-mcp-header": "B" },
    } });
    let params = learnt(&schema);
    type Row = (&'static str, &'static [(&'static str, &'static str)], bool);
    let table: [Row; 57] = [
        ("{}", &[], true),
        ("", &[], true),
        (r#"{"s":null,"n":null,"b":null}"#, &[], true),
        (r#"{"n":{"i":null}}"#, &[], true),
        (r#"{"n":7}"#, &[], true),
        (r#"{"s":"x"}"#, &[], false),
        (r#"{"n":{"i":1}}"#, &[], false),
        (r#"{"b":false}"#, &[], false),
        ("{}", &[("s", "x")], false),
        ("{}", &[("s", "")], false),
        (r#"{"s":null}"#, &[("s", "null")], false),
        (r#"{"n":{}}"#, &[("i", "1")], false),
        (r#"{"n":[]}"#, &[("i", "1")], false),
        (r#"{"s":"x"}"#, &[("s", "x")], true),
        (r#"{"s":"x"}"#, &[("S", " x\t")], true),
        (r#"{"s":"x"}"#, &[("s", "X")], false),
        (r#"{"s":"x"}"#, &[("s", "x"), ("S", "x")], false),
        (r#"{"s":"x"}"#, &[("s", "x"), ("other", "y"), ("future", "é")], true),
        (r#"{"s":"a\u0062"}"#, &[("s", "ab")], true),
        (r#"{"s":""}"#, &[("s", "")], true),
        (r#"{"s":""}"#, &[("s", "=?base64??=")], true),
        (r#"{"s":""}"#, &[], false),
        (r#"{"s":"\ud800"}"#, &[("s", "")], false),
        (r#"{"s":"Hello, 世界"}"#, &[("s", "=?base64?SGVsbG8sIOS4lueVjA==?=")], true),
        (r#"{"s":" padded "}"#, &[("s", "=?base64?IHBhZGRlZCA=?=")], true),
        (r#"{"s":" padded "}"#, &[("s", " padded ")], false),
        (r#"{"s":"line1\nline2"}"#, &[("s", "=?base64?bGluZTEKbGluZTI=?=")], true),
        (r#"{"s":"=?base64?literal?="}"#, &[("s", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=")], true),
        (r#"{"s":"=?base64?literal?="}"#, &[("s", "=?base64?literal?=")], false),
        (r#"{"s":"x"}"#, &[("s", "=?base64?eA?=")], false),
        (r#"{"s":"é"}"#, &[("s", "é")], false),
        (r#"{"s":"\ufffd"}"#, &[("s", "=?base64?/w==?=")], false),
        (r#"{"s":"true"}"#, &[("s", "true")], true),
        (r#"{"s":42}"#, &[("s", "42")], true),
        (r#"{"s":["x"]}"#, &[("s", "x")], false),
        (r#"{"s":{"x":1}}"#, &[("s", "{\"x\":1}")], false),
        (r#"{"s":["x"]}"#, &[], false),
        (r#"{"b":true}"#, &[("b", "true")], true),
        (r#"{"b":true}"#, &[("b", "false")], false),
        (r#"{"b":false}"#, &[("b", "False")], false),
        (r#"{"b":false}"#, &[("b", "0")], false),
        (r#"{"n":{"i":42}}"#, &[("i", "42")], true),
        (r#"{"n":{"i":42}}"#, &[("i", "42.0")], true),
        (r#"{"n":{"i":42.0}}"#, &[("i", "42")], true),
        (r#"{"n":{"i":4.2e1}}"#, &[("i", "42")], true),
        (r#"{"n":{"i":-7}}"#, &[("i", "-7")], true),
        (r#"{"n":{"i":-0}}"#, &[("i", "0")], true),
        (r#"{"n":{"i":42}}"#, &[("i", "43")], false),
        (r#"{"n":{"i":42}}"#, &[("i", "042")], false),
        (r#"{"n":{"i":42}}"#, &[("i", "+42")], false),
        (r#"{"n":{"i":26}}"#, &[("i", "0x1a")], false),
        (r#"{"n":{"i":42.5}}"#, &[("i", "42.5")], false),
        (r#"{"n":{"i":9007199254740991}}"#, &[("i", "9007199254740991")], true),
        (r#"{"n":{"i":-9007199254740991}}"#, &[("i", "-9007199254740991")], true),
        (r#"{"n":{"i":9007199254740992}}"#, &[("i", "9007199254740992")], false),
        (r#"{"n":{"i":9007199254740993}}"#, &[("i", "9007199254740992")], false),
        (r#"{"n":{"i":1e999}}"#, &[("i", "1e999")], false),
    ];
    for (arguments, given, is_right) in table {
        let checked = params.check("t", Some(arguments).filter(|text| !text.is_empty()), &headers(given));
        assert_eq!(checked.is_ok(), is_right, "{arguments} {given:?} {checked:?}");
    }
    assert_eq!(
        params.check("other", Some(r#"{"s":"x"}"#), &headers(&[("s", "y")])),
        Ok(()),
        "a tool without any"
    );
}

#[test]
fn an_argument_that_two_readers_may_see_two_of_is_mirrored_by_no_header() {
    let params = learnt(&json!({ "properties": {
        "region": { "type": "string", "x-mcp-header": "Region" },
        "n": { "properties": { "i": { "type": "integer", "x-mcp-header": "I" } } },
    } }));
    let table = [
        (r#"{"region":"eu","region":"us"}"#, false),
        (r#"{"region":"eu","\u0072egion":"us"}"#, false),
        (r#"{"region":"eu","Region":"us"}"#, false),
        (r#"{"region":"eu","region\u0000":"us"}"#, false),
        (r#"{"region":"eu","n":{"i":1},"n":{"i":1}}"#, false),
        (r#"{"region":"eu","n":{"i":1,"I":2}}"#, false),
        (r#"{"region":"eu","n":{"i":1},"other":1,"other":2}"#, true),
        (r#"{"region":"eu","n":{"i":1,"region":"us"},"regions":"us"}"#, true),
    ];
    for (arguments, is_right) in table {
        let given = if arguments.contains("\"i\"") {
            &[("region", "eu"), ("i", "1")][..]
        } else {
            &[("region", "eu")]
        };
        let checked = params.check("t", Some(arguments), &headers(given));
        assert_eq!(checked.is_ok(), is_right, "{arguments} {checked:?}");
    }
}

proptest! {
    #[test]
    fn a_value_that_a_client_mirrors_is_taken_and_another_is_not(value in any::<String>(), other in "[ -~]{0,8}") {
        let params = learnt(&property(&json!("A"), &json!("string")));
        let arguments = json!({ "a": value }).to_string();
        let is_plain = value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && value.trim() == value
            && !value.starts_with("=?");
        if is_plain {
            prop_assert_eq!(params.check("t", Some(&arguments), &headers(&[("a", &value)])), Ok(()));
        }
        if other.trim() != value.trim() && !other.starts_with("=?") {
            prop_assert!(params.check("t", Some(&arguments), &headers(&[("a", &other)])).is_err());
        }
    }

    #[test]
    fn no_page_and_no_call_is_too_odd(
        page in "\\PC{0,60}",
        schema in "[{}\\[\\]\",:a-z$-]{0,60}",
        arguments in "\\PC{0,40}",
        value in any::<Vec<u8>>(),
    ) {
        let mut params = learnt(&property(&json!("A"), &json!("string")));
        params.learn(&page);
        params.learn(&format!(r#"{{"tools":[{{"name":"x","inputSchema":{schema}}}]}}"#));
        let _ = params.check("t", Some(&arguments), &[("a".into(), value.into())]);
        ToolParams::next_cursor(&page);
    }
}
