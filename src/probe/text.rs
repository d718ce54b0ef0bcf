//! A report as a person reads it: what happened, with which value, and what to do.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::time::Duration;

use super::report::{Failure, Question, Report, Server, Tools, Why, clipped};
use crate::child::Termination;
use crate::exit_status::ExitStatus;
use crate::first_words::{OVER_LINES, Unanswered};

/// The report in some lines, the verdict in the first one.
pub fn of(report: &Report) -> String {
    let mut text = match (&report.failure, &report.server) {
        (Some(failure), _) => format!("the server cannot be used: {}", what(failure)),
        (None, Some(server)) => format!("the server works: {}", identity(server)),
        (None, None) => "the server works".to_owned(),
    };
    let mut rows = |name: &str, values: &[&str]| {
        for (place, value) in values.iter().enumerate() {
            let name = if place == 0 { name } else { "" };
            let _ = write!(text, "\n  {name:<14}{value}"); // a String takes everything
        }
    };
    rows("command", &[&command(report)]);
    if let Some(server) = &report.server {
        if report.failure.is_some() {
            rows("server", &[&identity(server)]);
        }
        rows(
            if server.answered == Question::Discover { "discover" } else { "initialize" },
            &[&format!("answered {:?} after the start", rounded(server.answered_after))],
        );
        let none = server.capabilities.is_empty();
        rows("capabilities", &[&if none { "none".to_owned() } else { server.capabilities.join(", ") }]);
    }
    if let Some(tools) = &report.tools {
        rows("tools", &[&tools_in_words(tools)]);
    }
    rows("end", &[&end(report)]);
    if report.stray.lines > 0 {
        rows("stdout", &[&stray(report), "a server logs to stderr; the bridge drops such lines"]);
    }
    if let Some(failure) = &report.failure {
        rows("stderr", &report.stderr.iter().map(String::as_str).collect::<Vec<_>>());
        rows("what to do", &advice(failure, report));
    }
    text
}

/// What a server says of itself.
fn identity(server: &Server) -> String {
    let name = if server.name.is_empty() { "without a name" } else { &server.name };
    let space = if server.version.is_empty() { "" } else { " " };
    let protocol = server.protocol.as_deref().unwrap_or("not named");
    format!("{name}{space}{}, protocol version {protocol}", server.version)
}

/// The command, with quotes where a person could not tell its words apart.
fn command(report: &Report) -> String {
    let quoted = |word: &OsStr| {
        let word = word.display().to_string();
        let plain = !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "-_./=:@,+%".contains(c));
        clipped(&if plain { word } else { format!("{word:?}") })
    };
    let words =
        [report.program.as_os_str()].into_iter().chain(report.arguments.iter().map(OsString::as_os_str));
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

fn rounded(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn tools_in_words(tools: &Tools) -> String {
    match tools {
        Tools::NotDeclared => "none: the server does not declare them".to_owned(),
        Tools::MethodNotFound => {
            "the server declares them and answers tools/list with -32601, method not found".to_owned()
        }
        Tools::Listed { count: 0, .. } => "none, although the server declares them".to_owned(),
        Tools::Listed { count, names } => {
            let more = count - names.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{count}: {}{more}", names.join(", "))
        }
    }
}

/// How the process ended.
fn end(report: &Report) -> String {
    let how = match (report.stopped_by, &report.failure) {
        (Termination::Eof, Some(Failure { why: Why::Exited(_), .. })) => "by itself",
        (Termination::Eof, _) => "when its stdin was closed",
        (Termination::Term, _) => "it did not exit when its stdin was closed: see --stop-grace",
        (Termination::Kill, _) => {
            "it exited neither when its stdin was closed nor on SIGTERM: see --stop-grace"
        }
        (Termination::Unkillable, _) => {
            return "none, not even at SIGKILL: it hangs in the kernel".to_owned();
        }
    };
    format!("{}, {how}", report.status.unwrap_or(ExitStatus::Unknown))
}

fn stray(report: &Report) -> String {
    let (lines, first) = (report.stray.lines, &report.stray.first);
    match lines {
        1 => format!("1 line that is not a message: {first}"),
        _ => format!("{lines} lines that are not messages, the first: {first}"),
    }
}

/// What happened, with its value, behind "the server cannot be used".
fn what(Failure { asked, why }: &Failure) -> String {
    let method = asked.method();
    match why {
        Why::Refused { code, message } => format!("it refused {method} with error {code}: {message}"),
        Why::Exited(ExitStatus::Code(code)) => {
            format!("it exited with code {code} before it answered {method}")
        }
        Why::Exited(status) => format!("it was killed by {status} before it answered {method}"),
        Why::StdoutClosed => format!("it closed its stdout before it answered {method}, and went on running"),
        Why::StdinClosed => format!("it closed its stdin before it answered {method}, and went on running"),
        Why::Silent(time) => format!("it did not answer {method} within {time:?}"),
        Why::TooLong(max) => format!("its answer to {method} is longer than {max} bytes"),
        Why::Echoed => format!("it sent {method} back: it copies its stdin to its stdout"),
        Why::Invalid(wrong) => {
            let (what, at) = (wrong.what, wrong.at);
            format!("its answer to {method} is not a valid message: {what} (at byte {at} of its line)")
        }
        Why::NoArray => format!("its answer to {method} has no array of tools"),
        Why::Endless(pages) => format!("its answer to {method} has more than {pages} pages"),
        Why::Stopped => format!("the check was stopped before it answered {method}"),
    }
}

/// What an operator can do about it.
fn advice(Failure { asked, why }: &Failure, report: &Report) -> Vec<&'static str> {
    let at_start = *asked != Question::ListTools;
    let hint = |how| report.first_words.hint(how).filter(|_| at_start);
    let mut advice = match why {
        Why::Refused { .. } if *asked == Question::Discover => {
            vec!["the reason is the server's own; does it know 2026-07-28, as --era modern says?"]
        }
        Why::Refused { code, .. } if at_start && code == "-32022" => {
            vec!["it knows 2026-07-28 only, which has no initialize: see --era"]
        }
        Why::Refused { .. } if at_start => {
            vec!["the reason is the server's own; it was asked for revision 2025-11-25"]
        }
        Why::Refused { .. } => vec!["if it needs time after the handshake: --ready-delay, --ready-retry"],
        Why::Exited(ExitStatus::Signal("SIGKILL")) => vec!["out of memory? see the container's memory limit"],
        Why::Exited(ExitStatus::Signal(_)) => vec!["it crashed: run the command by itself"],
        Why::Exited(_) if at_start => vec![
            "is the command right, and does it have the arguments, variables and files it needs?",
            "--env sets a variable, --cwd the directory; --clean-env passes few variables on",
        ],
        Why::Exited(_) => vec!["run the command by itself and see what it says at tools/list"],
        Why::StdoutClosed => vec!["a server answers on stdout: does a wrapper redirect it?"],
        Why::StdinClosed => vec!["a server reads requests from stdin: does a wrapper redirect it?"],
        Why::Silent(_) if at_start => {
            vec![hint(Unanswered::Silent).unwrap_or_default(), "--init-timeout gives it more time"]
        }
        Why::Silent(_) => vec!["--init-timeout and --request-timeout give it more time"],
        Why::TooLong(_) => vec!["--max-message allows longer ones"],
        Why::Echoed => {
            vec!["this command is not an MCP server, or it runs in a terminal: docker run -i without -t"]
        }
        Why::Invalid(_) => vec!["the server must be changed"],
        Why::NoArray | Why::Endless(_) => {
            vec!["clients cannot list its tools: the server must be changed"]
        }
        Why::Stopped => vec![],
    };
    if *why == Why::Exited(ExitStatus::Code(0)) {
        advice.splice(..0, hint(Unanswered::ExitedWell));
    }
    if matches!(why, Why::Silent(_)) && !at_start && report.stray.first.starts_with('{') {
        advice.push(OVER_LINES);
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::report::Stray;

    fn report(failure: Option<Failure>) -> Report {
        Report {
            program: "/bin/server".into(),
            arguments: vec!["--stdio".into(), "a b".into()],
            server: None,
            tools: None,
            stray: Stray::default(),
            failure,
            stopped_by: Termination::Eof,
            status: Some(ExitStatus::Code(0)),
            stderr: vec!["loading".to_owned()],
            first_words: std::sync::Arc::default(),
        }
    }

    fn good() -> Report {
        let server = Server {
            answered: Question::Initialize,
            answered_after: Duration::from_micros(12_345),
            name: "notes".to_owned(),
            version: "1.2".to_owned(),
            protocol: Some("2025-06-18".to_owned()),
            capabilities: vec!["logging".to_owned(), "tools (listChanged)".to_owned()],
        };
        let tools = Tools::Listed { count: 3, names: vec!["add".to_owned(), "list".to_owned()] };
        Report { server: Some(server), tools: Some(tools), ..report(None) }
    }

    #[test]
    fn a_good_server_takes_a_few_lines_and_its_stderr_is_left_out() {
        let want = "the server works: notes 1.2, protocol version 2025-06-18
  command       /bin/server --stdio \"a b\"
  initialize    answered 12ms after the start
  capabilities  logging, tools (listChanged)
  tools         3: add, list and 1 more
  end           exit code 0, when its stdin was closed";
        assert_eq!(of(&good()), want);
    }

    #[test]
    fn a_server_without_sessions_is_said_to_be_discovered() {
        let server = Server {
            answered: Question::Discover,
            protocol: Some("2026-07-28".to_owned()),
            ..good().server.unwrap()
        };
        let said = of(&Report { server: Some(server), ..good() });
        assert!(said.contains("protocol version 2026-07-28\n"), "{said}");
        assert!(said.contains("  discover      answered 12ms after the start\n"), "{said}");
        assert!(!said.contains("initialize"), "{said}");
    }

    #[test]
    fn a_failure_says_what_happened_with_its_value_and_what_to_do() {
        let refused = || Why::Refused { code: "-32603".to_owned(), message: "no licence".to_owned() };
        let modern_only = || Why::Refused { code: "-32022".to_owned(), message: "too old".to_owned() };
        let init = Question::Initialize;
        let table = [
            (init, refused(), "refused initialize with error -32603: no licence", "2025-11-25"),
            (init, modern_only(), "refused initialize with error -32022: too old", "see --era"),
            (
                Question::Discover,
                refused(),
                "refused server/discover with error -32603: no licence",
                "as --era modern says?",
            ),
            (
                Question::ListTools,
                refused(),
                "refused tools/list with error -32603: no licence",
                "--ready-retry",
            ),
            (
                init,
                Why::Exited(ExitStatus::Code(3)),
                "exited with code 3 before it answered initialize",
                "--env",
            ),
            (init, Why::Exited(ExitStatus::Signal("SIGKILL")), "killed by signal SIGKILL", "out of memory?"),
            (init, Why::Exited(ExitStatus::Signal("SIGSEGV")), "killed by signal SIGSEGV", "it crashed"),
            (init, Why::StdoutClosed, "closed its stdout", "does a wrapper redirect it?"),
            (init, Why::StdinClosed, "closed its stdin", "does a wrapper redirect it?"),
            (
                init,
                Why::Silent(Duration::from_secs(120)),
                "did not answer initialize within 120s",
                "--init-timeout",
            ),
            (init, Why::TooLong(1024), "longer than 1024 bytes", "--max-message"),
            (init, Why::Echoed, "sent initialize back", "not an MCP server"),
            (Question::ListTools, Why::NoArray, "no array of tools", "the server must be changed"),
            (Question::ListTools, Why::Endless(100), "has more than 100 pages", "the server must be changed"),
        ];
        for (asked, why, happened, to_do) in table {
            let said = of(&report(Some(Failure { asked, why: why.clone() })));
            let mut lines = said.lines();
            let first = lines.next().unwrap();
            assert!(first.starts_with("the server cannot be used: it") && first.contains(happened), "{said}");
            let to_dos: Vec<_> = lines.skip_while(|line| !line.starts_with("  what to do    ")).collect();
            assert!(to_dos.iter().any(|line| line.contains(to_do)), "{why:?}: {said}");
            assert!(said.contains("  stderr        loading"), "{said}");
        }
    }

    #[test]
    fn what_is_no_message_is_counted_and_shown_of_a_good_server_too() {
        let stray = Stray { lines: 3, first: "welcome".to_owned() };
        let said = of(&Report { stray, ..good() });
        assert!(said.contains("3 lines that are not messages, the first: welcome"), "{said}");
        assert!(said.contains("logs to stderr"), "{said}");
    }

    #[test]
    fn how_a_server_ended_names_the_option() {
        for (stopped_by, words) in [
            (Termination::Term, "did not exit when its stdin was closed: see --stop-grace"),
            (Termination::Kill, "nor on SIGTERM: see --stop-grace"),
            (Termination::Unkillable, "hangs in the kernel"),
        ] {
            let said = of(&Report { stopped_by, ..good() });
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn a_server_without_tools_is_good_and_says_so() {
        for (tools, words) in [
            (Tools::NotDeclared, "does not declare them"),
            (Tools::MethodNotFound, "-32601"),
            (Tools::Listed { count: 0, names: vec![] }, "none, although"),
        ] {
            let said = of(&Report { tools: Some(tools), ..good() });
            assert!(said.starts_with("the server works") && said.contains(words), "{said}");
        }
    }
}
