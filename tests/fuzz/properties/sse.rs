//! The client's side of server-sent events, by the letter of HTML "Server-sent events", 9.2.6.

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) kind: String,
    pub(super) data: String,
    pub(super) id: String,
}

/// The events in a whole stream. One that its empty line does not end is dropped.
pub(super) fn receive(stream: &[u8]) -> Vec<Received> {
    let stream = std::str::from_utf8(stream).expect("a stream is UTF-8");
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream);
    let (mut events, mut id) = (Vec::new(), String::new());
    let (mut kind, mut data) = (String::new(), String::new());
    for line in stream.replace("\r\n", "\n").replace('\r', "\n").split_inclusive('\n') {
        let Some(line) = line.strip_suffix('\n') else { break };
        if line.is_empty() {
            let (kind, mut data) = (std::mem::take(&mut kind), std::mem::take(&mut data));
            if data.pop().is_some() {
                let kind = if kind.is_empty() { "message".into() } else { kind };
                events.push(Received { kind, data, id: id.clone() });
            }
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => kind = value.into(),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => id = value.into(),
            _ => {}
        }
    }
    events
}
