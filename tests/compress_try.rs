//! PROXY COMPRESS TRY measures on a sample of the asker's values, stores nothing, and gives a rule that can be used.

mod common;
#[path = "monitor/http.rs"]
mod http;

use common::{Client, Redis, Shortstop, assert_reply, bulk, noise, prose, said, show};
use http::raw;
use shortstop::config::{Config, Switch};

/// Values of these sizes under `prefix`, in Redis itself.
fn fill(redis: &Redis, prefix: &str, number: u64, value: impl Fn(u64) -> Vec<u8>) {
    let mut client = redis.client();
    for at in 0..number {
        client.call(&[b"SET", format!("{prefix}{at}").as_bytes(), &value(at)]);
    }
}

fn number(reply: &[u8], name: &str) -> f64 {
    said(reply, name).parse().unwrap_or_else(|_| panic!("{name}: {}", show(reply)))
}

/// The first rule of what is to be pasted.
fn rule(lines: &str) -> shortstop::config::RuleSpec {
    let config = Config::from_yaml(lines).unwrap_or_else(|error| panic!("{lines}: {error}"));
    config.rules.into_iter().next().expect("a rule")
}

#[test]
fn it_measures_a_sample_and_changes_nothing() {
    let redis = Redis::start();
    let rules = "rules: [{ match: 'text*', cache: 5s, compress: false }]\n";
    let proxy = Shortstop::start(&redis, &format!("warm_rate: 100000\ndefaults: {{ compress: false }}\n{rules}"));
    fill(&redis, "text:", 40, |at| prose(600, at));
    fill(&redis, "noise:", 40, |at| noise(600, at));
    fill(&redis, "few:", 2, |at| prose(600, at));
    redis.client().cmd("HSET text:hash f v");
    let mut client = proxy.client();
    let reply = client.cmd("PROXY COMPRESS TRY text:*");
    for (name, expected) in
        [("pattern", "text:*"), ("scanned", "40"), ("is_all", "1"), ("values", "40"), ("bytes", "24000")]
    {
        assert_eq!(said(&reply, name), expected, "{}", show(&reply));
    }
    assert_eq!((said(&reply, "codec"), said(&reply, "level")), ("gzip".into(), "1".into()), "the first row");
    assert_eq!(number(&reply, "compressed"), 40.0);
    let (stored, saved) = (number(&reply, "stored_bytes"), number(&reply, "saved_percent"));
    assert!(
        saved > 20.0 && saved < 99.0 && ((1.0 - stored / 24_000.0) * 100.0 - saved).abs() < 0.1,
        "{}",
        show(&reply)
    );
    assert!(number(&reply, "compress_usec") > 0.0 && number(&reply, "decode_usec") > 0.0, "{}", show(&reply));
    // The rule has what the keys have now, and compresses from a size on at which that pays.
    let pasted = String::from_utf8(reply).expect("text");
    let lines = &pasted[pasted.rfind("rules:").expect("lines")..];
    let pasted = rule(lines);
    assert_eq!(pasted.pattern, "text:*");
    assert!(pasted.cache.is_some(), "{lines}");
    let Some(Switch::On(patch)) = pasted.compress else { panic!("{lines}") };
    assert_eq!(patch.min_size, Some(512), "{lines}");

    let reply = client.cmd("PROXY COMPRESS TRY noise:* COUNT 10");
    assert_eq!(
        (said(&reply, "values"), said(&reply, "compressed"), said(&reply, "decode_usec")),
        ("10".into(), "0".into(), "nil".into())
    );
    assert!(said(&reply, "what").starts_with("Do not compress"), "{}", show(&reply));
    let reply = client.cmd("PROXY COMPRESS TRY few:*");
    assert!(said(&reply, "what").starts_with("Only 2 values"), "{}", show(&reply));

    // Nothing was stored, in Redis or in L1.
    assert_reply(&redis.client().cmd("GET text:1"), bulk(&prose(600, 1)), "as it was");
    assert_eq!((proxy.stat("l1_entries"), proxy.stat("compressed_values")), (0, 0));
}

#[test]
fn values_that_are_compressed_count_as_plain_and_large_ones_are_left_out() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "warm_rate: 100000\n");
    let mut client = proxy.client();
    for at in 0..20 {
        client.call(&[b"SET", format!("k:{at}").as_bytes(), &prose(4_000, at)]);
    }
    client.call(&[b"SET", b"k:large", &prose(2 << 20, 1)]);
    client.call(&[b"SET", b"k:noise", &noise(2 << 20, 1)]);
    let reply = client.cmd("PROXY COMPRESS TRY k:*");
    assert_eq!((said(&reply, "bytes"), said(&reply, "too_large")), ("80000".into(), "2".into()), "{}", show(&reply));
    assert_eq!(client.cmd("PING"), b"+PONG\r\n");
    // The sample is bounded in bytes.
    for at in 0..20 {
        client.call(&[b"SET", format!("big:{at}").as_bytes(), &noise(900 << 10, at)]);
    }
    let reply = client.cmd("PROXY COMPRESS TRY big:*");
    let values = number(&reply, "values");
    assert!((4.0..=6.0).contains(&values), "{}", show(&reply));
}

#[test]
fn it_reads_as_the_user_who_asks() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "warm_rate: 100000\n");
    fill(&redis, "mine:", 10, |at| prose(600, at));
    fill(&redis, "yours:", 10, |at| prose(600, at));
    let mut admin = redis.client();
    for user in ["ann on >pw ~mine:* +@all", "bob on >pw ~* +@all -scan", "eve on >pw ~* +@all -config"] {
        admin.cmd(&format!("ACL SETUSER {user}"));
    }
    let login = |user: &str| {
        let mut client: Client = proxy.client();
        client.cmd(&format!("AUTH {user} pw"));
        client
    };
    let reply = login("ann").cmd("PROXY COMPRESS TRY *");
    assert_eq!((said(&reply, "values"), said(&reply, "refused")), ("10".into(), "10".into()), "{}", show(&reply));
    for user in ["bob", "eve"] {
        let reply = login(user).cmd("PROXY COMPRESS TRY *");
        assert!(
            reply.starts_with(b"-") && reply.windows(6).any(|window| window == b"NOPERM"),
            "{user}: {}",
            show(&reply)
        );
    }
    let mut client = proxy.client();
    for wrong in ["TRY", "TRY a COUNT 0", "TRY a COUNT x", "TRY a NUMBER 1", "SET a", "TRY a COUNT 1 b"] {
        assert!(client.cmd(&format!("PROXY COMPRESS {wrong}")).starts_with(b"-ERR "), "{wrong}");
    }
}

#[test]
fn the_monitor_wants_the_token() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "monitor: 127.0.0.1:0\nmonitor_token: s3cret\nwarm_rate: 100000\n");
    fill(&redis, "k:", 20, |at| prose(600, at));
    let send = |path: &str, header: &str| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{header}Content-Length: 0\r\n\r\n"
        );
        raw(proxy.monitor(), &head)
    };
    let token = "Authorization: Bearer s3cret\r\n";
    assert_eq!(send("/api/compress?pattern=k*", "").status, 401);
    for wrong in ["/api/compress", "/api/compress?pattern=k*&count=0"] {
        assert_eq!(send(wrong, token).status, 400, "{wrong}");
    }
    let said = send("/api/compress?pattern=k:*&count=7", token).json();
    assert_eq!((&said["values"], &said["pattern"]), (&7.into(), &"k:*".into()));
    rule(said["lines"].as_str().expect("text"));
}
