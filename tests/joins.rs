//! A reader that waits for the reply to another client's request never gets a reply that L1 would not serve.
//!
//! The fault proxy holds the reply to the first reader's request. The value is changed directly in Redis, so that only the age
//! limits can show that the reply is old. One worker, since readers only wait together on the same worker.

mod common;

use std::time::{Duration, Instant};

use common::{Client, Fault, Nats, Redis, Shortstop, assert_our_error, assert_reply, bulk, pipeline_of, wait_until};

/// A read, the writes before and after the first reader, and the two replies.
struct Case {
    before: &'static str,
    read: &'static str,
    change: &'static str,
    old: &'static str,
    new: &'static str,
}

const CASES: [Case; 4] = [
    Case { before: "SET k old", read: "GET k", change: "SET k newer", old: "$3\r\nold\r\n", new: "$5\r\nnewer\r\n" },
    Case { before: "SET k old", read: "STRLEN k", change: "SET k newer", old: ":3\r\n", new: ":5\r\n" },
    Case {
        before: "HSET k f old",
        read: "HGET k f",
        change: "HSET k f new",
        old: "$3\r\nold\r\n",
        new: "$3\r\nnew\r\n",
    },
    Case {
        before: "HSET k f old",
        read: "HGETALL k",
        change: "HSET k f new",
        old: "*2\r\n$1\r\nf\r\n$3\r\nold\r\n",
        new: "*2\r\n$1\r\nf\r\n$3\r\nnew\r\n",
    },
];

const ALL: &str = "workers: 1\ndefaults:\n  cache: { admit_after: 1, reads: all }\n";

/// The maximum age of a reply in these tests, and a longer time.
const BOUND: Duration = Duration::from_millis(300);
const LONGER: Duration = Duration::from_millis(350);

/// A Shortstop, the wire to its Redis, and helpers.
struct Scene {
    redis: Redis,
    wire: Fault,
    proxy: Shortstop,
    _nats: Option<Nats>,
}

impl Scene {
    fn alone(yaml: &str) -> Scene {
        let redis = Redis::start_without_ends_of_fields();
        let wire = Fault::before(redis.addr());
        let proxy = Shortstop::to(wire.addr(), yaml);
        Scene { redis, wire, proxy, _nats: None }.ready("single")
    }

    /// Mode `degraded`: no process listens at the NATS address.
    fn degraded(yaml: &str) -> Scene {
        let redis = Redis::start_without_ends_of_fields();
        let wire = Fault::before(redis.addr());
        let mut nats = Nats::start();
        nats.kill();
        let proxy = Shortstop::to(wire.addr(), &format!("nats: {}\n{yaml}", nats.url()));
        Scene { redis, wire, proxy, _nats: None }.ready("degraded")
    }

    fn live(yaml: &str) -> Scene {
        let (redis, nats) = (Redis::start_without_ends_of_fields(), Nats::start());
        let wire = Fault::before(redis.addr());
        let proxy = Shortstop::to(wire.addr(), &format!("nats: {}\n{yaml}", nats.url()));
        Scene { redis, wire, proxy, _nats: Some(nats) }.ready("live")
    }

    /// Waits for the mode, and until reads of hashes are kept, which needs the server's command table.
    fn ready(self, mode: &str) -> Scene {
        self.proxy.wait_mode(mode);
        let mut client = self.proxy.client();
        client.cmd("HSET ready f 1");
        wait_until("the table is known", || {
            client.cmd("HSET ready f 1");
            let fills = self.proxy.stat("fills");
            client.cmd("HGET ready f");
            self.proxy.stat("fills") > fills
        });
        client.cmd("DEL ready");
        self
    }

    /// A client whose read has reached Redis, and whose reply is held.
    fn first(&self, read: &str) -> Client {
        let mut client = self.proxy.client();
        client.cmd("PING");
        // PTTL follows every read whose reply is to be kept, whatever is sent in its place.
        self.wire.hold_replies_to(b"PTTL\r\n$1\r\nk\r\n");
        client.send(&pipeline_of(&[read]));
        self.wire.wait_caught();
        // Redis executes what its socket has received before it accepts a later connection.
        self.redis.client().cmd("PING");
        client
    }

    /// Another client that sends the same read, and whose request has been taken.
    fn second(&self, lines: &[&str]) -> Client {
        let misses = self.proxy.stat("l1_misses");
        let mut client = self.proxy.client();
        client.send(&pipeline_of(lines));
        self.proxy.wait_stat("l1_misses", |now| now > misses);
        client
    }

    fn change(&self, line: &str) {
        assert!(!self.redis.client().cmd(line).starts_with(b"-"), "{line}");
    }

    /// For each case, one reader that is too late for the reply, and one that is in time but gets the reply too late.
    fn too_old_for_the_second(&self) {
        for case in &CASES {
            for comes_late in [true, false] {
                self.change("DEL k");
                self.change(case.before);
                // Entries of an earlier round.
                wait_until("L1 is empty", || self.proxy.client().cmd("PROXY FLUSH") == b"+OK\r\n");
                let mut first = self.first(case.read);
                let sent = Instant::now();
                let mut second = if comes_late {
                    self.change(case.change);
                    std::thread::sleep((sent + LONGER).saturating_duration_since(Instant::now()));
                    self.second(&[case.read])
                } else {
                    let second = self.second(&[case.read]);
                    self.change(case.change);
                    std::thread::sleep((sent + LONGER).saturating_duration_since(Instant::now()));
                    second
                };
                self.wire.release();
                assert_reply(&first.reply(), case.old, "the first one asked before the change");
                let what = format!("{}, comes late: {comes_late}", case.read);
                assert_reply(&second.reply(), case.new, &what);
            }
        }
    }
}

#[test]
fn no_reader_gets_a_reply_older_than_degraded_staleness() {
    Scene::degraded(&format!("degraded_staleness: {}ms\n{ALL}", BOUND.as_millis())).too_old_for_the_second();
}

#[test]
fn no_reader_gets_a_reply_older_than_max_staleness() {
    let bound = BOUND.as_millis();
    Scene::live(&format!("max_staleness: {bound}ms\ndegraded_staleness: {bound}ms\n{ALL}")).too_old_for_the_second();
}

#[test]
fn no_reader_gets_a_reply_older_than_the_ttl_of_its_rule() {
    let yaml =
        format!("workers: 1\ndefaults:\n  cache: {{ admit_after: 1, reads: all, ttl: {}ms }}\n", BOUND.as_millis());
    Scene::alone(&yaml).too_old_for_the_second();
}

/// The key expires in Redis while the reply is held: a later reader gets Redis's reply.
#[test]
fn no_reader_gets_a_value_after_its_expiry() {
    let scene = Scene::alone(ALL);
    for case in &CASES {
        for comes_late in [true, false] {
            scene.change("DEL k");
            scene.change(case.before);
            scene.change("PEXPIRE k 400");
            wait_until("L1 is empty", || scene.proxy.client().cmd("PROXY FLUSH") == b"+OK\r\n");
            let mut first = scene.first(case.read);
            let in_time = (!comes_late).then(|| scene.second(&[case.read]));
            let mut direct = scene.redis.client();
            wait_until("it has expired in Redis", || direct.cmd("EXISTS k") == b":0\r\n");
            let absent = direct.cmd(case.read);
            let mut second = in_time.unwrap_or_else(|| scene.second(&[case.read]));
            scene.wire.release();
            // On a slow machine it may have expired before the first read.
            first.reply();
            assert_reply(&second.reply(), &absent, &format!("{}, comes late: {comes_late}", case.read));
        }
    }
}

/// Without `negative_ttl`, only the reader that sent the request may get the null.
#[test]
fn no_reader_gets_a_null_that_would_not_be_kept() {
    let scene = Scene::alone(ALL);
    for (read, change, new) in [("GET k", "SET k v", "$1\r\nv\r\n"), ("HGET k f", "HSET k f v", "$1\r\nv\r\n")] {
        scene.change("DEL k");
        let mut first = scene.first(read);
        scene.change(change);
        let mut second = scene.second(&[read]);
        scene.wire.release();
        assert_reply(&first.reply(), "$-1\r\n", "the first one asked before the key was there");
        assert_reply(&second.reply(), new, read);
    }
}

/// A configuration whose reload flushes L1 while [`ALL`] is in force.
fn with_another_bound() -> String {
    format!("{ALL}max_staleness: 50s\n")
}

/// Events that drop an entry also drop a reply in flight for its other readers.
#[test]
fn no_reader_gets_a_reply_from_before_a_flush() {
    let scene = Scene::alone(ALL);
    let changed = with_another_bound();
    for case in &CASES {
        scene.change("DEL k");
        scene.change(case.before);
        scene.proxy.reload(ALL);
        let mut first = scene.first(case.read);
        let mut second = scene.second(&[case.read]);
        scene.change(case.change);
        let generation = scene.proxy.stat("generation");
        scene.proxy.reload(&changed);
        scene.proxy.wait_stat("generation", |now| now > generation);
        scene.wire.release();
        assert_reply(&first.reply(), case.old, "the first one asked before the change");
        assert_reply(&second.reply(), case.new, case.read);
    }
}

/// The read is sent again if its reply is too old. It must then not see later requests of its client.
#[test]
fn later_requests_of_a_reader_do_not_overtake_its_read() {
    let yaml = format!("degraded_staleness: {}ms\n{ALL}", BOUND.as_millis());
    let scene = Scene::degraded(&yaml);
    for behind in [
        &["SET k mine", "GET k"][..],
        &["MULTI", "SET k mine", "EXEC", "GET k"],
        &["GET other", "SET k mine", "GET k"],
        &["MGET other k", "SET k mine", "HGET h f", "GET k"],
    ] {
        scene.change("SET k old");
        scene.change("SET other 1");
        wait_until("L1 is empty", || scene.proxy.client().cmd("PROXY FLUSH") == b"+OK\r\n");
        let mut first = scene.first("GET k");
        let sent = Instant::now();
        let lines: Vec<&str> = ["GET k"].iter().chain(behind).copied().collect();
        let mut second = scene.second(&lines);
        scene.change("SET k newer");
        std::thread::sleep((sent + LONGER).saturating_duration_since(Instant::now()));
        scene.wire.release();
        assert_reply(&first.reply(), "$3\r\nold\r\n", "the first one asked before the change");
        let replies = second.replies(lines.len());
        assert_reply(&replies[0], "$5\r\nnewer\r\n", &format!("GET k before {behind:?}"));
        assert_reply(replies.last().expect("there are some"), "$4\r\nmine\r\n", "and in the end its own");
    }
}

/// Many readers for which the reply is too old share one further request.
#[test]
fn readers_that_need_a_newer_reply_share_one_request() {
    let scene = Scene::alone(ALL);
    scene.change("SET k old");
    let commands = scene.proxy.stat("upstream_commands");
    let mut first = scene.first("GET k");
    let mut others: Vec<Client> = (0..10).map(|_| scene.second(&["GET k"])).collect();
    scene.change("SET k newer");
    let generation = scene.proxy.stat("generation");
    scene.proxy.reload(&with_another_bound());
    scene.proxy.wait_stat("generation", |now| now > generation);
    let asked = scene.proxy.stat("upstream_commands");
    scene.wire.release();
    assert_reply(&first.reply(), "$3\r\nold\r\n", "the first one asked before the change");
    for other in &mut others {
        assert_reply(&other.reply(), "$5\r\nnewer\r\n", "asked again");
    }
    assert_eq!(asked, commands + 2, "PING and the first request");
    assert_eq!(scene.proxy.stat("upstream_commands"), asked + 1, "one more for all of them");
}

/// A reader that waits for another reader's reply gets an error if that reply is lost.
#[test]
fn waiting_readers_get_an_error_when_the_reply_is_lost() {
    let scene = Scene::alone(ALL);
    scene.change("SET k v");
    let mut first = scene.first("GET k");
    let mut second = scene.second(&["GET k", "SET k mine"]);
    scene.wire.refuse(true);
    scene.wire.cut();
    scene.wire.release();
    for client in [&mut first, &mut second] {
        let reply = client.reply();
        if reply != bulk(b"v") {
            assert_our_error(&reply, "lost");
        }
    }
    assert_our_error(&second.reply(), "Redis is away");
    scene.wire.refuse(false);
    wait_until("connected again", || second.cmd("SET k mine") == b"+OK\r\n");
    assert_reply(&first.cmd("GET k"), "$4\r\nmine\r\n", "all is well");
}
