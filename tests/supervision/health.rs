//! What probes ask.

use crate::support::{Bridge, bridge_command, run, run_command};

#[test]
fn a_bridge_that_runs_is_alive_and_ready() {
    let bridge = Bridge::start(&[], &["notebook"]);
    bridge.get("/healthz").expect(200, "it answers");
    bridge.get("/readyz").expect(200, "it takes sessions");
}

#[test]
fn a_full_bridge_is_still_ready_because_its_sessions_need_their_traffic() {
    let bridge = Bridge::start(&["--max-sessions", "1", "--lazy"], &["notebook"]);
    let session = bridge.session();
    bridge.get("/readyz").expect(200, "a balancer that takes it away takes the session's client away");
    session.ping().expect(200, "the session goes on");
}

#[test]
fn the_healthcheck_asks_the_running_bridge() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let listen = bridge.address.to_string();
    assert_eq!(run(&["--listen", &listen, "--healthcheck"], &[]).code, Some(0));
    let mut by_variable = bridge_command(&["--healthcheck"], &[]);
    by_variable.env("MCP_BRIDGE_LISTEN", &listen);
    assert_eq!(run_command(by_variable).code, Some(0));
    drop(bridge);
    assert_eq!(run(&["--listen", &listen, "--healthcheck"], &[]).code, Some(1));
}
