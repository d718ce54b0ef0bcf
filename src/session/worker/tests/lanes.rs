//! Sessions that share a child, each over a lane of its own.

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::*;
use crate::proto::ids::Id;
use crate::proto::link::{own_discover, own_initialize};
use crate::proto::version::Revision;
use crate::session::{Clients, Fault, Lane, LaneStdin};

/// What those of a session over a lane take, in bytes.
const LONGEST: usize = 32 * 1024 * 1024;

/// As the bridge would answer a session.
fn fault_text(id: &Id, _: Fault) -> Bytes {
    fault(id.as_json()).into()
}

fn fault(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32603,"message":"fault"}}}}"#)
}

/// A child that sessions share, and the loop that owns it.
struct Server {
    session: Session,
    child: Child,
    worker: JoinHandle<Ended<DuplexStream>>,
    /// Bytes that each pipe holds.
    pipe: usize,
    clients: Clients,
    /// The id under which the child knows the next request.
    next: u64,
}

/// Sessions that speak 2026-07-28 for their clients.
const MODERN: Clients = Clients::Modern { strangers: true };

impl Server {
    /// The handshake is over: the next request is 2.
    async fn open_for(clients: Clients, config: Config, pipe: usize) -> Self {
        let (pipes, mut child) = pipes(pipe);
        let id = SessionId::from_random(None, [7; 24]);
        let first = if clients == MODERN { own_discover() } else { own_initialize(Revision::R2025_11_25) };
        let (session, worker) = Session::shared(config, id, first, clients);
        let worker = tokio::spawn(worker.run(pipes, |_| pending()));
        assert!(child.line().await.unwrap().contains(r#""id":1,"#));
        child.send(&result("1")).await;
        assert_eq!(child.handshake().await, Some(Ok(())));
        if clients != MODERN {
            child.expect(&note("notifications/initialized")).await;
        }
        Self { session, child, worker, pipe, clients, next: 2 }
    }

    async fn open_with(config: Config, pipe: usize) -> Self {
        Self::open_for(MODERN, config, pipe).await
    }

    async fn open(pipe: usize) -> Self {
        Self::open_with(CONFIG, pipe).await
    }

    /// The child receives this request, under the id that is returned.
    async fn asked(&mut self, text: impl Fn(&str) -> String) -> String {
        let id = self.next.to_string();
        self.next += 1;
        self.child.expect(&text(&id)).await;
        id
    }

    async fn lane(&self) -> Lane {
        bounded(self.session.lane_over(self.pipe, LONGEST, fault_text)).await.expect("it serves")
    }

    /// A session over a lane.
    async fn join(&mut self) -> Joined {
        let Lane { stdin, stdout, exit } = self.lane().await;
        let (answered, _handshake) = oneshot::channel();
        let lane = Pipes { stdin, stdout, exit, answered, first_words: Arc::default() };
        let method = if self.clients == MODERN { "server/discover" } else { "initialize" };
        let first = parsed_request(&request("\"init\"", method));
        let id = SessionId::from_random(None, [8; 24]);
        let config = Config { max_message: LONGEST, ..CONFIG };
        let (session, worker, opening) = Session::new(config, id, first, Takes::Events, Era::Legacy);
        let worker = tokio::spawn(worker.run(lane, |_| pending()));
        if self.clients == MODERN {
            let seen = self.asked(|id| request(id, method)).await;
            self.child.send(&result(&seen)).await;
        }
        assert_eq!(rest(&opening).await, [format!("1-1 {}", result("\"init\"")), "end".into()]);
        if self.clients != MODERN {
            drop(post(&session, &note("notifications/initialized"), true).await.unwrap());
        }
        Joined { session, worker }
    }

    /// A lane with a subscription that the child knows as `seen`.
    async fn listening(&mut self, seen: &str) -> (LaneStdin, Lines<BufReader<DuplexStream>>, Exit) {
        let Lane { mut stdin, stdout, exit } = self.lane().await;
        say(&mut stdin, &request("1", "subscriptions/listen")).await;
        self.child.expect(&request(seen, "subscriptions/listen")).await;
        (stdin, BufReader::new(stdout).lines(), exit)
    }

    /// Bytes that wait for the child and are in no queue for its stdin.
    fn said(&self) -> usize {
        self.session.account().at(Place::Bodies)
    }
}

type Exit = Pin<Box<dyn Future<Output = End> + Send>>;

/// A session over a lane.
struct Joined {
    session: Session,
    worker: JoinHandle<Ended<DuplexStream>>,
}

async fn say(stdin: &mut LaneStdin, line: &str) {
    bounded(stdin.write_all(format!("{line}\n").as_bytes())).await.expect("the lane is there");
}

/// What belongs to the subscription that the child knows as `listen`.
fn event(listen: &str, text: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"x","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{listen}}},"text":"{text}"}}}}"#
    )
}

/// A notification of a session, with this much more in it.
fn said(lane: usize, number: usize, size: usize) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"x/{lane}/{number}","params":"{}"}}"#, "x".repeat(size))
}

/// All that is left, up to the end.
async fn heard(stdout: &mut Lines<BufReader<DuplexStream>>) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(line) = bounded(stdout.next_line()).await.unwrap() {
        lines.push(line);
    }
    lines
}

/// A test for sessions of either era.
macro_rules! for_both {
    ($($name:ident)+) => {
        mod over_a_child_of_2026_07_28 {
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                super::$name(super::MODERN).await;
            })+
        }

        mod over_a_child_of_the_session_era {
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                super::$name(super::Clients::Sessions).await;
            })+
        }
    };
}

for_both! {
    sessions_never_meet
    a_session_that_ends_takes_its_calls_along_and_no_others
    sessions_end_with_the_child_that_they_share_and_for_its_reason
}

async fn sessions_never_meet(clients: Clients) {
    let mut server = Server::open_for(clients, CONFIG, NARROW).await;
    let (one, other) = (server.join().await, server.join().await);
    let of_one = post(&one.session, &call("7", "\"t\""), true).await.unwrap();
    let first = server.asked(|id| call(id, id)).await;
    let of_other = post(&other.session, &call("7", "\"t\""), true).await.unwrap();
    let second = server.asked(|id| call(id, id)).await;
    for line in [progress(&second, 1), result(&second), progress(&first, 2), result(&first)] {
        server.child.send(&line).await;
    }
    for (reader, number) in [(of_one, 2), (of_other, 1)] {
        let want =
            [format!("2-1 {}", progress("\"t\"", number)), format!("2-2 {}", result("7")), "end".into()];
        assert_eq!(rest(&reader).await, want);
    }
}

async fn a_session_that_ends_takes_its_calls_along_and_no_others(clients: Clients) {
    let mut server = Server::open_for(clients, CONFIG, NARROW).await;
    let (one, other) = (server.join().await, server.join().await);
    let _of_one = post(&one.session, &request("7", "x"), true).await.unwrap();
    let first = server.asked(|id| request(id, "x")).await;
    let of_other = post(&other.session, &request("7", "x"), true).await.unwrap();
    let second = server.asked(|id| request(id, "x")).await;
    let since = Instant::now();
    one.session.end(End::Deleted);
    let told = server.child.line().await.unwrap();
    let named = format!(r#""method":"notifications/cancelled","params":{{"requestId":{first},"#);
    assert!(told.contains(&named), "{told}");
    assert_passed(since, Duration::ZERO);
    server.child.send(&result(&second)).await;
    assert_eq!(rest(&of_other).await, answered(2, "7"));
    assert_eq!(bounded(one.worker).await.unwrap().why, End::Deleted);
}

async fn sessions_end_with_the_child_that_they_share_and_for_its_reason(clients: Clients) {
    type Way = fn(&mut Server);
    let ways: [(Way, End); 3] = [
        (|server| server.child.exit(), End::Exited(DIED)),
        (|server| server.session.end(End::Shutdown), End::Shutdown),
        (|server| server.session.end(End::Revoked), End::Revoked),
    ];
    for (way, why) in ways {
        let mut server = Server::open_for(clients, CONFIG, NARROW).await;
        let (one, other) = (server.join().await, server.join().await);
        let call = post(&one.session, &request("7", "x"), true).await.unwrap();
        server.asked(|id| request(id, "x")).await;
        way(&mut server);
        server.child.close_stdout();
        let since = Instant::now();
        assert_eq!(rest(&call).await, failed(2, "7", &format!("Ended({why:?})")));
        for joined in [one, other] {
            assert_eq!(bounded(joined.worker).await.unwrap().why, why);
        }
        assert_passed(since, Duration::ZERO);
        let late = server.session.lane(LONGEST, fault_text).await;
        assert_eq!(late.err(), Some(why), "no further lane");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_session_says_before_it_closes_its_end_reaches_the_child_in_order() {
    for closes_first in [false, true] {
        let mut server = Server::open(NARROW).await;
        let Lane { mut stdin, stdout, exit } = server.lane().await;
        let stdout = Some(stdout).filter(|_| !closes_first); // it reads nothing more
        say(&mut stdin, &request("1", "x")).await;
        let seen = server.asked(|id| request(id, "x")).await;
        server.child.send(&result(&seen)).await;
        settle().await;
        let saying = tokio::spawn(async move {
            for number in 0..100 {
                say(&mut stdin, &said(0, number, number)).await;
            }
            stdin.write_all(b"{\"jsonrpc\":\"2.0\",\"method\":\"half\"}").await.unwrap();
        });
        for number in 0..100 {
            server.child.expect(&said(0, number, number)).await;
        }
        saying.await.unwrap();
        let since = Instant::now();
        bounded(exit).await;
        assert_passed(since, Duration::ZERO);
        assert_eq!(server.said(), 0);
        drop(stdout);
        let lane = server.lane().await;
        let Lane { mut stdin, .. } = lane;
        say(&mut stdin, &said(1, 1, 1)).await;
        server.child.expect(&said(1, 1, 1)).await; // half a line is none
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_child_says_before_it_ends_reaches_the_session() {
    for way in 0..3 {
        let mut server = Server::open(NARROW).await;
        let (mut stdin, mut stdout, exit) = server.listening("2").await;
        let text = |number: usize| format!("{number}{}", "x".repeat(2000));
        for number in 0..100 {
            server.child.send(&event("2", &text(number))).await;
        }
        let why = match way {
            0 => {
                server.child.exit();
                server.child.close_stdout();
                End::Exited(DIED)
            }
            1 => {
                server.child.close_stdout();
                End::StdoutClosed
            }
            _ => {
                settle().await;
                server.session.end(End::Shutdown);
                End::Shutdown
            }
        };
        bounded(server.worker).await.unwrap();
        say(&mut stdin, &said(0, 0, 1)).await; // which is in vain
        // The session is slow: what waits is kept for it.
        sleep(secs(4)).await;
        let want: Vec<_> = (0..100).map(|number| event("1", &text(number))).collect();
        assert_eq!(heard(&mut stdout).await, want);
        assert_eq!(bounded(exit).await, why);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_read_is_cut_and_the_others_go_on() {
    let mut server = Server::open(WIDE).await;
    let (mut deaf_stdin, deaf_stdout, deaf_exit) = server.listening("2").await;
    let (mut stdin, mut stdout, _exit) = server.listening("3").await;
    say(&mut deaf_stdin, &request("2", "x")).await;
    server.child.expect(&request("4", "x")).await;
    say(&mut stdin, &request("2", "y")).await;
    server.child.expect(&request("5", "y")).await;
    let mut childs_stdout = server.child.stdout.take().unwrap();
    let since = Instant::now();
    let speaking = tokio::spawn(async move {
        for _ in 0..40 {
            let line = event("2", &"x".repeat(60_000));
            childs_stdout.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        }
        childs_stdout.write_all(format!("{}\n", result("5")).as_bytes()).await.unwrap();
        childs_stdout
    });
    assert_eq!(bounded(stdout.next_line()).await.unwrap(), Some(result("2")));
    assert_passed(since, secs(5));
    assert_eq!(bounded(deaf_exit).await, End::StdoutClosed, "it looks as if its child had closed stdout");
    for seen in ["2", "4"] {
        let told = server.child.line().await.unwrap();
        assert!(told.contains(&format!(r#""params":{{"requestId":{seen},"#)), "{told}");
    }
    assert_eq!(server.session.account().at(Place::Readers), 0);
    // What it goes on to say is for nobody, and harms nobody.
    let _ = deaf_stdin.write_all(format!("{}\n", request("9", "z")).as_bytes()).await;
    server.child.stdout = Some(bounded(speaking).await.unwrap());
    say(&mut stdin, &request("3", "y")).await;
    server.child.expect(&request("6", "y")).await;
    drop(deaf_stdout);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_reads_slowly_is_waited_for() {
    let config = Config { max_message: LONGEST, ..CONFIG };
    let mut server = Server::open_with(config, WIDE).await;
    let (_stdin, stdout, _exit) = server.listening("2").await;
    let long = |listen: &str| event(listen, &"x".repeat(2_000_000)) + "\n";
    let mut childs_stdout = server.child.stdout.take().unwrap();
    let speaking = tokio::spawn(async move {
        for _ in 0..3 {
            childs_stdout.write_all(long("2").as_bytes()).await.unwrap();
        }
        childs_stdout
    });
    let mut stdout = stdout.into_inner();
    let (mut bytes, mut piece) = (0, vec![0; WIDE]);
    while bytes < 3 * long("1").len() {
        sleep(secs(3) / 4).await;
        let count = bounded(stdout.read(&mut piece)).await.unwrap();
        assert!(count > 0, "it is cut off after {bytes} bytes");
        bytes += count;
    }
    drop(bounded(speaking).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_goes_on_taking_less_than_the_child_writes_is_cut() {
    let mut server = Server::open(WIDE).await;
    let (_stdin, mut stdout, mut exit) = server.listening("2").await;
    let mut childs_stdout = server.child.stdout.take().unwrap();
    let speaking = tokio::spawn(async move {
        for _ in 0..1000 {
            let line = event("2", &"x".repeat(60_000));
            childs_stdout.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        }
        childs_stdout
    });
    let since = Instant::now();
    let why = loop {
        tokio::select! {
            biased;
            why = &mut exit => break why,
            line = stdout.next_line() => assert!(since.elapsed() < secs(90) && line.is_ok()),
        }
        sleep(secs(1) / 4).await;
    };
    assert_eq!(why, End::StdoutClosed);
    let passed = since.elapsed();
    assert!((secs(60)..secs(80)).contains(&passed), "{passed:?}");
    drop(bounded(speaking).await.unwrap());
}

/// Two lanes that say more than there is room for to a child that does not read.
async fn deaf_server() -> (Server, Vec<Lane2>) {
    let server = Server::open(WIDE).await;
    let mut lanes = Vec::new();
    for lane in 0..2 {
        let Lane { mut stdin, stdout, exit } = server.lane().await;
        let saying = tokio::spawn(async move {
            for number in 0..LINES {
                say(&mut stdin, &said(lane, number, 50_000)).await;
            }
            stdin
        });
        lanes.push(Lane2 { saying, stdout, exit });
    }
    settle().await;
    (server, lanes)
}

const LINES: usize = 100;

struct Lane2 {
    saying: JoinHandle<LaneStdin>,
    stdout: DuplexStream,
    exit: Exit,
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_read_makes_its_sessions_wait_and_loses_nothing() {
    let (mut server, lanes) = deaf_server().await;
    assert!(lanes.iter().all(|lane| !lane.saying.is_finished()));
    let account = server.session.account();
    assert!(account.at(Place::Stdin) < MAX_STDIN_QUEUE + 60_000);
    assert!(server.said() > 0, "what waits is counted");
    assert!(server.said() < 4 * WIDE, "{}", server.said());
    let mut next = [0, 0];
    while next != [LINES, LINES] {
        let line = server.child.line().await.unwrap();
        let lane = usize::from(line.contains("x/1/"));
        assert_eq!(line, said(lane, next[lane], 50_000));
        next[lane] += 1;
        let [one, other] = next;
        assert!(one.abs_diff(other) < 50, "none gets much more than the other: {next:?}");
    }
    assert_eq!(server.said(), 0);
    assert!(lanes.iter().all(|lane| lane.saying.is_finished()));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_while_it_waits_leaves_nothing_behind() {
    let (mut server, lanes) = deaf_server().await;
    let since = Instant::now();
    for Lane2 { saying, stdout, exit } in lanes {
        assert_eq!(server.session.stats().idle_since, None, "a lane is there");
        saying.abort();
        bounded(exit).await;
        drop(stdout);
    }
    assert_passed(since, 2 * Duration::from_millis(500));
    settle().await;
    assert_eq!(server.said(), 0);
    assert!(server.session.stats().idle_since.is_some());
    let Lane { mut stdin, .. } = server.lane().await;
    let mut lines = 0;
    while server.session.account().at(Place::Stdin) > 0 {
        server.child.line().await.unwrap();
        lines += 1;
    }
    assert!((80..100).contains(&lines), "what was forwarded is not taken back: {lines}");
    say(&mut stdin, &said(9, 9, 1)).await;
    while server.child.line().await.unwrap() != said(9, 9, 1) {}
}

#[tokio::test(start_paused = true)]
async fn lanes_take_turns() {
    let mut server = Server::open(WIDE).await;
    let (mut chatty, mut calm) = (server.lane().await, server.lane().await);
    settle().await; // both wait for what is said
    let many: String = (0..100).map(|number| said(0, number, 1) + "\n").collect();
    chatty.stdin.write_all(many.as_bytes()).await.unwrap();
    say(&mut calm.stdin, &said(1, 0, 1)).await;
    let mut before = 0;
    while server.child.line().await.unwrap() != said(1, 0, 1) {
        before += 1;
    }
    assert_eq!(before, 16, "{before} messages of another lane come first");
}

#[tokio::test(start_paused = true)]
async fn a_long_message_passes_both_ways() {
    const SIZE: usize = 10 * 1024 * 1024;
    let config = Config { max_message: LONGEST, ..CONFIG };
    let mut server = Server::open_with(config, WIDE).await;
    let joined = server.join().await;
    let long = |id: &str| request(id, "x").replace('}', &format!(r#","params":["{}"]}}"#, "x".repeat(SIZE)));
    let reader = post(&joined.session, &long("7"), true).await.unwrap();
    server.child.expect(&long("3")).await;
    server.child.send(&result_of("3", SIZE)).await;
    assert_eq!(rest(&reader).await, [format!("2-1 {}", result_of("7", SIZE)), "end".into()]);
    settle().await;
    assert_eq!((server.said(), server.session.account().at(Place::Readers)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_the_bridge_answers_in_the_childs_place_is_a_line_too() {
    let mut server = Server::open(NARROW).await;
    let Lane { mut stdin, stdout, .. } = server.lane().await;
    let mut stdout = BufReader::new(stdout).lines();
    say(&mut stdin, &request("\"a\"", "x")).await;
    server.child.expect(&request("2", "x")).await;
    server.child.send(&result_of("2", CONFIG.max_message)).await;
    assert_eq!(bounded(stdout.next_line()).await.unwrap(), Some(fault("\"a\"")));
}

#[tokio::test(start_paused = true)]
async fn a_lane_ends_with_a_message_that_is_too_long() {
    let mut server = Server::open(WIDE).await;
    let Lane { mut stdin, exit, .. } = bounded(server.session.lane(1000, fault_text)).await.unwrap();
    say(&mut stdin, &request("1", "x")).await;
    server.child.expect(&request("2", "x")).await;
    say(&mut stdin, &said(0, 0, 1000)).await;
    assert_eq!(bounded(exit).await, End::StdoutClosed);
    assert!(server.child.line().await.unwrap().contains("notifications/cancelled"));
}

#[tokio::test(start_paused = true)]
async fn a_lane_keeps_its_server_from_being_idle_and_the_last_one_does_so_no_more() {
    let config = Config { max_lifetime: Some(secs(3000)), ..CONFIG };
    let server = Server::open_with(config, NARROW).await;
    let (one, other) = (server.lane().await, server.lane().await);
    for lane in [one, other] {
        sleep(2 * CONFIG.idle_timeout).await;
        assert_eq!((server.session.stats().in_flight, server.session.stats().idle_since), (0, None));
        assert!(!server.session.end_if_idle(End::Evicted).await, "a session has its lane");
        assert!(!server.worker.is_finished());
        drop(lane);
    }
    assert_eq!(
        bounded(server.worker).await.unwrap().why,
        End::Lifetime(secs(3000)),
        "that was over long before"
    );
    let server = Server::open(NARROW).await;
    let lane = server.lane().await;
    sleep(2 * CONFIG.idle_timeout).await;
    let since = Instant::now();
    drop(lane);
    assert_eq!(bounded(server.worker).await.unwrap().why, End::Idle(CONFIG.idle_timeout));
    assert_passed(since, CONFIG.idle_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_to_end_serves_until_its_last_lane_has_ended() {
    let mut server = Server::open(NARROW).await;
    let (mut stdin, mut stdout, exit) = server.listening("2").await;
    server.session.end_when_idle();
    settle().await;
    let late = server.lane().await;
    server.child.send(&event("2", "a")).await;
    assert_eq!(bounded(stdout.next_line()).await.unwrap(), Some(event("1", "a")), "its subscription stays");
    say(&mut stdin, &request("2", "x")).await;
    server.child.expect(&request("3", "x")).await;
    drop((stdin, exit));
    settle().await;
    assert!(!server.worker.is_finished(), "one came late");
    drop(late);
    assert_eq!(bounded(server.worker).await.unwrap().why, End::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_leaves_before_it_has_its_lane_leaves_nothing_behind() {
    let server = Server::open(NARROW).await;
    let mut joining = Box::pin(server.session.lane(LONGEST, fault_text));
    assert!(poll_fn(|context| Poll::Ready(joining.as_mut().poll(context).is_pending())).await);
    drop(joining);
    assert_eq!(bounded(server.worker).await.unwrap().why, End::Idle(CONFIG.idle_timeout));
}

#[tokio::test(start_paused = true)]
async fn many_lanes_that_read_nothing_are_cut_and_the_one_that_reads_is_not() {
    let mut server = Server::open(WIDE).await;
    let mut deaf = Vec::new();
    for number in 2..10 {
        deaf.push(server.listening(&number.to_string()).await);
    }
    let (_stdin, mut stdout, mut exit) = server.listening("10").await;
    let mut childs_stdout = server.child.stdout.take().unwrap();
    let speaking = tokio::spawn(async move {
        for _ in 0..15 {
            for number in 2..=10 {
                let line = event(&number.to_string(), &"x".repeat(60_000));
                childs_stdout.write_all(format!("{line}\n").as_bytes()).await.unwrap();
            }
        }
        childs_stdout
    });
    let since = Instant::now();
    for _ in 0..15 {
        let line = tokio::select! {
            line = bounded(stdout.next_line()) => line.unwrap(),
            why = &mut exit => panic!("{why:?}"),
        };
        assert_eq!(line.map(|line| line.len()), Some(event("1", &"x".repeat(60_000)).len()));
    }
    let passed = since.elapsed();
    assert!((secs(4)..secs(12)).contains(&passed), "{passed:?}");
    drop(bounded(speaking).await.unwrap());
}
