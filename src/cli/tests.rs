//! What is typed, and what comes of it.

use std::collections::HashMap;
use std::time::Duration;

use super::table::{Kind, TABLE};
use super::values::{duration, size};
use super::*;
use crate::secret::Secret;

struct Variables(HashMap<String, String>);

impl EnvSource for Variables {
    fn get(&self, name: &str) -> Option<OsString> {
        self.0.get(name).map(Into::into)
    }
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

fn run(line: &str, variables: &[(&str, &str)], container: Option<&'static str>) -> Result<Task, String> {
    let arguments = line.split_whitespace().map(OsString::from).collect();
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    parse(arguments, &Variables(variables), container)
}

fn options(line: &str, variables: &[(&str, &str)]) -> Options {
    match run(line, variables, None) {
        Ok(Task::Serve(options)) => *options,
        other => panic!("{line}: {other:?}"),
    }
}

fn error(line: &str, variables: &[(&str, &str)]) -> String {
    match run(line, variables, None) {
        Err(error) => error,
        other => panic!("{line} should be refused, got {other:?}"),
    }
}

#[test]
fn everything_behind_the_dashes_is_the_command() {
    let options = options("--max-sessions 3 -- npx -y server --listen 1 -- x", &[]);
    assert_eq!(options.command, ["npx", "-y", "server", "--listen", "1", "--", "x"]);
    assert_eq!(options.max_sessions, 3);
}

#[test]
fn the_command_line_wins_over_the_environment() {
    let variables =
        [("MCP_BRIDGE_MAX_SESSIONS", "5"), ("MCP_BRIDGE_IDLE_TIMEOUT", "1m"), ("MCP_BRIDGE_LAZY", "1")];
    let options = options("--max-sessions=7 -- x", &variables);
    assert_eq!(options.max_sessions, 7);
    assert_eq!(options.idle_timeout, Duration::from_secs(60));
    assert!(options.lazy);
}

#[test]
fn where_to_listen_and_why() {
    let listen = |line: &str, variables: &[(&str, &str)], container| match run(line, variables, container) {
        Ok(Task::Serve(options)) => (options.listen, options.listen_because),
        other => panic!("{other:?}"),
    };
    let tcp = |text: &str| Address::Tcp(text.parse().expect("an address"));
    let local = "default; --listen changes it";
    assert_eq!(listen("-- x", &[], None), (vec![Address::Localhost(8080)], local));
    assert_eq!(listen("-- x", &[], Some("pid 1")), (vec![tcp("[::]:8080")], "pid 1"));
    assert_eq!(listen("--listen [::1]:0 -- x", &[], Some("pid 1")), (vec![tcp("[::1]:0")], "--listen"));
    assert_eq!(
        listen("-- x", &[("MCP_BRIDGE_LISTEN", "unix:/run/x\n:1")], None),
        (vec![Address::Unix("/run/x".into()), tcp("[::]:1")], "MCP_BRIDGE_LISTEN")
    );
    assert_eq!(
        listen("--listen localhost:1 --listen :2 -- x", &[("MCP_BRIDGE_LISTEN", ":3")], None),
        (vec![Address::Localhost(1), tcp("[::]:2")], "--listen")
    );
}

#[test]
fn platforms_set_the_port_by_a_variable() {
    let listen = |line: &str, port: &str, container| match run(line, &[("PORT", port)], container) {
        Ok(Task::Serve(options)) => (options.listen, options.listen_because),
        other => panic!("{other:?}"),
    };
    let tcp = |text: &str| Address::Tcp(text.parse().expect("an address"));
    let (container, local) = ("the variable PORT, in a container", "the variable PORT; --listen changes it");
    assert_eq!(listen("-- x", "3000", Some("pid 1")), (vec![tcp("[::]:3000")], container));
    assert_eq!(listen("-- x", "3000", None), (vec![Address::Localhost(3000)], local), "not for all");
    assert_eq!(listen("--listen :1 -- x", "3000", Some("pid 1")), (vec![tcp("[::]:1")], "--listen"));
    for other in ["", "0", "tcp://10.0.0.1:80", "65536", "-1"] {
        assert_eq!(listen("-- x", other, Some("pid 1")), (vec![tcp("[::]:8080")], "pid 1"), "{other:?}");
    }
}

#[test]
fn what_is_typed_elsewhere_is_answered_with_what_is_meant() {
    let table = [
        ("--idle-timout 30m -- x", "there is no option --idle-timout: did you mean --idle-timeout?"),
        ("--max_sessions 3 -- x", "did you mean --max-sessions?"),
        ("--Warm 3 -- x", "did you mean --warm?"),
        ("--port 3000 -- x", "there is no option --port: write --listen 127.0.0.1:PORT"),
        ("--port=3000 -- x", "there is no option --port: write --listen"),
        ("-p 3000 -- x", "there is no option -p: write --listen"),
        ("--host 0.0.0.0 -- x", "write --listen IP:PORT"),
        ("--stdio npx", "goes after --"),
        ("--cors -- x", "write --allow-origin"),
        ("--token 0123456789abcdef -- x", "--token-file"), // every process could read it there
        ("-v -- x", "RUST_LOG=debug"),
        ("--log-level debug -- x", "RUST_LOG=debug"),
        ("--evict=1 -- x", "--evict takes no value: --evict alone turns it on; 1 is for MCP_BRIDGE_EVICT"),
        ("--lazy true -- x", "--lazy takes no value"),
        ("--lazy --nothing-like-it -- x", "there is no option --nothing-like-it\nmcp-bridge --help"),
        ("-x -- x", "there is no option -x"),
        ("--max-lifetime 1h --lisen :1 -- x", "did you mean --listen?"),
        ("npx -y server", "there is no option -y"),
        ("npx server", "npx is not an option; the server's command goes after --"),
    ];
    for (line, sentence) in table {
        let seen = error(line, &[]);
        assert!(seen.contains(sentence), "{line}: {seen}");
    }
    for help in ["-h", "--help", "--help --log json", "--log json -h"] {
        assert!(matches!(run(help, &[], None), Ok(Task::Print(text)) if text.starts_with("Usage")), "{help}");
    }
    for version in ["-V", "--version"] {
        assert!(matches!(run(version, &[], None), Ok(Task::Print(_))), "{version}");
    }
    assert!(matches!(run("-- x -h --port 1", &[], None), Ok(Task::Serve(_))), "words of the command");
}

#[test]
fn what_is_documented_as_a_default_is_accepted_as_a_value() {
    let given = options("--max-lifetime off --ready-retry none --session-key none --cwd off -- x", &[]);
    assert_eq!((given.max_lifetime, given.session_key, given.cwd), (None, None, None));
    assert!(given.ready_retry.is_none());
    assert!(options("-- x", &[("MCP_BRIDGE_MAX_LIFETIME", "off")]).max_lifetime.is_none());
    assert!(!options("-- x", &[("MCP_BRIDGE_EVICT", "off")]).evict);
}

#[test]
fn which_tools_are_restored() {
    let restored = |line: &str, variables: &[(&str, &str)]| options(line, variables).restore;
    assert_eq!(restored("-- x", &[]), [""; 0]);
    let line = "--on-exit respawn --restore open,project --restore=Modus☃ -- x";
    assert_eq!(restored(line, &[]), ["open,project", "Modus☃"]);
    let variable = ("MCP_BRIDGE_RESTORE", "open\n log in \n");
    assert_eq!(restored("--on-exit respawn -- x", &[variable]), ["open", "log in"]);
    assert!(error("-- x", &[variable]).contains("--restore needs --on-exit respawn"));
    let line = |tools: usize| format!("--on-exit respawn {} -- x", "--restore a ".repeat(tools));
    assert_eq!(restored(&line(64), &[]).len(), 64);
    assert_eq!(error(&line(65), &[]), "--restore names 65 tools: at most 64");
}

#[test]
fn who_shares_a_server_and_what_it_speaks() {
    let given = options("-- x", &[]);
    assert_eq!((given.era, given.share), (Era::Auto, Share::None));
    for (word, era) in [("auto", Era::Auto), ("legacy", Era::Legacy), ("modern", Era::Modern)] {
        assert_eq!(options(&format!("--era {word} -- x"), &[]).era, era);
        assert_eq!(options("-- x", &[("MCP_BRIDGE_ERA", word)]).era, era);
    }
    let token = ("MCP_BRIDGE_TOKEN", "0123456789abcdef0123456789abcdef");
    for (line, variables, share) in [
        ("--share none -- x", &[][..], Share::None),
        ("--share all -- x", &[], Share::All),
        ("-- x", &[("MCP_BRIDGE_SHARE", "all")], Share::All),
        ("--share key --session-key header:X-User -- x", &[], Share::Key),
        ("--share key --session-key shared -- x", &[], Share::Key),
        ("--share key --token-file t -- x", &[], Share::Key),
        ("--share key -- x", &[token], Share::Key),
        ("--share key --token-file t --env-from-header KEY=X-Key -- x", &[], Share::Key),
    ] {
        assert_eq!(options(line, variables).share, share, "{line}");
    }
}

#[test]
fn each_mistake_names_the_option_the_value_and_the_cure() {
    let table = [
        ("--listen server:80 -- x", "--listen is \"server:80\": write IP:PORT"),
        ("--listen 80 -- x", "write IP:PORT"),
        ("--path mcp -- x", "--path is \"mcp\": write /mcp"),
        ("--path m?p -- x", "--path is \"m?p\": write a path such as /mcp"),
        ("--socket-mode 0444 -- x", "--socket-mode is \"0444\": write permissions in octal"),
        ("--socket-mode rw -- x", "write permissions in octal"),
        (
            "--max-body 10 -- x",
            "--max-body is \"10\": 10 bytes are too few for a handshake; the unit is missing",
        ),
        ("--max-message 10B -- x", "10 bytes are too few for a handshake"),
        ("--warm 6 --max-sessions 4 -- x", "--warm is 6 and --max-sessions 4"),
        ("--allow-origin https://a:443 -- x", "write https://a"),
        ("--allow-origin http://a:80 -- x", "write http://a"),
        ("--allow-origin https://a/ -- x", "write https://a"),
        ("--allow-origin https://a:x -- x", "write a port"),
        ("--allow-origin https://* -- x", "name the host"),
        ("--allow-origin //a -- x", "write scheme://host"),
        ("--path /healthz -- x", "other than /healthz"),
        ("--max-sessions 0 -- x", "write a number from 1"),
        ("--idle-timeout 5 -- x", "--idle-timeout is \"5\": the unit is missing; write 5s, 5m or 5ms"),
        ("--idle-timeout 1.5h -- x", "write a number with ms, s, m, h or d"),
        ("--idle-timeout 0s -- x", "longer than zero"),
        ("--request-timeout 99999999h -- x", "a year"),
        ("--max-body 1X -- x", "write a size"),
        ("--env FOO -- x", "write NAME=VALUE"),
        ("--env =x -- x", "write NAME=VALUE"),
        ("--log xml -- x", "write text or json"),
        ("--ready-retry ( -- x", "--ready-retry is \"(\": "),
        ("--ready-retry ( -- x", "write a regular expression"),
        ("--ready-retry loading| -- x", "it matches any text"),
        ("--ready-delay x -- x", "write a number with ms"),
        ("--ready-timeout 0s -- x", "longer than zero"),
        ("--allow-origin * -- x", "without a path and without *"),
        ("--allow-host http://a -- x", "without scheme"),
        ("--max-lifetime 0s -- x", "--max-lifetime is \"0s\": must be longer than zero"),
        ("--max-starting 0 -- x", "--max-starting is \"0\": write a number from 1"),
        ("--warm many -- x", "--warm is \"many\": write a number from 0"),
        ("--era new -- x", "--era is \"new\": write auto or legacy or modern"),
        ("--share session -- x", "--share is \"session\": write none or key or all"),
        (
            "--share key -- x",
            "--share key needs a key: --session-key, or tokens (--token-file, MCP_BRIDGE_TOKEN)",
        ),
        (
            "--share all --env-from-header KEY=X-Key -- x",
            "--share all and --env-from-header cannot be combined: the value of one client would be used for all",
        ),
        ("--on-exit restart -- x", "--on-exit is \"restart\": write end or respawn"),
        (
            "--restore activate_project -- x",
            "--restore needs --on-exit respawn: without it a session ends with its server",
        ),
        ("--on-exit end --restore a -- x", "--restore needs --on-exit respawn"),
        ("--on-exit respawn --restore= -- x", "--restore is \"\": write the name of a tool"),
        ("--resource-metadata app.example -- x", "--resource-metadata is \"app.example\": write a URL"),
        ("--resource-metadata ftp://app.example -- x", "write a URL"),
        ("--resource-metadata https:// -- x", "write a URL"),
        ("--resource-metadata https://a\"b -- x", "write a URL"), // it stands between quotes in a header
        ("--authorization-server login -- x", "--authorization-server is \"login\": write a URL"),
        ("--pass-env HOME -- x", "--pass-env needs --clean-env"),
        ("--socket-mode 660 -- x", "--socket-mode needs a socket: --listen unix:PATH"),
        ("--clean-env --pass-env A=1 -- x", "--pass-env is \"A=1\": write the name of a variable"),
        ("--clean-env --pass-env 1A -- x", "write the name of a variable"),
        ("--clean-env --pass-env= -- x", "write the name of a variable"),
        ("--env-from-header KEY -- x", "--env-from-header is \"KEY\": write NAME=HEADER"),
        ("--env-from-header KEY= -- x", "write NAME=HEADER"),
        ("--env-from-header =X-Key -- x", "write NAME=HEADER"),
        ("--env-from-header 1KEY=X-Key -- x", "write NAME=HEADER"),
        ("--env-from-header KEY=X:Key -- x", "write NAME=HEADER"),
        ("--env-from-header KEY=X-Key=1 -- x", "write NAME=HEADER"),
        ("--env-from-header PATH=X-Key -- x", "--env-from-header is \"PATH=X-Key\": PATH decides what"),
        ("--warm 1 --env-from-header KEY=X-Key -- x", "--warm and --env-from-header cannot be combined"),
        (
            "--token-file t --env-from-header KEY=Authorization -- x",
            "--env-from-header uses Authorization, which carries the bridge's own token: use another header",
        ),
        ("--no-such-option -- x", "--help lists the options"),
        ("--lazy stray -- x", "stray is not an option\nmcp-bridge --help"),
        ("--lazy --listen", "--listen needs a value\nmcp-bridge --help"),
        (
            "--lsten 127.0.0.1:80",
            "there is no option --lsten: did you mean --listen?\nmcp-bridge --help lists the options",
        ),
        ("npx server", "npx is not an option; the server's command goes after --"),
        ("", "no server command; it goes after --"),
        ("--", "no server command"),
    ];
    for (line, want) in table {
        let text = error(line, &[]);
        assert!(text.contains(want), "{line}: {text:?} should contain {want:?}");
    }
    let text = error("-- x", &[("MCP_BRIDGE_LOG", "xml")]);
    assert!(text.starts_with("MCP_BRIDGE_LOG is \"xml\""), "{text}");
    assert!(error("-- x", &[("MCP_BRIDGE_LAZY", "maybe")]).contains("write 1 or 0"));
}

#[test]
fn a_client_sets_no_variable_that_decides_what_runs() {
    for name in [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
        "DYLD_INSERT_LIBRARIES",
        "GLIBC_TUNABLES",
        "MALLOC_CHECK_",
        "GCONV_PATH",
        "LOCPATH",
        "NLSPATH",
        "PATH",
        "HOME",
        "SHELL",
        "TMPDIR",
        "ENV",
        "BASH_ENV",
        "BASH_FUNC_ls",
        "BASHOPTS",
        "SHELLOPTS",
        "IFS",
        "CDPATH",
        "PS4",
        "PROMPT_COMMAND",
        "EDITOR",
        "VISUAL",
        "PAGER",
        "BROWSER",
        "NODE_OPTIONS",
        "NODE_PATH",
        "JAVA_TOOL_OPTIONS",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "PERL5OPT",
        "PERL5LIB",
        "RUBYOPT",
        "RUBYLIB",
        "GIT_SSH_COMMAND",
        "SSH_ASKPASS",
        "NPM_CONFIG_REGISTRY",
        "npm_config_registry",
        "MCP_BRIDGE_TOKEN",
        "MCP_BRIDGE_CHILD",
        "Ld_Preload",
        "path",
    ] {
        let text = error(&format!("--env-from-header {name}=X-Key -- x"), &[]);
        assert!(text.contains(&format!("{name} decides what")), "{name}: {text}");
    }
    for name in ["PATH", "LD_PRELOAD", "BUN_OPTIONS"] {
        let text = error(&format!("--env-from-header {name}!=X-Key -- x"), &[]);
        assert!(text.contains(&format!("{name} decides what")), "{name}: {text}");
    }
}

#[test]
fn a_variable_from_a_header_is_named_as_what_harms_nobody_or_the_operator_says_so() {
    let given = |name: &str| options(&format!("--env-from-header {name}=X_Key-1 -- x"), &[]).env_from_header;
    for name in [
        "GITHUB_TOKEN",
        "GITHUB_PERSONAL_ACCESS_TOKEN",
        "OPENAI_API_KEY",
        "API_KEY_2",
        "apiKey",
        "AWS_ACCESS_KEY_ID",
        "AWS_REGION",
        "LDAP_URL",
        "GITLAB_API_URL",
        "JIRA_USERNAME",
        "PGPASSWORD",
        "HOME_ASSISTANT_TOKEN",
        "SCHEMA_REGISTRY_URL",
        "MAKE_API_KEY",
        "GOOGLE_API_KEY",
        "HUB_PAT",
        "TENANT",
        "db_host",
    ] {
        assert_eq!(given(name), [(name.to_owned(), "x_key-1".to_owned())]);
    }
    for name in [
        "MY_PATH",
        "_",
        "x1",
        "MEMORY_FILE_PATH",
        "AWS_PROFILE",
        "DEBUG",
        "TOKEN_FILE",
        "PLAYWRIGHT_DOWNLOAD_HOST",
        "PROXY_URL",
        "CURL",
        "MONKEY_BUSINESS",
    ] {
        let text = error(&format!("--env-from-header {name}=X-Key -- x"), &[]);
        assert!(text.contains(&format!("write {name}!=x-key")), "{name}: {text}");
        assert_eq!(given(&format!("{name}!")), [(name.to_owned(), "x_key-1".to_owned())]);
    }
    let listed = options("-- x", &[("MCP_BRIDGE_ENV_FROM_HEADER", "A_KEY=X-A\nB!=X-B")]).env_from_header;
    assert_eq!(
        listed,
        [("A_KEY", "x-a"), ("B", "x-b")].map(|(name, header)| (name.to_owned(), header.to_owned()))
    );
}

#[test]
fn a_client_sets_no_variable_of_further_shells_and_interpreters() {
    for name in [
        "ZDOTDIR",
        "FPATH",
        "BASH_LOADABLES_PATH",
        "JDK_JAVA_OPTIONS",
        "_JAVA_OPTIONS",
        "CLASSPATH",
        "LUA_INIT",
        "LUA_PATH",
        "LUA_CPATH",
        "PHPRC",
        "PHP_INI_SCAN_DIR",
        "DOTNET_STARTUP_HOOKS",
        "CORECLR_PROFILER_PATH",
        "OPENSSL_CONF",
        "OPENSSL_MODULES",
        "ERL_AFLAGS",
        "R_PROFILE",
        "GEM_PATH",
        "BUNDLE_GEMFILE",
        "LESSOPEN",
        "BUN_OPTIONS",
        "BUN_INSPECT_PRELOAD",
        "DENO_AUTH_TOKENS",
        "IBM_JAVA_OPTIONS",
        "OPENJ9_JAVA_OPTIONS",
        "PSModulePath",
        "TS_NODE_REQUIRE",
        "ELECTRON_RUN_AS_NODE",
        "NODE_COMPILE_CACHE",
        "NODE_EXTRA_CA_CERTS",
        "GTK_MODULES",
        "QT_PLUGIN_PATH",
        "GIO_EXTRA_MODULES",
        "RUSTC_WRAPPER",
        "MAKEFLAGS",
        "SUDO_ASKPASS",
        "UV_INDEX_URL",
        "UV_CONFIG_FILE",
        "PIP_INDEX_URL",
        "PIP_CONFIG_FILE",
        "NPM_TOKEN",
        "KUBECONFIG",
        "AWS_CONFIG_FILE",
        "DOCKER_CONFIG",
        "XDG_CONFIG_HOME",
        "HTTP_PROXY",
        "https_proxy",
        "REQUESTS_CA_BUNDLE",
        "RESTIC_PASSWORD_COMMAND",
        "DOCKER_HOST",
        "CFLAGS",
        "SSLKEYLOGFILE",
        "PUPPETEER_EXECUTABLE_PATH",
        "GRADLE_USER_HOME",
        "LESSKEY",
        "PASSWORD_STORE_GPG_OPTS",
    ] {
        for sign in ["=", "!="] {
            assert!(run(&format!("--env-from-header {name}{sign}X-Key -- x"), &[], None).is_err(), "{name}");
        }
    }
}

#[test]
fn a_token_is_given_once_and_never_shown() {
    const TOKEN: (&str, &str) = ("MCP_BRIDGE_TOKEN", "hunter2-hunter2-hunter2");
    let given = options("-- x", &[TOKEN]);
    assert_eq!(given.token.as_ref().map(Secret::reveal), Some(TOKEN.1));
    assert!(!format!("{given:?}").contains("hunter2"), "{given:?}");
    assert!(given.unknown_variables.is_empty(), "{:?}", given.unknown_variables);
    for (line, want) in [
        ("--token-file t -- x", "--token-file and MCP_BRIDGE_TOKEN are both set"),
        ("--env-from-header KEY=authorization -- x", "--env-from-header uses Authorization"),
    ] {
        let text = error(line, &[TOKEN]);
        assert!(text.contains(want) && !text.contains("hunter2"), "{line}: {text}");
    }
    assert!(options("--token-file t -- x", &[]).token.is_none());
    // Without a token of its own the bridge has no use for the header, and a server may.
    assert_eq!(options("--env-from-header KEY=Authorization -- x", &[]).env_from_header.len(), 1);
}

#[test]
fn durations_and_sizes() {
    let table = [("250ms", 250), ("15s", 15_000), ("30m", 1_800_000), ("1h", 3_600_000), ("0", 0), ("0s", 0)]
        .into_iter()
        .chain([("2d", 172_800_000), ("3min", 180_000), ("4sec", 4_000)]);
    for (text, milliseconds) in table {
        assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
    }
    for text in ["", "s", "-1s", "1.5s", "1 s", "1w", "1h30m", "never", "99999999999999999999s"] {
        assert!(duration(text).is_err(), "{text}");
    }
    assert_eq!(size("10MiB"), Ok(10 << 20));
    for text in ["512K", "512KB", "512KiB", "512kib"] {
        assert_eq!(size(text), Ok(512 << 10), "{text}");
    }
    assert_eq!(size("7"), Ok(7));
    for text in ["", "0", "MiB", "1TiB", "5GiB", "-1"] {
        assert!(size(text).is_err(), "{text}");
    }
}

#[test]
fn a_level_that_is_none_is_refused() {
    for level in ["", "info", "WARN", "off", "debug,hyper=info", "warn, h2=off", "trace"] {
        assert!(run("-- x", &[("RUST_LOG", level)], None).is_ok(), "{level}");
    }
    for level in ["verbose", "bogus", "debug,quiet", "hyper=loud", "=info"] {
        let text = error("-- x", &[("RUST_LOG", level)]);
        assert!(
            text.contains(&format!("RUST_LOG is {level:?}: write error, warn, info, debug or off")),
            "{text}"
        );
    }
}

#[test]
fn lists_come_from_the_environment_line_by_line() {
    let variables =
        [("MCP_BRIDGE_ENV", "A=1\nB=x=y,z\n"), ("MCP_BRIDGE_ALLOW_ORIGIN", "https://App.example\n")];
    let options = options("-- x", &variables);
    assert_eq!(options.env, [("A".into(), "1".into()), ("B".into(), "x=y,z".into())]);
    assert_eq!(options.allow_origin, ["https://app.example"]);
    let given = self::options("--env=C=3 --env D= --lazy -- x", &variables);
    assert_eq!(given.env, [("C".into(), "3".into()), ("D".into(), String::new())]);
    assert!(given.unknown_variables.is_empty(), "{:?}", given.unknown_variables);
}

#[test]
fn a_variable_that_names_no_option_is_told_but_not_what_kubernetes_sets() {
    let variables = [
        ("MCP_BRIDGE_LISTN", "x"),
        ("MCP_BRIDGE_SERVICE_HOST", "10.0.0.1"),
        ("MCP_BRIDGE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("MCP_BRIDGE_LOG", "json"),
    ];
    assert_eq!(options("-- x", &variables).unknown_variables, ["MCP_BRIDGE_LISTN"]);
}

#[test]
fn help_and_version_are_printed() {
    for line in ["--help", "help", "-h --help"] {
        assert!(
            matches!(run(line, &[], None), Ok(Task::Print(text)) if text == super::help::help()),
            "{line}"
        );
    }
    for line in ["-h", "--lazy -h"] {
        assert!(matches!(run(line, &[], None), Ok(Task::Print(text)) if text == super::help::short_help()));
    }
    for line in ["--version", "-V"] {
        assert!(matches!(run(line, &[], None), Ok(Task::Print(text)) if text.starts_with("mcp-bridge 0.")));
    }
    assert!(matches!(run("--healthcheck", &[], None), Ok(Task::HealthCheck(_))));
    assert!(matches!(run("--check -- x", &[], None), Ok(Task::Check(_))));
}

#[test]
fn each_default_can_be_typed() {
    let typed: Vec<String> = TABLE
        .iter()
        .filter_map(|entry| match entry.kind {
            Kind::Value { default, .. } => Some(format!("{}={default}", entry.flag())),
            _ => None,
        })
        .collect();
    assert!(typed.len() > 20, "{typed:?}");
    let mut given = options(&format!("{} -- x", typed.join(" ")), &[]);
    let default = options("-- x", &[]);
    given.listen_because = default.listen_because;
    assert_eq!(format!("{given:?}"), format!("{default:?}"));
}

#[test]
fn each_option_is_set_by_its_variable_too_and_no_other_is() {
    for entry in TABLE {
        let name = entry.variable();
        let wrong = name.iter().map(|name| (&**name, "\u{0}")).collect::<Vec<_>>();
        let variables = [&wrong[..], &[("MCP_BRIDGE_VERSION", "1"), ("MCP_BRIDGE_INSTALL", "/x")]].concat();
        match (run("-- x", &variables, None), entry.kind) {
            (Ok(Task::Serve(options)), _) => {
                let unknown = ["MCP_BRIDGE_INSTALL", "MCP_BRIDGE_VERSION"];
                assert_eq!(options.unknown_variables, unknown, "{entry:?}");
            }
            (Err(why), _) => assert!(why.starts_with(&name.unwrap_or_default()), "{entry:?}: {why}"),
            (Ok(other), _) => panic!("{entry:?}: {other:?}"),
        }
    }
}

#[test]
fn every_text_about_options_has_each_of_them() {
    let text = |line: &str| match run(line, &[], None) {
        Ok(Task::Print(text)) => text,
        other => panic!("{line}: {other:?}"),
    };
    let (help, man) = (text("--help"), text("--man"));
    let [bash, zsh, fish] = ["bash", "zsh", "fish"].map(|shell| text(&format!("--completions {shell}")));
    // The help stands in lines of its own, so that words may be broken at any space.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for entry in TABLE {
        assert!(words(&help).contains(&entry.help()), "help: {entry:?}");
        let in_roff = entry.variable().filter(|_| matches!(entry.kind, Kind::Secret { .. }));
        let in_roff = in_roff.unwrap_or_else(|| entry.flag().replace('-', "\\-"));
        assert!(man.contains(&format!("\\fB{in_roff}\\fR")), "man: {entry:?}");
        if matches!(entry.kind, Kind::Secret { .. }) {
            continue; // it is not typed
        }
        let flag = entry.flag();
        assert!(help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")), "help: {flag}");
        assert!(bash.contains(&format!("{flag} ")), "bash: {flag}");
        assert!(zsh.contains(&format!("{flag}[")), "zsh: {flag}");
        assert!(fish.contains(&format!(" -l {} ", flag.trim_start_matches('-'))), "fish: {flag}");
    }
}

#[test]
fn help_fits_into_a_terminal_of_80_columns() {
    for help in [super::help::help(), super::help::short_help()] {
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        assert!(help.lines().all(|line| line.trim_end() == line), "{help}");
    }
}

#[test]
fn short_help_is_one_screen_with_what_most_people_need() {
    let help = super::help::short_help();
    assert!(help.lines().count() <= 40, "{} lines: {help}", help.lines().count());
    for entry in TABLE {
        let there = help.lines().filter_map(|line| line.strip_prefix("  ")).any(|line| {
            line.split([' ', ',']).any(|word| word == entry.flag()) && !line.starts_with("mcp-bridge")
        });
        assert_eq!(there, entry.is_common, "{entry:?}");
    }
    assert!(help.contains("\n  mcp-bridge -- npx "), "an example: {help}");
    assert!(help.contains("--help prints all"), "{help}");
}

#[test]
fn each_option_is_in_one_group_of_the_help_and_each_group_is_there_once() {
    let mut sections: Vec<&str> = TABLE.iter().map(|entry| entry.section).collect();
    sections.dedup();
    let help = super::help::help();
    let groups = help.lines().skip_while(|line| !line.starts_with(sections[0]));
    let headings = groups.filter(|line| line.starts_with(char::is_uppercase));
    let printed: Vec<&str> = headings.map(|line| line.trim_end_matches(':')).collect();
    assert_eq!(printed, sections);
    let unique: std::collections::HashSet<&str> = sections.iter().copied().collect();
    assert_eq!(unique.len(), sections.len(), "{sections:?}");

    for entry in TABLE.iter().filter(|entry| !matches!(entry.kind, Kind::Secret { .. })) {
        let own = help.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| {
            let mut words = line.split([' ', ',']).filter(|word| !word.is_empty());
            words.find(|word| word.starts_with("--")).is_some_and(|word| word == entry.flag())
                && line.starts_with('-')
        });
        assert_eq!(own.count(), 1, "{entry:?}");
    }
}

#[test]
fn each_help_is_made_of_sentences() {
    for entry in TABLE {
        for text in [entry.help(), format!("{}.", entry.summary())] {
            assert!(text.starts_with(char::is_uppercase) && text.ends_with('.'), "{text}");
        }
        assert!(entry.summary().len() <= 120 && !entry.summary().contains(". "), "one sentence: {entry:?}");
        let has_blank_value = entry.value().is_some_and(|value| value.contains(' '));
        assert!(!has_blank_value, "{entry:?}");
    }
}

#[test]
fn a_shell_that_has_no_completions_is_a_mistake() {
    assert!(error("--completions csh", &[]).contains("write bash or zsh or fish"));
}

#[test]
fn the_command_is_shown_as_it_would_be_typed() {
    let mut given = options("-- npx -y @org/server", &[]);
    assert_eq!(given.command_line(), "npx -y @org/server");
    given.command = ["sh", "-c", "it's $HOME", ""].map(OsString::from).into();
    assert_eq!(given.command_line(), r"sh -c 'it'\''s $HOME' ''");
}
