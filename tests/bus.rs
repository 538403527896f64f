//! The bus with a real nats-server: other Shortstops learn of each write, or they drop everything.
//!
//! Only `shortstop::bus` is used, with a plain NATS client as the stranger. Each test has its own server and ports. Tests wait for
//! a call of the [`Sink`], never for a fixed time.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};
use shortstop::bus::{Bus, BusError, Event, Instance, Key, Outbox, Settings, Sink, random_incarnation, start};
use shortstop::metrics::slots::BusStats;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Timeout of every wait. Far above what is needed, for machines under load.
const PATIENCE: Duration = Duration::from_secs(20);
const JSON: &str = "cache.invalidate";

/// A request of the bus to the cache.
#[derive(Clone, Debug, PartialEq)]
enum Call {
    Invalidate(u32, u128),
    Key(Vec<u8>),
    Quarantine(u32, u128),
    QuarantineAll,
    Flush(&'static str),
    Script(bool),
    Pattern(Vec<u8>),
    Forget(Vec<u8>),
    Plain(u32, u128),
    Lease(Instant),
    Doubtful(bool),
}

struct Recorder(mpsc::UnboundedSender<Call>);

impl Recorder {
    fn note(&self, call: Call) {
        // The test may be over.
        let _ = self.0.send(call);
    }
}

impl Sink for Recorder {
    fn invalidate(&self, db: u32, hash: u128, _from: u64) {
        self.note(Call::Invalidate(db, hash));
    }
    fn invalidate_key(&self, key: &[u8]) {
        self.note(Call::Key(key.to_vec()));
    }
    fn quarantine(&self, db: u32, hash: u128) {
        self.note(Call::Quarantine(db, hash));
    }
    fn quarantine_all(&self) {
        self.note(Call::QuarantineAll);
    }
    fn flush(&self, why: &'static str) {
        self.note(Call::Flush(why));
    }
    fn script(&self, lost: bool) {
        self.note(Call::Script(lost));
    }
    fn changed(&self) {
        self.note(Call::Flush("bus: a peer asks for it"));
    }
    fn invalidate_pattern(&self, glob: &[u8]) {
        self.note(Call::Pattern(glob.to_vec()));
    }
    fn forget(&self, glob: &[u8]) {
        self.note(Call::Forget(glob.to_vec()));
    }
    fn plain(&self, db: u32, hash: u128) {
        self.note(Call::Plain(db, hash));
    }
    fn lease(&self, until: Instant) {
        self.note(Call::Lease(until));
    }
    fn set_doubtful(&self, doubtful: bool) {
        self.note(Call::Doubtful(doubtful));
    }
    fn status(&self, _: &[u8]) -> bool {
        true
    }
}

/// A Shortstop, as far as the bus is concerned.
struct Proxy {
    bus: Bus,
    outbox: Outbox,
    stats: Arc<BusStats>,
    incarnation: u64,
    calls: mpsc::UnboundedReceiver<Call>,
}

impl Proxy {
    fn start(settings: Settings) -> Proxy {
        let (sender, calls) = mpsc::unbounded_channel();
        let stats = Arc::new(BusStats::default());
        let incarnation = settings.incarnation;
        let bus =
            start(&Handle::current(), settings, Arc::new(Recorder(sender)), Arc::clone(&stats)).expect("good settings");
        Proxy { outbox: bus.outbox(), bus, stats, incarnation, calls }
    }

    /// Connected, with the inbound path proven.
    async fn live(settings: Settings) -> Proxy {
        let mut proxy = Proxy::start(settings);
        proxy.until(|call| *call == Call::Doubtful(false)).await;
        proxy
    }

    /// All calls up to the first that matches, including that one.
    async fn until(&mut self, fits: impl Fn(&Call) -> bool) -> Vec<Call> {
        let mut seen = Vec::new();
        let waiting = async {
            loop {
                let call = self.calls.recv().await.expect("the bus is running");
                let enough = fits(&call);
                seen.push(call);
                if enough {
                    return;
                }
            }
        };
        let result = timeout(PATIENCE, waiting).await;
        assert!(result.is_ok(), "it never came; what came: {:?}", &seen[seen.len().saturating_sub(50)..]);
        seen
    }

    /// All calls up to the flush for that reason.
    async fn until_flush(&mut self, about: &str) -> Vec<Call> {
        self.until(|call| matches!(call, Call::Flush(why) if why.contains(about))).await
    }

    /// All calls until a probe that is sent now has come back: everything in flight has then arrived.
    async fn settle(&mut self) -> Vec<Call> {
        let after = Instant::now() + Duration::from_secs(1);
        self.until(|call| matches!(call, Call::Lease(until) if *until > after)).await
    }

    /// Reports lists from Redis without the peer, until that ends the doubt.
    async fn until_forgotten(&mut self) -> Vec<Call> {
        let peers = self.bus.peers();
        let looking = tokio::spawn(async move {
            loop {
                peers.shown(Vec::new());
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        let calls = self.until(|call| *call == Call::Doubtful(false)).await;
        looking.abort();
        calls
    }

    fn send(&self, events: Vec<Event>) -> bool {
        self.outbox.try_send(events)
    }

    fn count(&self, counter: impl Fn(&BusStats) -> &AtomicU64) -> u64 {
        counter(&self.stats).load(Ordering::Relaxed)
    }
}

/// A nats-server on its own port, killed at the end.
struct Nats {
    port: u16,
    arguments: Vec<&'static str>,
    child: Option<Child>,
}

impl Nats {
    fn start() -> Nats {
        Nats::with(&[])
    }

    fn with(arguments: &[&'static str]) -> Nats {
        let mut nats = Nats::absent();
        nats.arguments = arguments.to_vec();
        nats.run();
        nats
    }

    /// A port on which no process listens yet.
    fn absent() -> Nats {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
        Nats { port, arguments: Vec::new(), child: None }
    }

    /// Returns when it accepts connections.
    fn run(&mut self) {
        let mut child = Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string()])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nats-server is installed (`make test` does that)");
        let mut log = BufReader::new(child.stderr.take().expect("piped above"));
        let mut line = String::new();
        while !line.contains("Server is ready") {
            line.clear();
            let read = log.read_line(&mut line).expect("a readable log");
            assert_ne!(read, 0, "nats-server ended before it was ready");
        }
        // The pipe must be read, or the server blocks when it is full.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        self.child = Some(child);
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is ours and not yet waited for");
            child.wait().expect("it is ours and not yet waited for");
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("running").id().to_string();
        let status = Command::new("kill").args([name, &id]).status().expect("kill is there");
        assert!(status.success());
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    fn settings(&self) -> Settings {
        self.settings_at(&self.url())
    }

    fn settings_at(&self, url: &str) -> Settings {
        Settings::new(url.parse().expect("a NATS URL"), "test", random_incarnation())
    }

    fn with_json(&self) -> Settings {
        Settings { json: Some(JSON.into()), ..self.settings() }
    }

    async fn stranger(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.expect("the server is ready")
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

fn key(db: u32, hash: u128) -> Event {
    Event::Invalidate { hash, key: Key::new(db, format!("key:{hash}").as_bytes()) }
}

fn is_flush(call: &Call) -> bool {
    matches!(call, Call::Flush(_))
}

/// A message in the wire format documented in `bus/message.rs`.
fn forged(kind: u8, incarnation: u64, sequence: u64, body: &[u8]) -> Vec<u8> {
    [b"Ss\x01".as_slice(), &[kind], &incarnation.to_be_bytes(), &sequence.to_be_bytes(), body].concat()
}

const HEARTBEAT: u8 = 2;
const FLUSH: u8 = 6;

async fn publish(client: &async_nats::Client, subject: &'static str, payload: Vec<u8>) {
    client.publish(subject, payload.into()).await.expect("connected");
    client.flush().await.expect("connected");
}

const FLEET: &str = "shortstop.v1.test";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_crosses() {
    let nats = Nats::start();
    let mut a = Proxy::live(nats.settings()).await;
    let mut b = Proxy::live(nats.settings()).await;
    let mut elsewhere = Proxy::live(Settings { fleet: "other".into(), ..nats.settings() }).await;

    a.send(vec![key(0, 1), key(3, 2), Event::Quarantine { hash: 3, key: Key::new(1, b"") }]);
    let mut calls = b.until(|call| *call == Call::Invalidate(3, 2)).await;
    calls.retain(|call| matches!(call, Call::Invalidate(..) | Call::Quarantine(..)));
    assert_eq!(calls, [Call::Quarantine(1, 3), Call::Invalidate(0, 1), Call::Invalidate(3, 2)]);
    // The flush covers the fourth key's invalidation, but not the quarantine.
    a.send(vec![key(0, 4), Event::Flush, Event::Quarantine { hash: 5, key: Key::new(1, b"") }]);
    b.until_flush("a peer asks").await;
    let calls = b.until(|call| *call == Call::Quarantine(1, 5)).await;
    assert!(!calls.contains(&Call::Invalidate(0, 4)), "{calls:?}");
    // What somebody wants forgotten is no write, and services are not told.
    a.send(vec![Event::Forget { glob: b"user:*"[..].into() }]);
    b.until(|call| *call == Call::Forget(b"user:*".to_vec())).await;
    a.send(vec![Event::Plain { hash: 5, key: Key::new(3, b"k") }]);
    b.until(|call| *call == Call::Plain(3, 5)).await;
    // A quarantine of everything covers a quarantine and a flush.
    a.send(vec![key(0, 6), Event::QuarantineAll, Event::Flush]);
    let calls = b.until(|call| *call == Call::QuarantineAll).await;
    assert!(!calls.iter().any(|call| matches!(call, Call::Invalidate(..) | Call::Flush(_))), "{calls:?}");

    for proxy in [&mut a, &mut elsewhere] {
        let calls = proxy.settle().await;
        assert!(!calls.iter().any(|call| matches!(call, Call::Invalidate(..) | Call::Quarantine(..))), "{calls:?}");
    }
    assert_eq!(a.count(|s| &s.published), 8);
    assert_eq!((b.count(|s| &s.received), b.count(|s| &s.applied), b.count(|s| &s.gaps)), (8, 8, 0));
    assert_eq!((a.count(|s| &s.received), a.count(|s| &s.dropped), a.count(|s| &s.peers)), (0, 0, 1));
    assert_eq!(elsewhere.count(|s| &s.peers), 0);
}

/// One message stands for all scripts of a batch. It names no keys: the receiver's setting decides what it means.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_of_a_batch_are_published_once() {
    let nats = Nats::start();
    let a = Proxy::live(nats.with_json()).await;
    let mut b = Proxy::live(nats.with_json()).await;
    b.until_flush("before the first").await;
    let script = |lost| Event::Script { lost, clear: false };
    for (events, expected) in [
        (vec![script(false), key(0, 1), script(false)], vec![Call::Script(false), Call::Invalidate(0, 1)]),
        (vec![script(false), script(true), key(0, 2)], vec![Call::Script(true), Call::Invalidate(0, 2)]),
        // Beside a flush a script needs no message of its own, unless it may still be running.
        (vec![script(false), Event::Flush], vec![Call::Flush("bus: a peer asks for it")]),
        (vec![script(true), Event::Flush], vec![Call::Flush("bus: a peer asks for it"), Call::Script(true)]),
        (vec![script(true), Event::QuarantineAll], vec![Call::QuarantineAll]),
    ] {
        a.send(events);
        let mut calls = b.settle().await;
        calls.retain(|call| !matches!(call, Call::Lease(_)));
        assert_eq!(calls, expected);
    }
    assert_eq!((b.count(|s| &s.unreadable), b.count(|s| &s.gaps)), (0, 0));
    assert_eq!(a.count(|s| &s.json_published), 5, "the keys, and the flushes; not the scripts");
    a.send(vec![Event::Script { lost: false, clear: true }]);
    b.until(|call| *call == Call::Script(false)).await;
    timeout(PATIENCE, async {
        while a.count(|s| &s.json_published) < 6 {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    })
    .await
    .expect("services are told to drop everything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_100_000_events_arrives_completely() {
    const WORKERS: u128 = 4;
    const BATCHES: u128 = 50;
    const EACH: u128 = 500;
    let nats = Nats::start();
    let a = Proxy::live(nats.with_json()).await;
    let mut b = Proxy::live(nats.with_json()).await;
    // The first heartbeat of `a` causes a flush at `b`, because `a` was already running.
    b.until_flush("before the first").await;

    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            // Threads without a runtime, like Shortstop's workers.
            let outbox = a.outbox.clone();
            std::thread::spawn(move || {
                (0..BATCHES).all(|batch| {
                    let first = (worker * BATCHES + batch) * EACH;
                    outbox.try_send((first..first + EACH).map(|hash| key(0, hash)).collect())
                })
            })
        })
        .collect();
    let total = (WORKERS * BATCHES * EACH) as usize;
    let mut seen = vec![false; total];
    let mut left = total;
    while left > 0 {
        for call in b.until(|call| matches!(call, Call::Invalidate(..))).await {
            match call {
                Call::Invalidate(0, hash) => {
                    assert!(!std::mem::replace(&mut seen[hash as usize], true), "{hash} came twice");
                    left -= 1;
                }
                Call::Lease(_) => {}
                other => panic!("{other:?} in a burst that fits"),
            }
        }
    }
    for worker in workers {
        assert!(worker.join().expect("no panic"), "all of it fits the queue");
    }
    b.settle().await;
    assert_eq!(b.count(|s| &s.gaps), 0);
    assert_eq!(b.count(|s| &s.received), total as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_killed_and_restarted() {
    let mut nats = Nats::start();
    let mut a = Proxy::live(nats.settings()).await;
    let mut b = Proxy::live(nats.settings()).await;
    b.until_flush("before the first").await;
    a.send(vec![key(0, 1)]);
    b.until(|call| *call == Call::Invalidate(0, 1)).await;

    nats.kill();
    let killed = Instant::now();
    for proxy in [&mut a, &mut b] {
        let calls = proxy.until(|call| *call == Call::Doubtful(true)).await;
        for call in calls {
            assert!(
                !matches!(call, Call::Lease(until) if until > killed + Duration::from_secs(1)),
                "a lease from nowhere"
            );
        }
    }
    // Far more than the client library buffers.
    let before = Instant::now();
    for hash in 0..20_000 {
        assert!(a.send(vec![key(0, hash)]), "dropped later, but taken");
    }
    assert!(before.elapsed() < Duration::from_secs(5), "publishers wait for nothing");

    nats.run();
    // It is undetermined which of the two connects first, and so which flush occurs. Both recover.
    let calls = [b.until_flush("is missing").await, b.settle().await].concat();
    let connected = |call: &Call| matches!(call, Call::Flush(why) if why.contains("connected"));
    assert!(calls.iter().any(connected), "{calls:?}");
    a.settle().await;
    assert!(b.count(|s| &s.gaps) >= 1);
    assert!(a.count(|s| &s.dropped) >= 1);
    a.send(vec![key(0, 99_999)]);
    let calls = b.until(|call| *call == Call::Invalidate(0, 99_999)).await;
    assert!(!calls.iter().any(is_flush), "the numbers fit again");
    assert!(a.bus.lost_peers().is_empty() && b.bus.lost_peers().is_empty());
}

/// Half-open: the sockets stay open, but nothing moves. Only the leases and the silence of peers show it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_freezes_and_thaws() {
    let nats = Nats::start();
    let mut a = Proxy::live(nats.settings()).await;
    let mut b = Proxy::live(nats.settings()).await;
    b.until_flush("before the first").await;
    a.send(vec![key(0, 1)]);
    b.until(|call| *call == Call::Invalidate(0, 1)).await;

    nats.signal("-STOP");
    let stopped = Instant::now();
    let writer = {
        let outbox = a.outbox.clone();
        std::thread::spawn(move || {
            let before = Instant::now();
            // More bytes than the sockets and the library can buffer.
            for first in 0..100u128 {
                outbox.try_send((0..2000).map(|n| key(0, 1_000_000 + first * 2000 + n)).collect());
            }
            before.elapsed()
        })
    };
    let calls = b.until(|call| *call == Call::Doubtful(true)).await;
    assert!(calls.iter().any(|call| matches!(call, Call::Flush(why) if why.contains("silent"))), "{calls:?}");
    assert!(stopped.elapsed() > Duration::from_secs(1));
    for call in calls {
        assert!(
            !matches!(call, Call::Lease(until) if until > stopped + Duration::from_secs(1)),
            "a lease from nowhere"
        );
    }
    let waited = tokio::task::spawn_blocking(move || writer.join().expect("no panic")).await.expect("no panic");
    assert!(waited < Duration::from_secs(5), "a worker waited {waited:?}");

    nats.signal("-CONT");
    b.until(|call| *call == Call::Doubtful(false)).await;
    a.settle().await;
    b.settle().await;
    a.send(vec![key(0, 2)]);
    b.until(|call| *call == Call::Invalidate(0, 2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_comes_later() {
    let mut nats = Nats::absent();
    let mut a = Proxy::start(nats.settings());
    assert_eq!(a.calls.recv().await, Some(Call::Doubtful(true)), "told before anything else");
    for hash in 0..10_000 {
        assert!(a.send(vec![key(0, hash)]));
    }
    nats.run();
    let calls = a.until(|call| *call == Call::Doubtful(false)).await;
    assert!(matches!(calls[..], [Call::Flush(_), Call::Lease(_), Call::Doubtful(false)]), "{calls:?}");
    assert_eq!(a.count(|s| &s.dropped), 10_000);

    let mut b = Proxy::live(nats.settings()).await;
    b.until_flush("before the first").await;
    a.send(vec![key(0, 5)]);
    b.until(|call| *call == Call::Invalidate(0, 5)).await;
    assert_eq!(b.count(|s| &s.gaps), 0);
}

/// A Shortstop that wrote while it could not publish must not look like one that has just started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_that_has_already_written_causes_a_flush() {
    let mut nats = Nats::absent();
    let late = Proxy::start(nats.settings());
    late.send(vec![key(0, 1)]);
    let mut early = Proxy::start(nats.settings());
    nats.run();
    early.until_flush("before the first").await;
    let mut fresh = Proxy::live(nats.settings()).await;
    early.settle().await;
    fresh.send(vec![key(0, 2)]);
    let calls = early.until(|call| *call == Call::Invalidate(0, 2)).await;
    assert!(!calls.iter().any(is_flush), "one that has just started is not: {calls:?}");
    fresh.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_messages_only_cause_flushes() {
    let nats = Nats::start();
    let mut a = Proxy::live(nats.settings()).await;
    let mut b = Proxy::live(nats.settings()).await;
    b.until_flush("before the first").await;
    let stranger = nats.stranger().await;

    let garbage = [
        Vec::new(),
        b"Ss".to_vec(),
        vec![0; 1_000_000],
        b"{\"action\":\"clear\"}".to_vec(),
        [b"Ss\x02".as_slice(), &[1; 40]].concat(),
        forged(99, 7, 1, b""),
        forged(4, 7, 1, b""),
        forged(4, 7, 1, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
        forged(FLUSH, 7, 1, b"more"),
    ];
    for (nth, payload) in garbage.into_iter().enumerate() {
        publish(&stranger, FLEET, payload).await;
        let calls = b.until_flush("not be understood").await;
        assert_eq!(calls.iter().filter(|call| is_flush(call)).count(), 1, "{calls:?}");
        assert_eq!(b.count(|s| &s.unreadable), nth as u64 + 1);
    }
    assert_eq!(b.count(|s| &s.peers), 1, "nobody was met");

    // A gap in the numbers of `a` that does not exist. At the next heartbeat `b` is right again.
    publish(&stranger, FLEET, forged(FLUSH, a.incarnation, 1 << 40, b"")).await;
    b.until_flush("is missing").await;
    b.until_flush("went back").await;
    a.send(vec![key(0, 1)]);
    let calls = b.until(|call| *call == Call::Invalidate(0, 1)).await;
    assert!(!calls.iter().any(is_flush), "{calls:?}");

    // Messages forged in the name of `b` itself: they must not count, above all not as an echo.
    let distant = [1u64.to_be_bytes(), (u64::MAX / 2).to_be_bytes()].concat();
    publish(&stranger, FLEET, forged(HEARTBEAT, b.incarnation, 0, &distant)).await;
    publish(&stranger, FLEET, forged(FLUSH, b.incarnation, 9, b"")).await;
    let calls = b.settle().await;
    assert!(
        calls
            .iter()
            .all(|call| matches!(call, Call::Lease(until) if *until <= Instant::now() + Duration::from_secs(1)))
    );

    // A forged Shortstop counts as lost until its BYE.
    publish(&stranger, FLEET, forged(HEARTBEAT, 7, 3, &[0; 16])).await;
    b.until_flush("before the first").await;
    b.until_flush("silent").await;
    b.until(|call| *call == Call::Doubtful(true)).await;
    assert_eq!(b.bus.lost_peers(), [7]);
    b.until_forgotten().await;
    a.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_notified_of_written_keys() {
    let nats = Nats::start();
    let service = nats.stranger().await;
    let mut heard = service.subscribe(JSON).await.expect("connected");
    registered(&service).await;
    let mut a = Proxy::live(nats.with_json()).await;
    let mut b = Proxy::live(nats.with_json()).await;
    b.until_flush("before the first").await;

    let binary = Event::Invalidate { hash: 2, key: Key::new(0, b"\xff\0") };
    a.send(vec![key(0, 1), binary, Event::Quarantine { hash: 3, key: Key::new(0, b"q") }]);
    a.send(vec![Event::Flush]);
    let instance = format!("shortstop:test:{:016x}", a.incarnation);
    for expected in [
        json!({"action": "invalidate", "key": "key:1", "instance": instance}),
        json!({"action": "invalidate", "key_base64": "/wA=", "instance": instance}),
        json!({"action": "invalidate", "key": "q", "instance": instance}),
        json!({"action": "clear", "instance": instance}),
    ] {
        let message = timeout(PATIENCE, heard.next()).await.expect("it comes").expect("connected");
        let mut message: Value = serde_json::from_slice(&message.payload).expect("JSON");
        let time = message.as_object_mut().and_then(|object| object.remove("timestamp")).expect("a time");
        let time = time.as_str().expect("a text");
        assert!(
            time.len() == "2025-01-31T09:30:00.000Z".len() && time.starts_with("20") && time.ends_with('Z'),
            "{time}"
        );
        assert_eq!(message, expected);
    }
    // Shortstops receive it only on their own subject.
    let calls: Vec<Call> = [b.until_flush("a peer asks").await, b.settle().await].concat();
    assert!(!calls.iter().any(|call| matches!(call, Call::Key(_))), "{calls:?}");
    assert!(!a.settle().await.iter().any(|call| matches!(call, Call::Key(_) | Call::Flush(_))));
    assert_eq!(
        (a.count(|s| &s.json_published), a.count(|s| &s.json_received), b.count(|s| &s.json_received)),
        (4, 0, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_services_are_applied() {
    let nats = Nats::start();
    let mut a = Proxy::live(nats.with_json()).await;
    let mut deaf = Proxy::live(nats.settings()).await;
    deaf.until_flush("before the first").await;
    let service = nats.stranger().await;
    for text in [
        r#"{"action":"invalidate","key":"signals:BTC","timestamp":"2025-01-31T09:30:00.000001"}"#,
        r#"{"action":"invalidate","key_base64":"/wA="}"#,
        "not JSON",
        r#"{"action":"invalidate_pattern","pattern":"candles:*"}"#,
        r#"{"action":"explode"}"#,
        r#"{"action":"clear"}"#,
    ] {
        publish(&service, JSON, text.as_bytes().to_vec()).await;
    }
    let mut calls = a.until_flush("a service requested").await;
    calls.retain(|call| !matches!(call, Call::Lease(_)));
    assert_eq!(
        calls[..3],
        [Call::Key(b"signals:BTC".to_vec()), Call::Key(b"\xff\0".to_vec()), Call::Pattern(b"candles:*".to_vec()),]
    );
    a.settle().await;
    assert_eq!((a.count(|s| &s.json_received), a.count(|s| &s.json_bad), a.count(|s| &s.applied)), (6, 2, 4));
    let calls = deaf.settle().await;
    assert!(calls.iter().all(|call| matches!(call, Call::Lease(_))), "{calls:?}");
}

/// Messages to services have no numbers, so one `clear` must stand for those that were missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_get_a_clear_for_missed_messages() {
    let mut nats = Nats::absent();
    let a = Proxy::start(nats.with_json());
    a.send(vec![key(0, 1), key(0, 2)]);
    nats.run();
    let service = nats.stranger().await;
    let mut heard = service.subscribe(JSON).await.expect("connected");
    registered(&service).await;
    // Either the `clear` owed from the start arrives, or it was sent before the service listened and this key arrives.
    let mut fitting = None;
    while fitting.is_none() {
        a.send(vec![key(0, 3)]);
        fitting = timeout(Duration::from_millis(200), heard.next()).await.ok();
    }
    let message = fitting.flatten().expect("connected");
    let message: Value = serde_json::from_slice(&message.payload).expect("JSON");
    assert!(message["action"] == "clear" || message["key"] == "key:3", "{message}");
    assert!(a.count(|s| &s.json_dropped) >= 2);
    assert!(a.count(|s| &s.json_published) >= 1);
}

/// Returns when the server knows all subscriptions of this client: `flush` is no round trip, but a message to itself is.
async fn registered(service: &async_nats::Client) {
    let inbox = service.new_inbox();
    let mut own = service.subscribe(inbox.clone()).await.expect("connected");
    service.publish(inbox, "".into()).await.expect("connected");
    timeout(PATIENCE, own.next()).await.expect("it comes back").expect("connected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overflow_is_one_flush() {
    let nats = Nats::start();
    let mut a = Proxy::live(Settings { queue: 10, ..nats.with_json() }).await;
    let mut b = Proxy::live(nats.settings()).await;
    b.until_flush("before the first").await;
    let service = nats.stranger().await;
    let mut heard = service.subscribe(JSON).await.expect("connected");
    registered(&service).await;

    assert!(!a.send((0..11).map(|hash| key(0, hash)).collect()), "larger than the queue");
    let calls = [b.until_flush("a peer asks").await, b.settle().await].concat();
    assert_eq!(calls.iter().filter(|call| is_flush(call)).count(), 1, "{calls:?}");
    assert!(!calls.iter().any(|call| matches!(call, Call::Invalidate(..))));
    let message = timeout(PATIENCE, heard.next()).await.expect("it comes").expect("connected");
    let message: Value = serde_json::from_slice(&message.payload).expect("JSON");
    assert_eq!(message["action"], "clear");

    assert!(a.send(vec![key(0, 50)]), "there is room again");
    let calls = b.until(|call| *call == Call::Invalidate(0, 50)).await;
    assert!(!calls.iter().any(is_flush));
    assert_eq!((a.count(|s| &s.dropped), a.count(|s| &s.published), b.count(|s| &s.gaps)), (11, 2, 0));
    a.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_leaves_is_not_missed() {
    let nats = Nats::start();
    let mut a = Proxy::live(nats.settings()).await;
    let b = Proxy::live(nats.with_json()).await;
    for first in 0..10u128 {
        assert!(b.send((0..1000).map(|n| key(0, first * 1000 + n)).collect()));
    }
    let before = Instant::now();
    b.bus.shutdown().await;
    assert!(before.elapsed() < Duration::from_millis(900), "an answered BYE ends it, not the limit");

    // Everything queued has arrived, and nothing waits: two seconds of leases without any doubt.
    let after = Instant::now() + Duration::from_secs(3);
    let calls = a.until(|call| matches!(call, Call::Lease(until) if *until > after)).await;
    let keys = calls.iter().filter(|call| matches!(call, Call::Invalidate(..))).count();
    assert_eq!(keys, 10_000);
    assert!(!calls.iter().any(|call| matches!(call, Call::Flush(_) | Call::Doubtful(_))));
    assert_eq!((a.count(|s| &s.peers), a.count(|s| &s.gaps)), (0, 0));
    assert!(!b.outbox.try_send(vec![key(0, 1)]), "the end is told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_without_nats_is_immediate() {
    let nats = Nats::absent();
    let a = Proxy::start(nats.with_json());
    a.send(vec![key(0, 1)]);
    let before = Instant::now();
    a.bus.shutdown().await;
    assert!(before.elapsed() < Duration::from_millis(900));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vanished_peer_raises_doubt_until_it_is_known_to_be_gone() {
    let nats = Nats::start();
    let mut a = Proxy::live(nats.settings()).await;
    let b = Proxy::live(nats.settings()).await;
    b.send(vec![key(0, 1)]);
    a.until(|call| *call == Call::Invalidate(0, 1)).await;

    let Proxy { bus, incarnation: lost, .. } = b;
    // Like a killed process: the connection closes without a BYE.
    drop(bus);
    let dropped = Instant::now();
    let calls = a.until(|call| *call == Call::Doubtful(true)).await;
    let silence = dropped.elapsed();
    assert!(silence > Duration::from_millis(1200), "{silence:?} is less than the last heartbeat allows");
    assert!(matches!(calls[calls.len() - 2], Call::Flush(why) if why.contains("silent")), "{calls:?}");
    assert_eq!(a.bus.lost_peers(), [lost]);
    // The lease continues: this is another doubt.
    a.settle().await;

    // Redis does not show it: once is not enough.
    a.bus.peers().shown(Vec::new());
    a.settle().await;
    assert_eq!(a.bus.lost_peers(), [lost]);
    let calls = a.until_forgotten().await;
    assert!(!calls.iter().any(is_flush), "{calls:?}");
    assert!(a.bus.lost_peers().is_empty());
    a.bus.peers().shown(Vec::new());
    a.settle().await;
    assert_eq!(a.count(|s| &s.peers), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unheard_instance_raises_doubt_until_it_is_heard() {
    let nats = Nats::start();
    let mut a = Proxy::live(nats.settings()).await;
    let settings = nats.settings();
    let unheard = settings.incarnation;
    let peers = a.bus.peers();
    let own = a.incarnation;
    let instance = |incarnation| Instance { incarnation, address: "127.0.0.1:1".into() };
    let looking = tokio::spawn(async move {
        loop {
            peers.shown(vec![instance(own), instance(unheard)]);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let calls = a.until(|call| *call == Call::Doubtful(true)).await;
    assert!(matches!(calls[calls.len() - 2], Call::Flush(why) if why.contains("not heard")), "{calls:?}");
    assert_eq!(a.count(|s| &s.unheard), 1);
    assert!(a.bus.peers().needs_list() && !a.bus.peers().needs_list_now());
    let _late = Proxy::live(settings).await;
    a.until(|call| *call == Call::Doubtful(false)).await;
    a.settle().await;
    assert_eq!((a.count(|s| &s.unheard), a.count(|s| &s.peers)), (0, 1));
    looking.abort();
}

/// The heartbeats report the subscriptions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_are_counted_and_peers_with_another_redis_are_noticed() {
    let nats = Nats::start();
    let mut a = Proxy::live(nats.settings()).await;
    let here = Proxy::live(nats.settings()).await;
    let there = Proxy::live(nats.settings()).await;
    assert_eq!(a.bus.peers().subscribers(), 0);
    a.bus.peers().connected(Some(7), true);
    here.bus.peers().connected(Some(7), true);
    there.bus.peers().connected(Some(8), true);
    let until = Instant::now() + PATIENCE;
    while a.count(|s| &s.other_upstream) == 0 {
        assert!(Instant::now() < until, "it is not noticed");
        a.settle().await;
    }
    assert_eq!(a.bus.peers().subscribers(), 2, "itself and the one with the same Redis");
    here.bus.peers().disconnected();
    while a.bus.peers().subscribers() != 1 {
        assert!(Instant::now() < until, "it is not noticed");
        a.settle().await;
    }
    // Writes of a peer with another Redis are applied, which does no harm.
    there.send(vec![key(0, 1)]);
    a.until(|call| *call == Call::Invalidate(0, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_comes_back_ends_the_doubt() {
    let nats = Nats::start();
    let mut a = Proxy::live(nats.settings()).await;
    let b = Proxy::live(nats.settings()).await;
    b.send(vec![key(0, 1)]);
    a.until(|call| *call == Call::Invalidate(0, 1)).await;
    let Proxy { bus, incarnation, .. } = b;
    drop(bus);
    a.until(|call| *call == Call::Doubtful(true)).await;

    // It was only frozen. Its number shows that it published nothing meanwhile.
    let stranger = nats.stranger().await;
    publish(&stranger, FLEET, forged(HEARTBEAT, incarnation, 1, &[0; 16])).await;
    let calls = a.until(|call| *call == Call::Doubtful(false)).await;
    assert!(!calls.iter().any(is_flush), "{calls:?}");
    a.until(|call| *call == Call::Doubtful(true)).await;
    // This time it did publish, and what it published is unknown.
    publish(&stranger, FLEET, forged(HEARTBEAT, incarnation, 4, &[0; 16])).await;
    a.until_flush("is missing").await;
    a.until(|call| *call == Call::Doubtful(false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_in_the_url_is_used() {
    let nats = Nats::with(&["--user", "proxy", "--pass", "hunter/2"]);
    let mut right = Proxy::start(nats.settings_at(&format!("nats://proxy:hunter%2F2@127.0.0.1:{}", nats.port)));
    let mut wrong = Proxy::start(nats.settings_at(&format!("nats://proxy:hunter3@127.0.0.1:{}", nats.port)));
    right.until(|call| *call == Call::Doubtful(false)).await;
    right.settle().await;
    wrong.bus.shutdown().await;
    assert_eq!(wrong.calls.recv().await, Some(Call::Doubtful(true)));
    assert_eq!(wrong.calls.recv().await, None, "nothing else was ever said");
}

#[tokio::test]
async fn bad_settings_are_refused_at_once() {
    let attempt = |change: fn(&mut Settings)| {
        let mut settings = Settings::new("nats://127.0.0.1:1".parse().expect("a NATS URL"), "test", 1);
        change(&mut settings);
        let (sender, _calls) = mpsc::unbounded_channel();
        start(&Handle::current(), settings, Arc::new(Recorder(sender)), Arc::default()).expect_err("bad settings")
    };
    assert!(matches!(attempt(|s| s.fleet = "a b".into()), BusError::Subject(_)));
    assert!(matches!(attempt(|s| s.json = Some("cache.>".into())), BusError::Subject(_)));
    assert!(matches!(attempt(|s| s.credentials = Some("/nonexistent".into())), BusError::Credentials { .. }));
}
