//! What probes ask.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

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

#[test]
fn a_healthcheck_that_fails_says_why() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let foreign = other.local_addr().unwrap().to_string();
    let answering = thread::spawn(move || {
        for answer in
            ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "SSH-2.0-x\r\n", "HTTP/1.1 404 x\r\n\r\n"]
        {
            let (mut stream, _) = other.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let broken = Bridge::start(&[], &["sh", "-c", "exit 3"]);
    let not_ready = || broken.get("/readyz").status == 503;
    let mut cases = vec![
        (nobody.clone(), format!("mcp-bridge: cannot connect to {nobody}: connection refused")),
        (foreign.clone(), format!("mcp-bridge: what listens on {foreign} is not an mcp-bridge")),
        (foreign.clone(), format!("mcp-bridge: what listens on {foreign} does not speak HTTP/1")),
        (foreign.clone(), format!("mcp-bridge: {foreign} answers /readyz with 404: is it an mcp-bridge?")),
        ("unix:/no/such".to_owned(), "mcp-bridge: cannot connect to unix:/no/such: no such file".to_owned()),
    ];
    if not_ready() {
        let address = broken.address.to_string();
        cases.push((address.clone(), format!("mcp-bridge: the bridge on {address} is not ready: ")));
    }
    for (listen, sentence) in cases {
        let finished = run(&["--listen", &listen, "--healthcheck"], &[]);
        assert_eq!(finished.code, Some(1), "{listen}");
        assert!(finished.stderr.starts_with(&sentence), "{:?} is not {sentence:?}", finished.stderr);
        assert_eq!(finished.stderr.lines().count(), 1);
    }
    answering.join().unwrap();
}
