//! The headers `Mcp-Param-NAME` of a tool call against its arguments (2026-07-28 `basic/transports/streamable-http`, "Custom
//! Headers from Tool Parameters"): which parameters they mirror is in the child's own `tools/list`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::proto::json::{NotSole, elements, sole_value_at, unquote, value_at};
use crate::proto::mirrored::{Undecodable, decode};

/// The member of a parameter's schema that names its header.
const ANNOTATION: &str = "x-mcp-header";

/// How many tools are remembered that have such parameters, and how many bytes of what they say. What is beyond is not checked.
const MAX_TOOLS: usize = 1000;
const MAX_BYTES: usize = 1024 * 1024;

/// How many such parameters a tool may have: each of them is looked for in the arguments, which may be long.
const MAX_PARAMS: usize = 32;

/// The longest page, and in it the longest schema of a tool, that is looked into, in bytes: it is read on the loop of all
/// sessions.
const MAX_PAGE: usize = 2 * 1024 * 1024;
const MAX_SCHEMA: usize = 256 * 1024;

/// The tools of a child that have parameters which headers mirror.
#[derive(Debug, Default)]
pub(super) struct ToolParams {
    tools: BTreeMap<Box<str>, Box<[Param]>>,
    /// How many bytes these say.
    bytes: usize,
}

/// A parameter that a header mirrors.
#[derive(Debug, PartialEq, Eq)]
struct Param {
    /// The NAME of the header, in small letters.
    header: Box<str>,
    /// Where the parameter is in the arguments.
    path: Box<[Box<str>]>,
}

impl Param {
    fn bytes(&self) -> usize {
        self.header.len() + self.path.iter().map(|name| name.len()).sum::<usize>()
    }
}

impl ToolParams {
    /// Whether no tool is known that has such parameters.
    pub(super) fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// Learns from one page of `tools/list`: the text of its result. A tool that has been learnt before is learnt anew.
    pub(super) fn learn(&mut self, result: &str) {
        if result.len() > MAX_PAGE {
            return;
        }
        let tools = value_at(result, &["tools"]).and_then(|span| result.get(span));
        for tool in tools.map(elements).into_iter().flatten().flatten() {
            let member = |name| value_at(tool, &[name]).and_then(|span| tool.get(span));
            let Some(name) = member("name").filter(|token| token.starts_with('"')).map(unquote) else {
                continue;
            };
            if let Some(before) = self.tools.remove(&*name) {
                self.bytes -= bytes(&name, &before);
            }
            let params = member("inputSchema").and_then(params_of).unwrap_or_default();
            let bytes = bytes(&name, &params);
            if !params.is_empty() && self.tools.len() < MAX_TOOLS && self.bytes + bytes <= MAX_BYTES {
                self.bytes += bytes;
                self.tools.insert(name.into(), params.into());
            }
        }
    }

    /// The cursor of the next page of `tools/list`, if this result of it is not the last.
    pub(super) fn next_cursor(result: &str) -> Option<String> {
        let token = value_at(result, &["nextCursor"]).and_then(|span| result.get(span))?;
        token.starts_with('"').then(|| unquote(token).into_owned())
    }

    /// Whether the headers of a call say the same as its arguments, where this tool has parameters that headers mirror.
    /// `arguments`: the text of `params.arguments`. `params`: see [`Mirrored::params`](crate::proto::front::Mirrored).
    ///
    /// # Errors
    /// How they differ.
    pub(super) fn check(
        &self,
        tool: &str,
        arguments: Option<&str>,
        params: &[(Box<str>, Box<[u8]>)],
    ) -> Result<(), &'static str> {
        let mirrored = self.tools.get(tool).map_or(&[][..], |params| &**params);
        mirrored.iter().try_for_each(|param| param.check(arguments.unwrap_or("{}"), params))
    }
}

fn bytes(name: &str, params: &[Param]) -> usize {
    name.len() + params.iter().map(Param::bytes).sum::<usize>()
}

impl Param {
    fn check(&self, arguments: &str, params: &[(Box<str>, Box<[u8]>)]) -> Result<(), &'static str> {
        let mut headers = params.iter().filter(|(name, _)| name.eq_ignore_ascii_case(&self.header));
        let header = headers.next().map(|(_, value)| &**value);
        if headers.next().is_some() {
            return Err("a header Mcp-Param-* occurs twice");
        }
        let argument = sole_value_at(arguments, &self.path);
        let argument =
            argument.map_err(|NotSole| "an argument that a header mirrors can be read in two ways")?;
        let argument = argument.and_then(|span| arguments.get(span)).filter(|token| *token != "null");
        let header = header.map(decode).transpose().map_err(|why| match why {
            Undecodable::Characters => "a header Mcp-Param-* has characters that it must not have",
            Undecodable::Base64 => "a header Mcp-Param-* is marked as base64 and is none",
        })?;
        match (header, argument) {
            (None, None) => Ok(()),
            (None, Some(_)) => {
                Err("a header Mcp-Param-* is missing: the tool asks that it mirrors an argument")
            }
            (Some(_), None) => Err("a header Mcp-Param-* mirrors an argument that is missing"),
            (Some(header), Some(argument)) if is_mirrored(argument, &header) => Ok(()),
            (Some(_), Some(_)) => Err("a header Mcp-Param-* differs from the argument that it mirrors"),
        }
    }
}

/// Whether a header says what an argument says, whose token this is: strings as they are, numbers by their value.
fn is_mirrored(argument: &str, header: &[u8]) -> bool {
    let Ok(header) = std::str::from_utf8(header) else { return false };
    match argument.as_bytes() {
        // What stands for no text is read as an empty one.
        [b'"', ..] => unquote(argument) == header && (argument == "\"\"" || !header.is_empty()),
        [b't' | b'f', ..] => argument == header,
        [b'-' | b'0'..=b'9', ..] => {
            integer(argument).is_some_and(|argument| integer(header) == Some(argument))
        }
        _ => false,
    }
}

/// The integer that a JSON number stands for, where every reader sees the same (2026-07-28 `server/tools`, "x-mcp-header":
/// ±(2^53 − 1)).
fn integer(text: &str) -> Option<i64> {
    const MAX: f64 = 9_007_199_254_740_991.0;
    let number: serde_json::Number = serde_json::from_str(text).ok()?;
    let number = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= MAX)?;
    Some(number as i64)
}

/// The parameters of this schema that headers mirror. None, where what it says of one of them is not valid: no client may
/// list such a tool.
fn params_of(schema: &str) -> Option<Vec<Param>> {
    if schema.len() > MAX_SCHEMA {
        return None;
    }
    // Few schemas have any; the name may be written with escapes.
    if !schema.contains(ANNOTATION) && !schema.contains("\\u") {
        return None;
    }
    let schema: Value = serde_json::from_str(schema).ok()?;
    let mut params = Vec::new();
    let mut path = Vec::new();
    find(&schema, Some(&mut path), &mut params)?;
    (params.len() <= MAX_PARAMS).then_some(params)
}

/// Looks for annotations in a schema. `path`: where the parameter is, as far as a chain of `properties` leads to it. `None`:
/// one of them is not valid.
fn find<'s>(schema: &'s Value, mut path: Option<&mut Vec<&'s str>>, params: &mut Vec<Param>) -> Option<()> {
    match schema {
        Value::Object(members) => {
            if let Some(annotation) = members.get(ANNOTATION) {
                let path = path.as_deref().filter(|path| !path.is_empty())?;
                let header = annotation.as_str().filter(|name| is_token(name))?.to_ascii_lowercase();
                let kind = members.get("type")?.as_str()?;
                let is_unique = params.iter().all(|param| *param.header != header);
                (is_unique && matches!(kind, "string" | "integer" | "boolean")).then_some(())?;
                let path = path.iter().map(|name| (*name).into()).collect();
                params.push(Param { header: header.into(), path });
            }
            for (keyword, value) in members {
                match (&**keyword, value) {
                    // Values that are no schemas.
                    ("const" | "default" | "enum" | "examples" | ANNOTATION, _) => {}
                    ("properties", Value::Object(properties)) => {
                        for (name, property) in properties {
                            if let Some(path) = &mut path {
                                path.push(name);
                            }
                            find(property, path.as_deref_mut(), params)?;
                            if let Some(path) = &mut path {
                                path.pop();
                            }
                        }
                    }
                    // Their members are names.
                    (
                        "$defs" | "definitions" | "dependentSchemas" | "patternProperties",
                        Value::Object(schemas),
                    ) => schemas.values().try_for_each(|schema| find(schema, None, params))?,
                    (_, value) => find(value, None, params)?,
                }
            }
            Some(())
        }
        Value::Array(schemas) => schemas.iter().try_for_each(|schema| find(schema, None, params)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(()),
    }
}

/// Whether this can be the name of a header (RFC 9110 §5.6.2).
fn is_token(name: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_tchar)
}

#[cfg(test)]
mod tests;
