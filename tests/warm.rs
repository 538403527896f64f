//! PROXY WARM reads keys into L1 as the asker's user, no faster than allowed, and can be cancelled. `warm: true` does it at the start.

mod common;
#[path = "monitor/http.rs"]
mod http;

use common::{Client, Nats, Redis, Shortstop, assert_reply, bulk, field, said, show, wait_until, warm};
use http::{get, raw};

#[track_caller]
fn wait_for(client: &mut Client, state: &str) -> Vec<u8> {
    let mut last = Vec::new();
    wait_until(&format!("the warm-up is {state}"), || {
        last = client.cmd("PROXY WARM");
        said(&last, "state") == state
    });
    last
}

/// Sets so many keys in Redis itself.
fn fill(redis: &Redis, prefix: &str, number: usize) {
    let mut client = redis.client();
    for key in 0..number {
        client.cmd(&format!("SET {prefix}{key} v{key}"));
    }
}

#[test]
fn keys_that_match_are_hits_at_their_first_request() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "warm_rate: 100000\nrules: [{ match: 'no:*', cache: false }]\n");
    fill(&redis, "user:", 500);
    fill(&redis, "other:", 10);
    fill(&redis, "no:", 10);
    redis.client().cmd("HSET user:hash f v");
    let mut client = proxy.client();
    assert_eq!(said(&client.cmd("PROXY WARM"), "state"), "none");
    let reply = client.cmd("PROXY WARM user:*");
    assert_eq!((said(&reply, "pattern"), said(&reply, "why")), ("user:*".into(), "nil".into()));
    let reply = wait_for(&mut client, "done");
    assert_eq!((said(&reply, "read"), said(&reply, "refused")), ("500".into(), "0".into()), "{}", show(&reply));
    let (hits, reads) = (proxy.stat("l1_hits"), redis.info("keyspace_hits"));
    for key in 0..500 {
        assert_reply(&client.cmd(&format!("GET user:{key}")), bulk(format!("v{key}").as_bytes()), "its value");
    }
    assert_eq!((proxy.stat("l1_hits"), redis.info("keyspace_hits")), (hits + 500, reads), "Redis is asked nothing");
    // What no rule keeps is not read.
    client.cmd("PROXY WARM no:*");
    assert_eq!(said(&wait_for(&mut client, "done"), "read"), "0");
    client.cmd("PROXY WARM other:* COUNT 3");
    assert_eq!(said(&wait_for(&mut client, "done"), "read"), "3");
    // The client of the warm-up is gone.
    wait_until("one client is left", || proxy.stat("proxy_clients") <= 2);
}

#[test]
fn a_write_through_shortstop_counts_as_always() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "warm_rate: 100000\n");
    fill(&redis, "k:", 50);
    let mut client = proxy.client();
    client.cmd("PROXY WARM k:*");
    wait_for(&mut client, "done");
    client.cmd("SET k:7 new");
    assert_reply(&client.cmd("GET k:7"), "$3\r\nnew\r\n", "the write drops it");
}

#[test]
fn it_is_slow_enough_and_can_be_cancelled() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "monitor: 127.0.0.1:0\nmonitor_token: s3cret\nwarm_rate: 20\n");
    fill(&redis, "k:", 1000);
    let mut client = proxy.client();
    client.cmd("PROXY WARM k:*");
    assert!(client.cmd("PROXY WARM k:*").starts_with(b"-ERR a warm-up is running"), "one at a time");
    wait_until("it has begun", || said(&client.cmd("PROXY WARM"), "read") != "0");
    assert_eq!(said(&client.cmd("PROXY WARM cancel"), "state"), "cancelled");
    let read: u64 = said(&client.cmd("PROXY WARM"), "read").parse().expect("a number");
    // 1000 keys would have taken 50 s.
    assert!(read < 1000, "{read}");
    for wrong in ["PROXY WARM k COUNT 0", "PROXY WARM k COUNT x", "PROXY WARM k NUMBER 1", "PROXY WARM k l m n"] {
        assert!(client.cmd(wrong).starts_with(b"-ERR "), "{wrong}");
    }
    let send = |method: &str, path: &str, header: &str| {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{header}Content-Length: 0\r\n\r\n"
        );
        raw(proxy.monitor(), &head)
    };
    let token = "Authorization: Bearer s3cret\r\n";
    assert_eq!((send("POST", "/api/warm?pattern=k*", "").status, send("DELETE", "/api/warm", "").status), (401, 401));
    assert_eq!(send("POST", "/api/warm", token).status, 400);
    assert_eq!(send("POST", "/api/warm?pattern=k:*&count=0", token).status, 400);
    assert_eq!(send("POST", "/api/warm?pattern=k:*&count=900", token).json()["state"], "running");
    assert_eq!(send("DELETE", "/api/warm", token).json()["state"], "cancelled");
    assert_eq!(get(proxy.monitor(), "/api/warm").json()["pattern"], "k:*");
}

#[test]
fn it_reads_as_the_user_who_asks() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "warm_rate: 100000\n");
    fill(&redis, "mine:", 5);
    fill(&redis, "yours:", 5);
    let mut admin = redis.client();
    admin.cmd("ACL SETUSER ann on >pw ~mine:* +@all");
    admin.cmd("ACL SETUSER bob on >pw ~* +@all -scan");
    let mut ann = proxy.client();
    ann.cmd("AUTH ann pw");
    // From then on it is known what she may.
    warm(proxy.addr(), &mut ann, b"mine:0");
    ann.cmd("PROXY WARM *");
    let reply = wait_for(&mut ann, "done");
    assert_eq!((said(&reply, "read"), said(&reply, "refused")), ("10".into(), "5".into()), "{}", show(&reply));
    let hits = proxy.stat("l1_hits");
    assert_reply(&ann.cmd("GET mine:1"), "$2\r\nv1\r\n", "it may");
    assert!(ann.cmd("GET yours:1").starts_with(b"-NOPERM"), "it may not");
    assert_eq!(proxy.stat("l1_hits"), hits + 1);
    let mut bob = proxy.client();
    bob.cmd("AUTH bob pw");
    bob.cmd("PROXY WARM *");
    let reply = wait_for(&mut bob, "failed");
    assert!(said(&reply, "why").starts_with("NOPERM"), "{}", show(&reply));
}

#[test]
fn a_new_instance_reads_what_is_hot_elsewhere() {
    let (redis, nats) = (Redis::start(), Nats::start());
    fill(&redis, "k:", 3);
    let known = Shortstop::in_fleet(&redis, &nats, "");
    let mut client = known.client();
    wait_until("a peer would hear of a hot key", || {
        for _ in 0..50 {
            client.cmd("GET k:1");
        }
        show(&client.cmd("PROXY HOTKEYS")).contains("k:1")
    });
    let fresh = Shortstop::in_fleet(&redis, &nats, "warm: true\n");
    let mut other = fresh.client();
    wait_until("the warm-up has read it", || {
        for _ in 0..20 {
            client.cmd("GET k:1");
        }
        let reply = other.cmd("PROXY WARM");
        said(&reply, "state") == "done" && said(&reply, "read") != "0"
    });
    assert_eq!(field(&other.cmd("PROXY INFO"), "l1_hits").as_deref(), Some("0"));
    assert_reply(&other.cmd("GET k:1"), "$2\r\nv1\r\n", "its value");
    assert_eq!(field(&other.cmd("PROXY INFO"), "l1_hits").as_deref(), Some("1"), "at the first request");
}
