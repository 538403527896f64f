//! Instances that Redis shows but the bus does not hear: the other Shortstops of the fleet notice, report it, and bound what they
//! serve.

mod common;

use std::time::{Duration, Instant};

use common::{Client, Fault, Nats, Process, Redis, Shortstop, assert_reply, bulk, stat, wait_until, wait_within};

const EAGER: &str = "defaults:\n  cache: { admit_after: 1 }\n";

/// Much longer than the silence after which a peer is lost, because machines under load are slow.
const LONG: Duration = Duration::from_secs(40);

fn member(nats: &Nats, yaml: &str) -> String {
    format!("nats: {}\n{yaml}{EAGER}", nats.url())
}

/// How the log names an instance: by its incarnation.
fn incarnation(client: &mut Client) -> String {
    common::field(&client.cmd("PROXY INFO proxy"), "incarnation").expect("PROXY INFO has it")
}

/// Writes through one instance, and returns how long another one still served the old value.
fn staleness(reader: &mut Client, writer: &mut Client, value: &str) -> Duration {
    assert_reply(&writer.cmd(&format!("SET k {value}")), "+OK\r\n", "the write");
    let written = Instant::now();
    wait_within(LONG, "the write is seen", || reader.cmd("GET k") == bulk(value.as_bytes()));
    written.elapsed()
}

/// Names of another server than NATS, and an unused port: an instance with such a `nats` is never heard.
#[test]
fn an_instance_that_never_reaches_nats_is_noticed_and_named() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let wire = Fault::before(nats.addr());
    wire.refuse(true);
    let seer = Process::start(redis.addr(), &member(&nats, "degraded_staleness: 100ms\n"));
    let mut reader = seer.client();
    let mode = |client: &mut Client| common::field(&client.cmd("PROXY INFO coherence"), "mode").expect("it has a mode");
    wait_until("live", || mode(&mut reader) == "live");
    reader.cmd("SET k old");
    common::warm(seer.addr(), &mut reader, b"k");
    assert_eq!(stat(seer.addr(), "peers_unheard"), 0);

    let cut_off = Shortstop::start(&redis, &format!("nats: nats://{}\n{EAGER}", wire.addr()));
    let mut writer = cut_off.client();
    let number = incarnation(&mut writer);
    let took = staleness(&mut reader, &mut writer, "new");
    println!("seen after {took:?}");
    wait_until("degraded", || mode(&mut reader) == "degraded");
    assert_eq!((stat(seer.addr(), "peers"), stat(seer.addr(), "peers_unheard")), (0, 1));
    wait_until("the log names it", || seer.log().contains(&number));
    let log = seer.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(&number)).collect();
    assert!(lines.len() == 1 && lines[0].contains("not heard on NATS") && lines[0].contains("127.0.0.1:"), "{lines:?}");
    // From now on a write is seen within degraded_staleness.
    for value in ["a", "b", "c"] {
        staleness(&mut reader, &mut writer, value);
    }
    assert_eq!(mode(&mut reader), "degraded", "as long as it is there");

    // It is heard, and the doubt ends.
    wire.refuse(false);
    wait_within(LONG, "live again", || mode(&mut reader) == "live");
    assert_eq!((stat(seer.addr(), "peers"), stat(seer.addr(), "peers_unheard")), (1, 0));
    wait_until("the log says so", || seer.log().matches(&number).count() == 2);
    staleness(&mut reader, &mut writer, "told");
}

/// As above, but only waits for the value: the bound in docs/coherence.md, far below `max_staleness`.
#[test]
fn writes_of_an_unheard_instance_are_visible_before_max_staleness() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let one = Shortstop::in_fleet(&redis, &nats, &format!("degraded_staleness: 100ms\n{EAGER}"));
    let mut reader = one.client();
    for (what, yaml) in [
        ("no NATS", String::new()),
        ("a port where nobody listens", format!("nats: nats://127.0.0.1:1\n{EAGER}")),
        ("another NATS", format!("nats: {}\n{EAGER}", Nats::start().url())),
    ] {
        one.wait_mode("live");
        reader.cmd("SET k old");
        one.settle(&redis, &mut reader, "k");
        let stranger = Shortstop::start(&redis, &yaml);
        let took = staleness(&mut reader, &mut stranger.client(), "new");
        println!("{what}: {took:?}");
        one.wait_stat("peers_unheard", |unheard| unheard == 1);
        assert_eq!(one.mode(), "degraded", "{what}");
        drop(stranger);
        wait_within(LONG, "it is gone", || one.mode() == "live" && one.stat("peers_unheard") == 0);
    }
}

#[test]
fn a_new_instance_notices_one_that_is_cut_off() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let wire = Fault::before(nats.addr());
    let cut_off = Shortstop::start(&redis, &format!("nats: nats://{}\n{EAGER}", wire.addr()));
    cut_off.wait_mode("live");
    wire.refuse(true);
    wire.cut();
    cut_off.wait_mode("degraded");
    let fresh = Shortstop::in_fleet(&redis, &nats, &format!("degraded_staleness: 100ms\n{EAGER}"));
    let (mut reader, mut writer) = (fresh.client(), cut_off.client());
    reader.cmd("SET k old");
    reader.cmd("GET k");
    staleness(&mut reader, &mut writer, "new");
    fresh.wait_mode("degraded");
    fresh.wait_stat("peers_unheard", |unheard| unheard == 1);
    wire.refuse(false);
    fresh.wait_mode("live");
    cut_off.wait_mode("live");
}

/// A peer is lost, its connections to Redis break, and it reconnects to both.
#[test]
fn a_peer_missing_from_the_list_for_a_short_time_is_not_forgotten() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let (to_nats, to_redis) = (Fault::before(nats.addr()), Fault::before(redis.addr()));
    let one = Shortstop::in_fleet(&redis, &nats, &format!("degraded_staleness: 100ms\n{EAGER}"));
    let yaml = format!("nats: nats://{}\ntimeouts: {{ backoff_max: 100ms }}\n{EAGER}", to_nats.addr());
    let peer = Shortstop::to(to_redis.addr(), &yaml);
    one.wait_stat("peers", |peers| peers == 1);
    one.wait_mode("live");
    let name = {
        let number = incarnation(&mut peer.client());
        format!("shortstop:default:{number}")
    };
    let is_shown = || String::from_utf8_lossy(&redis.client().cmd("CLIENT LIST")).contains(&name);
    wait_until("its connections have its name", is_shown);

    to_nats.refuse(true);
    to_nats.cut();
    one.wait_mode("degraded");
    to_redis.refuse(true);
    to_redis.cut();
    wait_until("Redis does not show it", || !is_shown());
    let gone = Instant::now();
    // Some lists do not contain it.
    std::thread::sleep(Duration::from_millis(2200));
    to_redis.refuse(false);
    wait_until("it is back at Redis", is_shown);
    if gone.elapsed() < Duration::from_secs(4) {
        assert_eq!((one.stat("peers"), one.mode()), (1, "degraded".to_owned()), "it was not forgotten");
    }

    // Now long enough to be forgotten.
    to_redis.refuse(true);
    to_redis.cut();
    wait_within(LONG, "it is forgotten", || one.stat("peers") == 0 && one.mode() == "live");
    let mut reader = one.client();
    reader.cmd("SET k old");
    one.settle(&redis, &mut reader, "k");
    to_redis.refuse(false);
    let mut writer = peer.client();
    wait_until("it writes again", || writer.cmd("SET k new") == b"+OK\r\n");
    wait_within(LONG, "its write is seen", || reader.cmd("GET k") == b"$3\r\nnew\r\n");
    one.wait_stat("peers_unheard", |unheard| unheard == 1);
    one.wait_mode("degraded");
}

#[test]
fn orderly_starts_and_shutdowns_raise_no_doubt() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let one = Process::start(redis.addr(), &member(&nats, ""));
    let mut client = one.client();
    wait_until("live", || common::field(&client.cmd("PROXY INFO"), "mode").is_some_and(|mode| mode == "live"));
    for _ in 0..3 {
        let mut other = Process::start(redis.addr(), &member(&nats, ""));
        wait_until("it is heard", || one.stat("peers") == 1);
        other.signal("TERM");
        other.wait_exit(LONG);
        wait_until("it has said BYE", || one.stat("peers") == 0);
    }
    assert_eq!(one.stat("peers_unheard"), 0);
    assert!(!one.log().contains("not heard"), "{}", one.log());
}

#[test]
fn fleets_of_other_names_are_no_peers() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let blue = Shortstop::in_fleet(&redis, &nats, &format!("fleet: blue\n{EAGER}"));
    let green = Shortstop::in_fleet(&redis, &nats, &format!("fleet: green\n{EAGER}"));
    // Another instance of the first fleet is noticed, and so the second one would have been.
    let _alone = Shortstop::start(&redis, &format!("fleet: blue\n{EAGER}"));
    blue.wait_stat("peers_unheard", |unheard| unheard == 1);
    assert_eq!((green.stat("peers_unheard"), green.mode()), (0, "live".to_owned()));
}

/// Without NATS an instance hears no other, but it can report that it is not alone.
#[test]
fn an_instance_without_nats_names_others_of_its_fleet() {
    let redis = Redis::start();
    let one = Process::start(redis.addr(), EAGER);
    let other = Shortstop::start(&redis, EAGER);
    let number = incarnation(&mut other.client());
    wait_until("it counts the other", || one.stat("peers_unheard") == 1);
    wait_until("it names the other", || one.log().contains(&number) && one.log().contains("no NATS"));
    assert_eq!(other.mode(), "single");
    drop(other);
    wait_within(LONG, "it sees the other go", || one.stat("peers_unheard") == 0);
}

#[test]
fn a_peer_with_another_redis_is_named() {
    let (redis, other_redis, nats) = (Redis::start(), Redis::start(), Nats::start());
    let one = Process::start(redis.addr(), &member(&nats, ""));
    let other = Shortstop::start(&other_redis, &member(&nats, ""));
    let number = incarnation(&mut other.client());
    wait_within(LONG, "it is counted", || one.stat("peers_elsewhere") == 1);
    wait_until("and named", || one.log().contains(&number) && one.log().contains("another Redis"));
    other.wait_stat("peers_elsewhere", |elsewhere| elsewhere == 1);
    assert_eq!((one.stat("peers"), one.stat("peers_unheard"), other.mode()), (1, 0, "live".to_owned()));
}

/// While Redis is away, its list proves nothing.
#[test]
fn a_restart_of_redis_does_not_change_the_fleet() {
    let nats = Nats::start();
    let mut redis = Redis::start();
    let one = Process::start(redis.addr(), &member(&nats, ""));
    let other = Shortstop::start(&redis, &member(&nats, ""));
    other.wait_mode("live");
    wait_until("they hear each other", || one.stat("peers") == 1 && other.stat("peers") == 1);
    for _ in 0..2 {
        redis.kill();
        redis.restart();
        wait_until("both are back", || {
            let list = String::from_utf8_lossy(&redis.client().cmd("PUBSUB NUMSUB __shortstop:default:instances"))
                .into_owned();
            list.ends_with(":2\r\n")
        });
    }
    assert_eq!((one.stat("peers"), one.stat("peers_unheard"), one.stat("peers_elsewhere")), (1, 0, 0));
    assert!(!one.log().contains("not heard"), "{}", one.log());
}

/// The user in the upstream URL has no right to subscribe, or no right to list connections.
#[test]
fn a_missing_right_is_logged_once_and_delays_detection() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let mut admin = redis.client();
    for (rights, notices, says) in [
        // The keys, no channels.
        ("~* +@all resetchannels", true, "PUBSUB NUMSUB"),
        ("~* &* +@all -pubsub", true, "PUBSUB NUMSUB"),
        ("~* &* +@all -client|list", false, "CLIENT LIST"),
    ] {
        admin.cmd(&format!("ACL SETUSER shortstop reset on >secret {rights}"));
        let upstream = format!("upstream: redis://shortstop:secret@{}\nclients_without_auth: upstream\n", redis.addr());
        let one = Process::start(redis.addr(), &format!("{upstream}{}", member(&nats, "")));
        wait_until("it says so", || one.log().contains(says));
        let stranger = Shortstop::start(&redis, EAGER);
        if notices {
            wait_within(LONG, "it is noticed", || one.stat("peers_unheard") == 1);
        }
        let log = one.log();
        assert_eq!(log.lines().filter(|line| line.contains(says)).count(), 1, "{log}");
        drop(stranger);
    }
}
