//! Where the text of an option comes from: the command line, else the environment, else its default.

use std::ffi::OsString;

use super::table::{TABLE, flag, variable};
use super::values::is_off;
use crate::secret::Secret;

/// The environment, as far as options are concerned. A seam: tests bring their own.
pub trait EnvSource {
    fn get(&self, name: &str) -> Option<OsString>;
    fn names(&self) -> Vec<String>;
}

/// The environment behind the command line. Options are named by their field in the table.
pub(super) struct Source<'e>(pub(super) &'e dyn EnvSource);

/// A text, and the name of the option or variable that holds it.
struct Text {
    text: String,
    from: String,
}

impl Text {
    fn read<T>(&self, read: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
        let Self { text, from } = self;
        read(text).map_err(|cure| format!("{from} is {text:?}: {cure}"))
    }
}

impl Source<'_> {
    /// An option that has a value whether it is given or not.
    pub(super) fn value<T>(
        &self,
        field: &str,
        given: Option<String>,
        default: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, String> {
        let default = || Text { text: default.to_owned(), from: format!("the default of {}", flag(field)) };
        self.text(field, given)?.unwrap_or_else(default).read(read)
    }

    /// An option that has a value if it is given. `off` and `none` are as good as not given.
    pub(super) fn optional<T>(
        &self,
        field: &str,
        given: Option<String>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let text = self.text(field, given)?.filter(|text| !is_off(&text.text));
        text.map(|text| text.read(read)).transpose()
    }

    /// An option that is given any number of times, in the environment with one entry per line.
    pub(super) fn list<T>(
        &self,
        field: &str,
        given: Vec<String>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let entries: Vec<Text> = if given.is_empty() {
            let from = variable(field);
            let text = self.get(&from)?.unwrap_or_default();
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            lines.map(|line| Text { text: line.to_owned(), from: from.clone() }).collect()
        } else {
            given.into_iter().map(|text| Text { text, from: flag(field) }).collect()
        };
        entries.iter().map(|entry| entry.read(&read)).collect()
    }

    /// An option that is given or not, in the environment as 1 or 0.
    pub(super) fn switch(&self, field: &str, given: bool) -> Result<bool, String> {
        let read = |text: &str| match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(true),
            "" | "0" | "false" | "no" | "off" => Ok(false),
            _ => Err("write 1 or 0".to_owned()),
        };
        let text = self.text(field, None)?;
        Ok(given || text.map(|text| text.read(read)).transpose()?.unwrap_or(false))
    }

    /// What must not stand on a command line, where every process of the machine can read it.
    pub(super) fn secret(&self, field: &str) -> Result<Option<Secret>, String> {
        Ok(self.get(&variable(field))?.map(Secret::new))
    }

    /// Variables that look like options of the bridge and are none. What Kubernetes sets for a Service of the name
    /// mcp-bridge is no mistake.
    pub(super) fn unknown_variables(&self) -> Vec<String> {
        let known: Vec<String> = TABLE.iter().filter_map(|entry| entry.variable()).collect();
        // The child of a bridge may be a bridge: the variable that marks its processes is no mistake either.
        let foreign = |name: &str| {
            name.starts_with("MCP_BRIDGE_SERVICE_")
                || name.starts_with("MCP_BRIDGE_PORT")
                || name == "MCP_BRIDGE_CHILD"
        };
        let unknown =
            |name: &String| name.starts_with("MCP_BRIDGE_") && !known.contains(name) && !foreign(name);
        let mut names: Vec<String> = self.0.names().into_iter().filter(unknown).collect();
        names.sort_unstable();
        names
    }

    fn text(&self, field: &str, given: Option<String>) -> Result<Option<Text>, String> {
        let (text, from) = match given {
            Some(text) => (Some(text), flag(field)),
            None => (self.get(&variable(field))?, variable(field)),
        };
        Ok(text.map(|text| Text { text: text.trim().to_owned(), from }))
    }

    /// A variable that is no text is a mistake, and never as good as none: it may be a token.
    fn get(&self, name: &str) -> Result<Option<String>, String> {
        let text = self.0.get(name).map(OsString::into_string).transpose();
        text.map_err(|_| format!("{name} is not UTF-8"))
    }
}
