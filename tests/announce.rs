//! Written values are announced on cache.update for keys whose rule says so: each once, as the client wrote it, and only if the write took
//! effect. What arrives there drops the key from L1, and its value is never used.

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{Nats, NatsClient, Redis, Shortstop, bulk, prose, wait_until};
use serde_json::Value;

const YAML: &str = "defaults: { cache: { admit_after: 1 } }\nrules: [{ match: 'a:*', announce_values: true }]\n";

/// A service that listens, and announcements end with this key.
struct Service(NatsClient);

impl Service {
    fn listen(nats: &Nats) -> Service {
        let mut client = NatsClient::connect(nats.addr());
        client.subscribe("cache.update");
        Service(client)
    }

    /// What is announced until a last write through the same connection is.
    fn until_now(&mut self, client: &mut common::Client) -> Vec<Value> {
        assert_eq!(client.cmd("SET a:last 1"), b"+OK\r\n");
        let mut all = Vec::new();
        loop {
            let message: Value = serde_json::from_slice(&self.0.next()).expect("JSON");
            if message["key"] == "a:last" {
                return all;
            }
            all.push(message);
        }
    }
}

fn value(message: &Value) -> Vec<u8> {
    STANDARD.decode(message["value_base64"].as_str().expect("a text")).expect("base64")
}

/// Key, value and ttl.
fn told(messages: &[Value]) -> Vec<(String, String, Value)> {
    let text = |message: &Value| String::from_utf8(value(message)).expect("text");
    let key = |message: &Value| message["key"].as_str().expect("a text").to_owned();
    messages.iter().map(|message| (key(message), text(message), message["ttl"].clone())).collect()
}

#[test]
fn what_took_effect_is_announced_once_with_its_ttl() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let mut service = Service::listen(&nats);
    let proxy = Shortstop::in_fleet(&redis, &nats, YAML);
    let mut client = proxy.client();
    for (line, expected) in [
        ("SET a:k v", &[("a:k", "v", Value::Null)][..]),
        ("SET a:k w EX 100", &[("a:k", "w", 100.into())]),
        ("SET a:k x PX 1500 GET", &[("a:k", "x", 1.5.into())]),
        ("SET a:k x KEEPTTL", &[("a:k", "x", Value::Null)]),
        ("SET a:k y NX", &[]),
        ("SET a:k y XX", &[("a:k", "y", Value::Null)]),
        ("SET a:none y XX", &[]),
        ("SET a:none y XX GET", &[]),
        ("SET a:k z XX GET", &[("a:k", "z", Value::Null)]),
        ("SET a:k v EX 0", &[]),
        ("SET a:k v WRONG", &[]),
        ("SETEX a:k 10 v", &[("a:k", "v", 10.into())]),
        ("PSETEX a:k 2000 v", &[("a:k", "v", 2.into())]),
        ("SETNX a:k w", &[]),
        ("SETNX a:new w", &[("a:new", "w", Value::Null)]),
        ("GETSET a:k w", &[("a:k", "w", Value::Null)]),
        ("MSET a:k 1 b:k 2 a:l 3", &[("a:k", "1", Value::Null), ("a:l", "3", Value::Null)]),
        ("MSETNX a:k 1 a:m 2", &[]),
        ("MSETNX a:m 1 a:n 2", &[("a:m", "1", Value::Null), ("a:n", "2", Value::Null)]),
        ("SET b:k v", &[]),
        ("APPEND a:k v", &[]),
        ("DEL a:k", &[]),
    ] {
        client.cmd(line);
        let expected: Vec<_> =
            expected.iter().map(|(key, value, ttl)| ((*key).to_owned(), (*value).to_owned(), ttl.clone())).collect();
        assert_eq!(told(&service.until_now(&mut client)), expected, "{line}");
    }
    if redis.major() >= 7 {
        client.cmd("SET a:nxget v NX GET");
        client.cmd("SET a:nxget w NX GET");
        assert_eq!(told(&service.until_now(&mut client)), [("a:nxget".into(), "v".into(), Value::Null)]);
    }
    let instance = {
        client.cmd("SET a:k v");
        let messages = service.until_now(&mut client);
        assert_eq!(messages[0]["action"], "update");
        assert!(messages[0]["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')));
        messages[0]["instance"].as_str().expect("a text").to_owned()
    };
    assert!(instance.starts_with("shortstop:default:"), "{instance}");
    assert_eq!(proxy.stat("updates_dropped"), 0);
}

#[test]
fn large_binary_and_compressed_values() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let mut service = Service::listen(&nats);
    let proxy = Shortstop::in_fleet(&redis, &nats, &format!("{YAML}offload_above: 64kb\n"));
    let mut client = proxy.client();
    // Compressed in Redis, on this thread and on another; and the largest one.
    for (size, seed) in [(20_000, 1), (100_000, 2), (256 << 10, 3)] {
        let text = prose(size, seed);
        client.fill("SET a:k $1", &[&text]);
        assert_ne!(redis.client().cmd("GET a:k"), bulk(&text), "it is compressed in Redis");
        let messages = service.until_now(&mut client);
        assert!(messages.len() == 1 && value(&messages[0]) == text, "{size}");
    }
    client.fill("SET a:k $1", &[&prose((256 << 10) + 1, 4)]);
    assert!(service.until_now(&mut client).is_empty());
    proxy.wait_stat("updates_too_large", |count| count == 1);
    client.fill("SET a:k $1", &[b"\xff\0\r\n"]);
    assert_eq!(value(&service.until_now(&mut client)[0]), b"\xff\0\r\n");
    client.fill("SET $1 v", &[b"a:\xff"]);
    let messages = service.until_now(&mut client);
    assert_eq!((&messages[0]["key"], &messages[0]["key_base64"]), (&Value::Null, &STANDARD.encode(b"a:\xff").into()));
}

#[test]
fn writes_of_a_transaction_are_not_announced_and_still_invalidate() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let mut service = Service::listen(&nats);
    let proxy = Shortstop::in_fleet(&redis, &nats, YAML);
    let mut keys = NatsClient::connect(nats.addr());
    keys.subscribe("cache.invalidate");
    let mut client = proxy.client();
    for line in ["MULTI", "SET a:k v", "EXEC"] {
        client.cmd(line);
    }
    let message: Value = serde_json::from_slice(&keys.next()).expect("JSON");
    assert_eq!((&message["action"], &message["key"]), (&"invalidate".into(), &"a:k".into()));
    assert!(service.until_now(&mut client).is_empty());
}

#[test]
fn an_update_that_arrives_drops_the_key_and_its_value_is_not_used() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let proxy = Shortstop::in_fleet(&redis, &nats, YAML);
    let mut client = proxy.client();
    let mut service = NatsClient::connect(nats.addr());
    for instance in ["", r#","instance":"shortstop:other:00000000000000ab""#] {
        client.cmd("SET b:k v");
        proxy.settle(&redis, &mut client, "b:k");
        redis.client().cmd("SET b:k new");
        service.publish(
            "cache.update",
            format!(r#"{{"action":"update","key":"b:k","value_base64":"Zm9yZ2Vk"{instance}}}"#).as_bytes(),
        );
        wait_until("the key is dropped", || client.cmd("GET b:k") == bulk(b"new"));
    }
}

#[test]
fn what_this_instance_announces_drops_nothing_again() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let mut service = Service::listen(&nats);
    let one = Shortstop::in_fleet(&redis, &nats, YAML);
    let other = Shortstop::in_fleet(&redis, &nats, YAML);
    let mut client = one.client();
    client.cmd("SET a:k v");
    service.until_now(&mut client);
    // The other instance counts both; this one passes them over.
    other.wait_stat("json_received", |count| count == 2);
    assert_eq!((one.stat("json_received"), one.stat("updates_published")), (0, 2));
}

#[test]
fn without_json_nothing_is_announced() {
    let (redis, nats) = (Redis::start(), Nats::start());
    let proxy = Shortstop::in_fleet(&redis, &nats, &format!("{YAML}bus: {{ json: false }}\n"));
    let mut client = proxy.client();
    client.cmd("SET a:k v");
    assert_eq!(client.cmd("GET a:k"), bulk(b"v"));
    assert_eq!(proxy.stat("updates_published") + proxy.stat("updates_dropped"), 0);
}
