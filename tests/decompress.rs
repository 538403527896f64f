//! PROXY DECOMPRESS and `shortstop decompress` turn stored values to plain: each in one atomic step, with its time to live, at a bounded
//! rate. They can be stopped and repeated.

mod common;
#[path = "monitor/http.rs"]
mod http;

use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{
    Client, Done, Fault, PATIENCE, Redis, Shortstop, assert_our_error, assert_reply, bulk, noise, pipeline_of, prose,
    run, said, show, wait_until,
};
use http::{get, raw};
use shortstop::codec;

fn number(reply: &[u8], name: &str) -> u64 {
    said(reply, name).parse().unwrap_or_else(|_| panic!("{name}: {}", show(reply)))
}

#[track_caller]
fn wait_for(client: &mut Client, state: &str) -> Vec<u8> {
    let mut last = Vec::new();
    wait_until(&format!("the run is {state}"), || {
        last = client.cmd("PROXY DECOMPRESS");
        said(&last, "state") == state
    });
    last
}

/// Sets values that are stored compressed, through Shortstop.
fn fill(client: &mut Client, prefix: &str, values: u64) {
    for at in 0..values {
        client.call(&[b"SET", format!("{prefix}{at}").as_bytes(), &prose(2_000, at)]);
    }
}

/// How many of these values are stored compressed.
fn compressed(redis: &Redis, prefix: &str, values: u64) -> u64 {
    let mut direct = redis.client();
    (0..values).filter(|at| direct.cmd(&format!("GET {prefix}{at}")) != bulk(&prose(2_000, *at))).count() as u64
}

/// Runs `shortstop decompress` on this Redis.
fn decompress(url: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shortstop"));
    command.args(["decompress", "--upstream", url]).args(arguments).env_clear().current_dir(std::env::temp_dir());
    run(&mut command, PATIENCE * 3)
}

#[test]
fn values_that_match_become_plain_and_keep_their_ttl() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "warm_rate: 100000\n");
    let (mut client, mut direct) = (proxy.client(), redis.client());
    fill(&mut client, "k:", 100);
    fill(&mut client, "other:", 5);
    client.cmd("EXPIRE k:7 1000");
    direct.pipeline(&pipeline_of(&["HSET k:hash f v", "SET k:plain v", "SET k:number 12"]), 3);
    assert_eq!(compressed(&redis, "k:", 100), 100);
    assert_eq!(said(&client.cmd("PROXY DECOMPRESS"), "state"), "none");
    let reply = client.cmd("PROXY DECOMPRESS k:*");
    assert_eq!((said(&reply, "pattern"), said(&reply, "db")), ("k:*".into(), "0".into()));
    assert!(said(&reply, "note").starts_with("compression is on"), "{}", show(&reply));
    let reply = wait_for(&mut client, "done");
    assert_eq!((number(&reply, "scanned"), number(&reply, "decompressed")), (102, 100), "{}", show(&reply));
    assert_eq!(number(&reply, "bytes_after"), 200_000);
    assert!(number(&reply, "bytes_before") < 150_000, "{}", show(&reply));
    assert_eq!((compressed(&redis, "k:", 100), compressed(&redis, "other:", 5)), (0, 5));
    let ttl = String::from_utf8(direct.cmd("TTL k:7")).expect("a number");
    assert!([":999", ":1000"].contains(&ttl.trim_end()), "{ttl}");
    assert_reply(&direct.cmd("TTL k:8"), ":-1\r\n", "none, as before");
    assert_reply(&client.cmd("GET k:7"), bulk(&prose(2_000, 7)), "clients see no difference");
    // Again: there is nothing to do.
    client.cmd("PROXY CONFIG SET compression read");
    let reply = client.cmd("PROXY DECOMPRESS k:*");
    assert_eq!(said(&reply, "note"), "nil");
    assert_eq!(number(&wait_for(&mut client, "done"), "decompressed"), 0);
    // Another database.
    client.pipeline(&pipeline_of(&["PROXY CONFIG SET compression on", "SELECT 3"]), 2);
    fill(&mut client, "k:", 5);
    client.cmd("PROXY DECOMPRESS *");
    let reply = wait_for(&mut client, "done");
    assert_eq!((number(&reply, "db"), number(&reply, "decompressed")), (3, 5));
}

#[test]
fn it_is_slow_enough_can_be_stopped_and_goes_on() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "monitor: 127.0.0.1:0\nmonitor_token: s3cret\nwarm_rate: 100\n");
    let mut client = proxy.client();
    fill(&mut client, "k:", 1_000);
    client.cmd("PROXY DECOMPRESS k:*");
    assert!(client.cmd("PROXY DECOMPRESS k:*").starts_with(b"-ERR values are being decompressed"), "one at a time");
    wait_until("it has begun", || number(&client.cmd("PROXY DECOMPRESS"), "decompressed") > 0);
    assert_eq!(said(&client.cmd("PROXY DECOMPRESS cancel"), "state"), "cancelled");
    // It would have taken 10 s.
    let left = compressed(&redis, "k:", 1_000);
    assert!(left > 0 && left < 1_000, "{left}");
    client.cmd("PROXY CONFIG SET warm_rate 100000");
    let send = |method: &str, path: &str, header: &str| {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{header}Content-Length: 0\r\n\r\n"
        );
        raw(proxy.monitor(), &head)
    };
    let token = "Authorization: Bearer s3cret\r\n";
    assert_eq!(send("POST", "/api/decompress?pattern=k*", "").status, 401);
    assert_eq!(send("DELETE", "/api/decompress", "").status, 401);
    for wrong in ["/api/decompress", "/api/decompress?pattern=k*&db=x"] {
        assert_eq!(send("POST", wrong, token).status, 400, "{wrong}");
    }
    assert_eq!(send("POST", "/api/decompress?pattern=k:*", token).status, 200);
    wait_for(&mut client, "done");
    let said = get(proxy.monitor(), "/api/decompress").json();
    assert!(said["decompressed"].as_u64().is_some_and(|done| done >= left - 1), "{said}");
    assert_eq!(compressed(&redis, "k:", 1_000), 0);
}

#[test]
fn only_those_may_use_it_whom_redis_allows_config_set() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    redis.client().cmd("ACL SETUSER eve on >pw ~* +@all -config");
    let mut eve = proxy.client();
    eve.cmd("AUTH eve pw");
    for line in ["PROXY DECOMPRESS *", "PROXY DECOMPRESS CANCEL", "PROXY DECOMPRESS"] {
        assert!(eve.cmd(line).starts_with(b"-NOPERM"), "{line}");
    }
    assert!(proxy.client().cmd("PROXY DECOMPRESS a b").starts_with(b"-ERR wrong number"));
}

#[test]
fn what_cannot_be_plain_stays_and_is_named() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "warm_rate: 100000\n");
    let (mut client, mut direct) = (proxy.client(), redis.client());
    let own = codec::MARK.repeat(3);
    client.call(&[b"SET", b"own", &own]);
    fill(&mut client, "k:", 1);
    let stored = direct.cmd("GET k:0");
    let head = stored.windows(2).position(|pair| pair == b"\r\n").expect("a bulk string") + 2;
    let mut damaged = stored[head..stored.len() - 2].to_vec();
    damaged[40] ^= 1;
    direct.call(&[b"SET", b"damaged", &damaged]);
    // Twice: what stays is not touched by a second run either.
    for round in 0..2 {
        client.cmd("PROXY DECOMPRESS *");
        let reply = wait_for(&mut client, "done");
        let counts = ["decompressed", "look_compressed", "damaged", "refused"].map(|name| number(&reply, name));
        assert_eq!(counts, [1 - round, 1, 1, 0], "{}", show(&reply));
        for key in ["own", "damaged"] {
            assert!(reply.windows(key.len()).any(|window| window == key.as_bytes()), "{}", show(&reply));
        }
        assert_reply(&client.cmd("GET own"), bulk(&own), "as the client wrote it");
        assert_our_error(&client.cmd("GET damaged"), "as before");
        assert_reply(&direct.cmd("GET damaged"), bulk(&damaged), "as it was");
    }
    let output = decompress(&redis.url(), &[]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in ["1 stay, because their plain form", "1 stay, because they cannot", "still compressed: own"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn no_write_is_lost_to_it() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "warm_rate: 1000000\n");
    let mut client = proxy.client();
    let value = |round: u64| prose(2_000, round);
    let ended = AtomicBool::new(false);
    let wrote = std::thread::scope(|scope| {
        let _done = Done(&ended);
        let writer = scope.spawn(|| {
            let (mut writer, mut round) = (proxy.client(), 0);
            while !ended.load(Ordering::Relaxed) {
                round += 1;
                assert_reply(&writer.call(&[b"SET", b"k", &value(round)]), "+OK\r\n", "a write");
                assert_reply(&writer.cmd("GET k"), bulk(&value(round)), "what it wrote itself");
            }
            round
        });
        let mut decompressed = 0;
        wait_until("it has met the writer often", || {
            client.cmd("PROXY DECOMPRESS *");
            let reply = wait_for(&mut client, "done");
            assert_eq!(number(&reply, "damaged") + number(&reply, "refused"), 0, "{}", show(&reply));
            decompressed += number(&reply, "decompressed");
            decompressed > 20
        });
        ended.store(true, Ordering::Relaxed);
        writer.join().expect("no write is lost")
    });
    client.cmd("PROXY FLUSH");
    assert_reply(&client.cmd("GET k"), bulk(&value(wrote)), "the last one");
}

#[test]
fn a_value_that_changes_between_the_look_and_the_write_is_not_overwritten() {
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), "warm_rate: 100000\n");
    let mut client = proxy.client();
    fill(&mut client, "k:", 1);
    // Its SET waits on the wire, behind its GET.
    wire.hold_request(b"KEEPTTL");
    client.cmd("PROXY DECOMPRESS k:*");
    wire.wait_held();
    assert_reply(&redis.client().cmd("SET k:0 new"), "+OK\r\n", "a write in between");
    wire.release();
    let reply = wait_for(&mut client, "done");
    assert_eq!(
        (number(&reply, "decompressed"), number(&reply, "changing")),
        (0, 0),
        "it is plain now: {}",
        show(&reply)
    );
    assert_reply(&redis.client().cmd("GET k:0"), bulk(b"new"), "the write");
}

/// Without WATCH or MULTI a SET would be executed at once, and could overwrite what another client writes.
#[test]
fn nothing_is_written_without_the_rights_to_do_it_in_one_step() {
    let redis = Redis::start();
    fill(&mut Shortstop::start(&redis, "").client(), "k:", 3);
    let mut admin = redis.client();
    for (missing, expected) in [
        ("watch", "watch"),
        ("multi", "multi"),
        ("exec", "exec"),
        ("set", "3 stay"),
        ("get", "3 stay"),
        ("scan", "scan"),
    ] {
        admin.cmd(&format!("ACL SETUSER bob reset on >pw ~* +@all -{missing}"));
        let output = decompress(&format!("redis://bob:pw@{}", redis.addr()), &[]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && text.contains(expected), "{missing}: {text}");
        assert_eq!(compressed(&redis, "k:", 3), 3, "{missing}: {text}");
    }
    admin.cmd("ACL SETUSER bob reset on >pw ~k:1 +@all");
    let output = decompress(&format!("redis://bob:pw@{}", redis.addr()), &[]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("1 values turned to plain") && text.contains("2 stay"), "{text}");
    admin.cmd("ACL SETUSER bob reset on >pw ~* +scan +getrange +get +set +watch +unwatch +multi +exec +select +info");
    let output = decompress(&format!("redis://bob:pw@{}", redis.addr()), &[]);
    assert_eq!(output.status.code(), Some(0), "the rights that the documentation names: {output:?}");
    assert_eq!(compressed(&redis, "k:", 3), 0);
}

#[test]
fn leaving_is_one_command() {
    let redis = Redis::start();
    let mut client = {
        let proxy = Shortstop::start(&redis, "rules: [{ match: 'k:2*', compress: zstd }]\n");
        let mut client = proxy.client();
        fill(&mut client, "k:", 300);
        client.call(&[b"SET", b"large", &prose(3 << 20, 1), b"EX", b"1000"]);
        client.call(&[b"SET", b"noise", &noise(5_000, 1)]);
        client.cmd("SELECT 5");
        fill(&mut client, "k:", 10);
        // A Shortstop is not a Redis.
        let output = decompress(&format!("redis://{}", proxy.addr()), &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("this is a Shortstop"), "{output:?}");
        redis.client()
    };
    let run = |arguments: &[&str]| {
        let output = decompress(&redis.url(), arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{text}");
        text
    };
    let text = run(&["--pattern", "k:1*", "--db", "0"]);
    assert!(text.contains("111 keys of strings looked at, 111 values turned to plain"), "{text}");
    let text = run(&[]);
    assert!(text.contains("312 keys of strings looked at, 200 values turned to plain"), "{text}");
    assert!(run(&[]).contains(" 0 values turned to plain"), "nothing is left");
    assert_eq!(compressed(&redis, "k:", 300), 0);
    assert_reply(&client.cmd("GET large"), bulk(&prose(3 << 20, 1)), "a large one");
    assert!(client.cmd("TTL large").starts_with(b":9") || client.cmd("TTL large").starts_with(b":1000"));
    client.cmd("SELECT 5");
    for at in 0..10 {
        assert_reply(&client.cmd(&format!("GET k:{at}")), bulk(&prose(2_000, at)), "in all databases");
    }
}

#[test]
fn the_command_says_what_stops_it() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "");
    fill(&mut proxy.client(), "k:", 10);
    let mut direct = redis.client();
    direct.cmd("CONFIG SET requirepass secret");
    for (url, expected) in [
        (redis.url(), "NOAUTH"),
        (format!("redis://:wrong@{}", redis.addr()), "WRONGPASS"),
        ("redis://127.0.0.1:1".to_owned(), "refused"),
    ] {
        let output = decompress(&url, &[]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(expected), "{url}: {text}");
    }
    // Redis has no memory for plain values.
    let url = format!("redis://:secret@{}", redis.addr());
    direct.cmd("CONFIG SET maxmemory 1");
    let output = decompress(&url, &[]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("OOM"), "{text}");
    direct.cmd("CONFIG SET maxmemory 0");
    assert_eq!(decompress(&url, &[]).status.code(), Some(0));
    assert_reply(&direct.cmd("GET k:3"), bulk(&prose(2_000, 3)), "it is plain");
}
