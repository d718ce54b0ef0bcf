//! What a client reads and what it must be: exactly one end for each call (P3), and nothing of another session (P4).

use std::io;
use std::sync::atomic::Ordering;

use super::client::{Call, Talk};
use super::support::{Response, Value, json, reason};

/// What came back for a POST.
pub enum Outcome {
    Answers(Vec<Value>),
    Refused(u16, Value),
    /// The stream was cut off, and what was lost cannot be replayed.
    Lost,
}

/// The ends of calls in the modes whose child does not read.
const DEAF: [&str; 1] = ["request_timeout"];

impl Talk<'_> {
    /// Reads all that comes for a POST, and gives back what it was read from. A stream that is cut off is resumed.
    pub fn read(&self, response: Response) -> (Outcome, Response) {
        self.read_behind(None, response)
    }

    /// As [`read`](Self::read), where `last` is the newest event that the client has seen of this stream.
    ///
    /// While the client is away, nothing slows down a child that floods stdout: what followed `last` may have left the
    /// replay buffer by the time it is back. Then 400 `no_replay` is right, and the call is lost.
    pub fn read_behind(&self, mut last: Option<String>, mut response: Response) -> (Outcome, Response) {
        let mut answers = Vec::new();
        loop {
            if response.status != 200 || !response.is_sse() {
                let body = response.text();
                self.own(&body);
                let body: Value = serde_json::from_str(&body).unwrap();
                if response.status != 200 {
                    let evicted = self.mode.floods() && last.is_some();
                    let lost = evicted && reason(&body) == "no_replay";
                    let status = response.status;
                    return (if lost { Outcome::Lost } else { Outcome::Refused(status, body) }, response);
                }
                match body {
                    Value::Array(batch) => answers.extend(batch),
                    one => answers.push(one),
                }
                return (Outcome::Answers(answers), response);
            }
            match self.events(&mut response, &mut last, &mut answers) {
                Ok(()) => return (Outcome::Answers(answers), response),
                Err(error) => self.is_flooded(&error),
            }
            let Some(last) = &last else { return (Outcome::Lost, response) };
            response = self.session.resume(last);
        }
    }

    /// Reads a stream to its end.
    pub fn events(
        &self,
        response: &mut Response,
        last: &mut Option<String>,
        answers: &mut Vec<Value>,
    ) -> io::Result<()> {
        while let Some(event) = response.try_event()? {
            self.own(&event.raw);
            if event.data.as_deref().is_some_and(|data| !data.is_empty()) {
                let message = event.json();
                match message.get("method") {
                    Some(_) => self.reply(&message),
                    None => answers.push(message),
                }
            }
            *last = event.id.or(last.take());
        }
        Ok(())
    }

    /// Answers a question of the child.
    pub fn reply(&self, message: &Value) {
        let Some(id) = message.get("id") else { return };
        let content = json!({ "type": "text", "text": format!("{}here", self.token) });
        let result = json!({ "role": "assistant", "model": "none", "content": content });
        self.accepted(self.post(&json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string()));
    }

    /// P4: nothing of another session is in here.
    #[track_caller]
    pub fn own(&self, text: &str) {
        for (at, _) in text.match_indices("soak/") {
            assert!(
                text[at..].starts_with(&self.token),
                "of another session: {text:?}, mine is {}",
                self.token
            );
        }
    }

    /// P3: exactly one answer for each call.
    #[track_caller]
    pub fn settle(&self, outcome: Outcome, calls: &[&Call], reasons: &[&str]) {
        match outcome {
            Outcome::Answers(answers) => {
                let mut ids: Vec<&Value> = answers.iter().map(|answer| &answer["id"]).collect();
                ids.sort_by_key(|id| id.as_u64());
                let wanted: Vec<Value> = calls.iter().map(|call| json!(call.id)).collect();
                assert!(ids.iter().copied().eq(&wanted), "one answer each for {wanted:?}: {answers:?}");
                for (answer, call) in
                    answers.iter().filter_map(|a| Some((a, calls.iter().find(|call| a["id"] == call.id)?)))
                {
                    self.judge(answer, call, reasons);
                }
            }
            Outcome::Refused(status, body) => self.refused(status, &body, reasons),
            Outcome::Lost => self.ended("lost"),
        }
    }

    #[track_caller]
    fn judge(&self, answer: &Value, call: &Call, reasons: &[&str]) {
        let said = &*call.said;
        if let Some(result) = answer.get("result") {
            let text = result["content"][0]["text"].as_str().unwrap_or_default();
            let good = match self.mode.name() {
                "late" => text == "too late",
                "huge" => text.len() == 300_000,
                "deep" => result["deep"].is_array(),
                "bad_utf8" => text.strip_prefix('\u{fffd}') == Some(said),
                "same_ids" => text == format!("{said}|{}here", self.token),
                _ => text == said,
            };
            let shown: String = answer.to_string().chars().take(500).collect();
            assert!(good, "{said:?} in mode {} is not answered by {shown}", self.mode.line);
            return self.ended("answered");
        }
        if answer["error"]["data"].is_null() {
            assert_eq!(self.mode.name(), "not_ready", "{answer}");
            return self.ended("refused by the child");
        }
        let why = reason(answer);
        let cause = answer["error"]["data"]["cause"].as_str().unwrap_or_default();
        let allowed = match why {
            "session_terminated" => cause != "idle" && self.may_end(cause),
            "child_exited" => self.may_end(why),
            _ => self.mode.reasons.contains(&why) || reasons.contains(&why),
        };
        assert!(allowed, "mode {} gives no reason for {answer}", self.mode.line);
        self.failures.fetch_add(u64::from(why == "request_timeout"), Ordering::Relaxed);
        self.ended(why);
    }

    /// A refusal that `reasons` allow, or one because the session has ended as it may.
    #[track_caller]
    pub fn refused(&self, status: u16, body: &Value, reasons: &[&str]) {
        let (why, cause) = (reason(body), body["error"]["data"]["cause"].as_str().unwrap_or_default());
        let allowed = match status {
            404 => why == "session_terminated" && body["id"].is_null() && self.may_end(cause),
            400 => reasons.contains(&why),
            // What waited for a child that does not read was not handed to it in time.
            503 => why == "not_forwarded" && self.mode.reasons.iter().any(|reason| DEAF.contains(reason)),
            _ => false,
        };
        assert!(allowed, "mode {} gives no reason for {status} {body}", self.mode.line);
        self.failures.fetch_add(u64::from(status == 404), Ordering::Relaxed);
        self.ended(&format!("{why} {cause}"));
    }

    fn may_end(&self, cause: &str) -> bool {
        match cause {
            "idle" => true,
            "evicted" => self.soak.plan.evict,
            "deleted" => self.deleted.load(Ordering::Relaxed),
            "child_exited" if self.told_to_exit.load(Ordering::Relaxed) => true,
            _ => self.mode.reasons.contains(&cause),
        }
    }

    /// What needs no answer was accepted.
    #[track_caller]
    pub fn accepted(&self, mut response: Response) {
        match response.status {
            202 => assert!(response.bytes().is_empty(), "an accepted message has no body"),
            status => self.refused(status, &response.json(), &[]),
        }
    }

    /// Only who is flooded, and so is too slow, is cut off.
    #[track_caller]
    pub fn is_flooded(&self, error: &io::Error) {
        let cut = !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        assert!(cut && self.mode.floods(), "in mode {}: {error}", self.mode.line);
        self.ended("cut");
    }

    pub fn ended(&self, how: &str) {
        self.soak.count(how);
        self.trace.outcome(how);
    }
}
