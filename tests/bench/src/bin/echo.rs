//! A stdio MCP server with one tool, which returns its text. It insists on the handshake: a tool call before
//! `notifications/initialized` is an error, and so is a second `initialize`.
//!
//! It must never be what limits the measurement: it reads as much as there is, answers all of it with one write, and
//! finds what it needs by searching for its spelling, because parsing a megabyte takes longer than moving it.

use std::io::{self, Read, Write};

use memchr::{memchr, memmem};

/// How much is read at once; a pipe holds 64 KiB by default (pipe(7)).
const READ: usize = 256 * 1024;

#[derive(Clone, Copy, PartialEq)]
enum State {
    Started,
    Initializing,
    Ready,
}

fn main() -> io::Result<()> {
    let (mut stdin, mut stdout) = (io::stdin().lock(), io::stdout());
    let mut state = State::Started;
    let mut input = Vec::new();
    let mut output = Vec::new();
    let mut room = vec![0; READ];
    loop {
        let length = stdin.read(&mut room)?;
        if length == 0 {
            return Ok(());
        }
        let mut searched = input.len();
        input.extend_from_slice(&room[..length]);
        let mut begin = 0;
        while let Some(end) = memchr(b'\n', &input[searched..]).map(|at| searched + at) {
            state = answer(&input[begin..end], state, &mut output);
            begin = end + 1;
            searched = begin;
        }
        input.drain(..begin);
        stdout.write_all(&output)?;
        stdout.flush()?;
        output.clear();
    }
}

/// Appends the answer to one message, if it has one, and returns the state after it.
fn answer(line: &[u8], state: State, output: &mut Vec<u8>) -> State {
    let method = string(line, br#""method":""#).unwrap_or_default();
    let id = number(line, br#""id":"#);
    match (method, id, state) {
        (b"initialize", Some(id), State::Started) => {
            let version = string(line, br#""protocolVersion":""#).unwrap_or_default();
            result(
                id,
                &[
                    br#"{"protocolVersion":""#,
                    version,
                    br#"","capabilities":{"tools":{}},"serverInfo":{"name":"echo","version":"0"}}"#,
                ],
                output,
            );
            State::Initializing
        }
        (b"notifications/initialized", None, State::Initializing) => State::Ready,
        (b"tools/call", Some(id), State::Ready) => {
            let text = string(line, br#""text":""#).unwrap_or_default();
            result(id, &[br#"{"content":[{"type":"text","text":""#, text, br#""}]}"#], output);
            state
        }
        (_, Some(id), _) => {
            output.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
            output.extend_from_slice(id);
            output.extend_from_slice(br#","error":{"code":-32600,"message":"not now"}}"#);
            output.push(b'\n');
            state
        }
        (_, None, _) => state,
    }
}

fn result(id: &[u8], value: &[&[u8]], output: &mut Vec<u8>) {
    output.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    output.extend_from_slice(id);
    output.extend_from_slice(br#","result":"#);
    value.iter().for_each(|part| output.extend_from_slice(part));
    output.extend_from_slice(b"}\n");
}

/// The text behind `key` up to the next quotation mark. The client writes no escapes.
fn string<'a>(line: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let rest = &line[memmem::find(line, key)? + key.len()..];
    Some(&rest[..memchr(b'"', rest)?])
}

fn number<'a>(line: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let rest = &line[memmem::find(line, key)? + key.len()..];
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (length > 0).then(|| &rest[..length])
}
