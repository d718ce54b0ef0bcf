//! Scripts that complete the options in a shell.

use super::table::{Entry, Kind, TABLE};

/// Each shell's script.
pub(super) const SHELLS: &[(&str, Script)] = &[("bash", bash), ("zsh", zsh), ("fish", fish)];

type Script = fn() -> String;

/// What a shell can offer as the value of an option.
enum Value {
    None,
    Directory,
    File,
    Words(Vec<&'static str>),
    /// What only the operator knows.
    Free,
}

impl Value {
    fn of(entry: &Entry) -> Self {
        match (entry.value(), entry.words()) {
            (None, _) => Self::None,
            (Some("DIR"), _) => Self::Directory,
            (Some("FILE"), _) => Self::File,
            (_, words) if words.is_empty() => Self::Free,
            (_, words) => Self::Words(words),
        }
    }
}

/// The options that are typed.
fn typed() -> impl Iterator<Item = &'static Entry> {
    TABLE.iter().filter(|entry| !matches!(entry.kind, Kind::Secret { .. }))
}

fn bash() -> String {
    let flags: Vec<String> = typed().map(Entry::flag).collect();
    let mut values = String::new();
    for entry in typed() {
        let offer = match Value::of(entry) {
            Value::None => continue,
            Value::Directory => "compgen -d -- \"$current\"".to_owned(),
            Value::File => "compgen -f -- \"$current\"".to_owned(),
            Value::Words(words) => format!("compgen -W '{}' -- \"$current\"", words.join(" ")),
            Value::Free => "true".to_owned(),
        };
        values = format!("{values}        {}) mapfile -t COMPREPLY < <({offer}) ;;\n", entry.flag());
    }
    format!(
        r#"# Completions of mcp-bridge for bash; to be sourced.
_mcp_bridge() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} place
    COMPREPLY=()
    for ((place = 1; place < COMP_CWORD; place++)); do
        if [[ ${{COMP_WORDS[place]}} == -- ]]; then
            # What follows is the server's command.
            if declare -F _command_offset >/dev/null; then
                _command_offset $((place + 1))
            elif ((COMP_CWORD == place + 1)); then
                mapfile -t COMPREPLY < <(compgen -c -- "$current")
            else
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
            fi
            return
        fi
    done
    case $previous in
{values}        *) mapfile -t COMPREPLY < <(compgen -W '{} --' -- "$current") ;;
    esac
}}
complete -F _mcp_bridge mcp-bridge
"#,
        flags.join(" ")
    )
}

fn zsh() -> String {
    // What means something to _arguments, and then what means something between single quotes.
    let plain = |text: &str| {
        let special = |c: char| if "\\[]:".contains(c) { format!("\\{c}") } else { c.to_string() };
        text.chars().map(special).collect::<String>().replace('\'', "'\\''")
    };
    let mut script = "#compdef mcp-bridge\n# Completions of mcp-bridge for zsh; to be put into a directory of $fpath as _mcp-bridge.\n_arguments -S \\\n".to_owned();
    for entry in typed() {
        let action = match Value::of(entry) {
            Value::None => String::new(),
            Value::Directory => ":directory:_files -/".to_owned(),
            Value::File => ":file:_files".to_owned(),
            Value::Words(words) => format!(":value:({})", words.join(" ")),
            Value::Free => format!(":{}: ", plain(entry.value().unwrap_or_default())),
        };
        let repeatable = if matches!(entry.kind, Kind::List { .. }) { "*" } else { "" };
        let flag = entry.flag();
        script = format!("{script}    '{repeatable}{flag}[{}]{action}' \\\n", plain(&entry.summary()));
    }
    script + "    '*::command:_normal'\n"
}

fn fish() -> String {
    let plain = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let mut script =
        "# Completions of mcp-bridge for fish; to be put into ~/.config/fish/completions.\n".to_owned();
    for entry in typed() {
        let value = match Value::of(entry) {
            Value::None => " -f".to_owned(),
            Value::Directory => " -x -a '(__fish_complete_directories)'".to_owned(),
            Value::File => " -r -F".to_owned(),
            Value::Words(words) => format!(" -x -a '{}'", words.join(" ")),
            Value::Free => " -x".to_owned(),
        };
        let short = match entry.kind {
            Kind::Task { short: Some(short), .. } => format!(" -s {short}"),
            _ => String::new(),
        };
        let name = entry.flag();
        let name = name.trim_start_matches('-');
        script = format!(
            "{script}complete -c mcp-bridge{short} -l {name}{value} -d '{}'\n",
            plain(&entry.summary())
        );
    }
    script
}
