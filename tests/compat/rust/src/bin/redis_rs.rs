//! The redis crate, as an application uses it. Argument: the protocol, 2 or 3.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use compat::{large_values, refused, restart, scenarios, skip, url};
use futures_util::StreamExt;
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, AsyncConnectionConfig, Client, FromRedisValue, RedisResult, Script, Value, cmd, pipe};
use tokio::time::sleep;

fn resp3() -> bool {
    std::env::args().nth(1).as_deref() == Some("3")
}

/// `rest` is what follows the port: `/3` for a database.
fn client(user: &str, rest: &str) -> Client {
    let url = url().replace("redis://", &format!("redis://{user}"));
    let protocol = if resp3() { "resp3" } else { "resp2" };
    Client::open(format!("{url}{rest}?protocol={protocol}")).unwrap()
}

async fn connection() -> MultiplexedConnection {
    let patient = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(20)));
    client("", "").get_multiplexed_async_connection_with_config(&patient).await.unwrap()
}

async fn ask<T: FromRedisValue>(c: &mut MultiplexedConnection, words: &str) -> RedisResult<T> {
    let mut words = words.split(' ');
    let mut command = cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    command.query_async(c).await
}

async fn until_blocked(c: &mut MultiplexedConnection) {
    while ask::<String>(c, "INFO clients").await.unwrap().contains("blocked_clients:0") {
        sleep(Duration::from_millis(10)).await;
    }
}

async fn connect() {
    let mut c = connection().await;
    assert_eq!(ask::<String>(&mut c, "PING").await.unwrap(), "PONG");
    assert!(ask::<String>(&mut c, "INFO server").await.unwrap().contains("redis_version:"));
    assert!(ask::<u32>(&mut c, "COMMAND COUNT").await.unwrap() > 200);
    // The same connection for many tasks.
    let tasks = (0..500).map(|_| {
        let mut c = c.clone();
        tokio::spawn(async move { c.incr::<_, _, i64>("connect:n", 1).await.unwrap() })
    });
    let seen: BTreeSet<i64> = futures_util::future::join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(seen, (1..=500).collect());
    // And the one that blocks its thread.
    let blocking = tokio::task::spawn_blocking(|| {
        let mut c = client("", "").get_connection().unwrap();
        redis::Commands::get::<_, i64>(&mut c, "connect:n").unwrap()
    });
    assert_eq!(blocking.await.unwrap(), 500);
}

async fn strings() {
    let mut c = connection().await;
    let every_byte: Vec<u8> = (0..=255).collect();
    for value in [b"text".to_vec(), vec![], every_byte, vec![b'x'; 5000], b"a\r\nb\r\n".to_vec()] {
        let _: () = c.set("strings:k", &value).await.unwrap();
        for _ in 0..4 {
            assert_eq!(c.get::<_, Vec<u8>>("strings:k").await.unwrap(), value);
        }
        let both: (Option<Vec<u8>>, Option<Vec<u8>>) = c.mget(&["strings:k", "strings:none"]).await.unwrap();
        assert_eq!(both, (Some(value), None));
    }
    assert_eq!(c.get::<_, Option<String>>("strings:none").await.unwrap(), None);
    assert!(!c.set_nx::<_, _, bool>("strings:k", "v").await.unwrap());
    assert_eq!(c.incr::<_, _, i64>("strings:n", 42).await.unwrap(), 42);
    let _: () = c.set_ex("strings:e", "v", 100).await.unwrap();
    assert!(c.ttl::<_, i64>("strings:e").await.unwrap() > 90);
}

async fn pipeline() {
    let mut c = connection().await;
    let mut p = pipe();
    for i in 0..1000 {
        p.set(format!("pipeline:{}", i % 50), i).ignore().get(format!("pipeline:{}", i % 50));
    }
    assert_eq!(p.query_async::<Vec<i32>>(&mut c).await.unwrap(), (0..1000).collect::<Vec<_>>());
    let failing = pipe().set("pipeline:s", "text").incr("pipeline:s", 1).get("pipeline:s").exec_async(&mut c).await;
    refused(failing, "not an integer");
    assert_eq!(c.get::<_, String>("pipeline:s").await.unwrap(), "text");
}

async fn transaction() {
    let (mut mine, mut other) = (connection().await, connection().await);
    let _: () = other.set("transaction:k", 1).await.unwrap();
    for _ in 0..3 {
        let _: i64 = mine.get("transaction:k").await.unwrap();
    }
    let _: () = ask(&mut mine, "WATCH transaction:k").await.unwrap();
    assert_eq!(mine.get::<_, i64>("transaction:k").await.unwrap(), 1);
    let _: () = other.set("transaction:k", 2).await.unwrap();
    let lost: Option<(String,)> = pipe().atomic().set("transaction:k", 3).query_async(&mut mine).await.unwrap();
    assert_eq!(lost, None);
    let _: () = ask(&mut mine, "WATCH transaction:k").await.unwrap();
    let won: Option<(i64, i64)> =
        pipe().atomic().incr("transaction:k", 1).get("transaction:k").query_async(&mut mine).await.unwrap();
    assert_eq!(won, Some((3, 3)));
    let _: () = other.hset("transaction:h", "f", "v").await.unwrap();
    let wrong = pipe().atomic().incr("transaction:h", 1).incr("transaction:k", 1).exec_async(&mut mine).await;
    refused(wrong, "WRONGTYPE");
    assert_eq!(other.get::<_, i64>("transaction:k").await.unwrap(), 4);
    let aborted = pipe().atomic().incr("transaction:k", 1).cmd("NOSUCH").exec_async(&mut mine).await;
    assert!(aborted.is_err());
    assert_eq!(other.get::<_, i64>("transaction:k").await.unwrap(), 4);
}

async fn pubsub() {
    let mut c = connection().await;
    let (mut sink, mut messages) = client("", "").get_async_pubsub().await.unwrap().split();
    sink.subscribe(&["pubsub:a", "pubsub:b"]).await.unwrap();
    sink.psubscribe("pubsub:*").await.unwrap();
    assert_eq!(c.publish::<_, _, i64>("pubsub:a", "hello").await.unwrap(), 2);
    let (one, two) = (messages.next().await.unwrap(), messages.next().await.unwrap());
    assert!(one.from_pattern() != two.from_pattern() && one.get_payload_bytes() == b"hello");
    sink.punsubscribe("pubsub:*").await.unwrap();
    sink.unsubscribe("pubsub:a").await.unwrap();
    assert_eq!(c.publish::<_, _, i64>("pubsub:a", "nobody").await.unwrap(), 0);
    for i in 0..100 {
        assert_eq!(c.publish::<_, _, i64>("pubsub:b", i).await.unwrap(), 1);
    }
    for i in 0..100 {
        assert_eq!(messages.next().await.unwrap().get_payload::<i32>().unwrap(), i);
    }
    if !resp3() {
        return;
    }
    // RESP3: messages as pushes, on a connection that goes on serving.
    let (send, mut pushes) = tokio::sync::mpsc::unbounded_channel();
    let config = AsyncConnectionConfig::new().set_push_sender(send);
    let mut both = client("", "").get_multiplexed_async_connection_with_config(&config).await.unwrap();
    both.subscribe("pubsub:c").await.unwrap();
    assert_eq!(both.publish::<_, _, i64>("pubsub:c", "to myself").await.unwrap(), 1);
    let text = loop {
        let push = pushes.recv().await.unwrap();
        if push.kind == redis::PushKind::Message {
            break push.data[1].clone();
        }
    };
    assert_eq!(text, Value::BulkString(b"to myself".to_vec()));
    assert_eq!(both.get::<_, Option<i64>>("pubsub:none").await.unwrap(), None);
}

async fn blocking() {
    let (mut c, mut waiting) = (connection().await, connection().await);
    let job = tokio::spawn(async move {
        waiting.blpop::<_, (String, String)>(&["blocking:a", "blocking:b"], 10.0).await.unwrap()
    });
    until_blocked(&mut c).await;
    let _: () = c.rpush("blocking:b", "job").await.unwrap();
    assert_eq!(job.await.unwrap(), ("blocking:b".into(), "job".into()));
    let mut waiting = connection().await;
    let least =
        tokio::spawn(async move { waiting.bzpopmin::<_, (String, String, f64)>("blocking:z", 10.0).await.unwrap() });
    until_blocked(&mut c).await;
    let _: () = c.zadd("blocking:z", "m", 1.5).await.unwrap();
    assert_eq!(least.await.unwrap(), ("blocking:z".into(), "m".into(), 1.5));
    for _ in 0..3 {
        let start = Instant::now();
        assert_eq!(c.blpop::<_, Option<(String, String)>>("blocking:none", 0.2).await.unwrap(), None);
        assert!(start.elapsed() > Duration::from_millis(150) && start.elapsed() < Duration::from_secs(5));
    }
}

async fn script() {
    let mut c = connection().await;
    let _: () = c.set("script:k", "before").await.unwrap();
    for _ in 0..3 {
        let _: String = c.get("script:k").await.unwrap();
    }
    let _: () = ask(&mut c, "SCRIPT FLUSH").await.unwrap();
    let put = Script::new("redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])");
    refused(ask::<Value>(&mut c, &format!("EVALSHA {} 1 script:k no", put.get_hash())).await, "NoScript");
    // EVALSHA, NOSCRIPT, SCRIPT LOAD, EVALSHA.
    let got: String = put.key("script:k").arg("after").invoke_async(&mut c).await.unwrap();
    assert_eq!((got, c.get("script:k").await.unwrap()), ("after".to_owned(), "after".to_owned()));
    let mixed: (i64, String, (i64, Option<i64>)) =
        cmd("EVAL").arg("return {1, 'two', {3, false}}").arg(0).query_async(&mut c).await.unwrap();
    assert_eq!(mixed, (1, "two".into(), (3, None)));
    let error = cmd("EVAL").arg("return redis.error_reply('MINE no')").arg(0).query_async::<Value>(&mut c).await;
    refused(error, "MINE");
}

async fn stream() {
    let mut c = connection().await;
    let mut ids: Vec<String> = vec![];
    for i in 0..5 {
        ids.push(c.xadd("stream:s", "*", &[("n", i)]).await.unwrap());
    }
    let _: () = c.xgroup_create("stream:s", "g", "0").await.unwrap();
    refused(c.xgroup_create::<_, _, _, Value>("stream:s", "g", "0").await, "BUSYGROUP");
    let read = async |consumer: &str, c: &mut MultiplexedConnection| {
        let options = StreamReadOptions::default().group("g", consumer).count(3).block(50);
        let got: Option<StreamReadReply> = c.xread_options(&["stream:s"], &[">"], &options).await.unwrap();
        let entries = got.and_then(|got| got.keys.into_iter().next());
        entries.map_or(vec![], |key| key.ids.into_iter().map(|entry| entry.id).collect::<Vec<_>>())
    };
    assert_eq!(read("one", &mut c).await, ids[..3]);
    assert_eq!(read("two", &mut c).await, ids[3..]);
    assert_eq!(read("two", &mut c).await, [""; 0]);
    assert_eq!(c.xack::<_, _, _, i64>("stream:s", "g", &ids[..2]).await.unwrap(), 2);
    let pending: redis::streams::StreamPendingReply = c.xpending("stream:s", "g").await.unwrap();
    assert_eq!(pending.count(), 3);
    let groups: redis::streams::StreamInfoGroupsReply = c.xinfo_groups("stream:s").await.unwrap();
    assert_eq!((groups.groups[0].name.as_str(), groups.groups[0].pending), ("g", 3));
    let mut waiting = connection().await;
    let late = tokio::spawn(async move {
        let options = StreamReadOptions::default().block(10_000);
        waiting.xread_options::<_, _, StreamReadReply>(&["stream:s"], &["$"], &options).await.unwrap()
    });
    until_blocked(&mut c).await;
    let id: String = c.xadd("stream:s", "*", &[("n", "late")]).await.unwrap();
    assert_eq!(late.await.unwrap().keys[0].ids[0].id, id);
}

async fn scan() {
    let mut c = connection().await;
    let mut p = pipe();
    for i in 0..1000 {
        p.set(format!("scan:{i}"), i).hset("scan-h", i, i).sadd("scan-s", i).zadd("scan-z", i, i);
    }
    p.exec_async(&mut c).await.unwrap();
    let numbers: BTreeSet<i64> = (0..1000).collect();
    let keys: Vec<String> = c.scan_match::<_, String>("scan:*").await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(keys.iter().map(|key| key[5..].parse().unwrap()).collect::<BTreeSet<i64>>(), numbers);
    let fields: Vec<(i64, i64)> = c.hscan::<_, (i64, i64)>("scan-h").await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(fields.into_iter().map(|(field, _)| field).collect::<BTreeSet<_>>(), numbers);
    let members: Vec<i64> = c.sscan::<_, i64>("scan-s").await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(members.into_iter().collect::<BTreeSet<_>>(), numbers);
    let scored: Vec<(i64, f64)> = c.zscan::<_, (i64, f64)>("scan-z").await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(scored.into_iter().map(|(member, _)| member).collect::<BTreeSet<_>>(), numbers);
}

async fn large() {
    let mut c = connection().await;
    for value in large_values() {
        let _: () = c.set("large:k", &value).await.unwrap();
        for _ in 0..4 {
            assert!(c.get::<_, Vec<u8>>("large:k").await.unwrap() == value, "the value came back changed");
        }
    }
}

async fn types() {
    let mut c = connection().await;
    let _: () = c.hset_multiple("types:h", &[("f", "v"), ("g", "1")]).await.unwrap();
    let hash: HashMap<String, String> = c.hgetall("types:h").await.unwrap();
    assert_eq!(hash, HashMap::from([("f".into(), "v".into()), ("g".into(), "1".into())]));
    let _: () = c.sadd("types:s", &["a", "b"]).await.unwrap();
    let _: () = c.zadd_multiple("types:z", &[(1.0, "a"), (2.5, "b"), (f64::INFINITY, "c")]).await.unwrap();
    assert_eq!(c.zscore::<_, _, Option<f64>>("types:z", "b").await.unwrap(), Some(2.5));
    let range: Vec<(String, f64)> = c.zrange_withscores("types:z", 0, -1).await.unwrap();
    assert_eq!(range, [("a".into(), 1.0), ("b".into(), 2.5), ("c".into(), f64::INFINITY)]);
    refused(c.get::<_, String>("types:h").await, "WRONGTYPE");
    // As they come over the wire.
    for (command, in_resp3, in_resp2) in [
        ("HGETALL types:h", "map", "array"),
        ("SMEMBERS types:s", "set", "array"),
        ("ZSCORE types:z b", "double", "bulk"),
        ("CONFIG GET maxmemory", "map", "array"),
        ("GET types:none", "nil", "nil"),
        ("INFO server", "verbatim", "bulk"),
    ] {
        let got = shape(&ask(&mut c, command).await.unwrap());
        assert_eq!(got, if resp3() { in_resp3 } else { in_resp2 }, "{command}");
    }
}

fn shape(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "array",
        Value::BulkString(_) => "bulk",
        Value::Double(_) => "double",
        Value::Map(_) => "map",
        Value::Nil => "nil",
        Value::Set(_) => "set",
        Value::VerbatimString { .. } => "verbatim",
        _ => "something else",
    }
}

async fn acl() {
    let mut c = connection().await;
    let _: () = c.set("acl:theirs", "secret").await.unwrap();
    for _ in 0..4 {
        let _: String = c.get("acl:theirs").await.unwrap();
    }
    let rules = "ACL SETUSER app reset on >pass ~user:* &* +@all -@dangerous +@connection +info";
    let _: () = ask(&mut c, rules).await.unwrap();
    let mut app = client("app:pass@", "").get_multiplexed_async_connection().await.unwrap();
    assert_eq!(ask::<String>(&mut app, "ACL WHOAMI").await.unwrap(), "app");
    let _: () = app.set("user:1", "mine").await.unwrap();
    for _ in 0..4 {
        assert_eq!(app.get::<_, String>("user:1").await.unwrap(), "mine");
        refused(app.get::<_, String>("acl:theirs").await, "NoPerm");
    }
    assert!(app.set::<_, _, ()>("acl:theirs", "x").await.is_err());
    assert!(client("app:wrong@", "").get_multiplexed_async_connection().await.is_err());
    assert_eq!(ask::<i64>(&mut c, "ACL DELUSER app").await.unwrap(), 1);
}

async fn select() {
    let mut c = connection().await;
    let mut three = client("", "/3").get_multiplexed_async_connection().await.unwrap();
    let _: () = c.set("select:k", "zero").await.unwrap();
    let _: () = three.set("select:k", "three").await.unwrap();
    for _ in 0..4 {
        assert_eq!(c.get::<_, String>("select:k").await.unwrap(), "zero");
        assert_eq!(three.get::<_, String>("select:k").await.unwrap(), "three");
    }
    assert!(client("", "/99").get_multiplexed_async_connection().await.is_err());
}

async fn clients() {
    let (mut c, mut one, mut two) = (connection().await, connection().await, connection().await);
    let ids: (u64, u64) = (one.client_id().await.unwrap(), two.client_id().await.unwrap());
    assert!(0 < ids.0 && ids.0 < ids.1);
    let _: () = one.client_setname("compat-one").await.unwrap();
    assert_eq!(one.client_getname::<Option<String>>().await.unwrap().as_deref(), Some("compat-one"));
    assert_eq!(two.client_getname::<Option<String>>().await.unwrap().unwrap_or_default(), "");
    let info: String = ask(&mut one, "CLIENT INFO").await.unwrap();
    assert!(info.starts_with(&format!("id={} ", ids.0)) && info.contains(" name=compat-one "), "{info}");
    let list: String = ask(&mut c, "CLIENT LIST").await.unwrap();
    assert!(list.contains(&format!("id={} ", ids.1)) && list.contains(" name=compat-one "), "{list}");
    assert_eq!(ask::<i64>(&mut c, &format!("CLIENT KILL ID {}", ids.1)).await.unwrap(), 1);
    assert!(ask::<String>(&mut two, "PING").await.is_err());
}

async fn tracking() {
    if !resp3() {
        skip("the library's cache needs RESP3");
    }
    let config = AsyncConnectionConfig::new().set_cache_config(redis::caching::CacheConfig::new());
    let mut cached = client("", "").get_multiplexed_async_connection_with_config(&config).await.unwrap();
    let mut c = connection().await;
    let _: () = c.set("tracking:k", "one").await.unwrap();
    for _ in 0..3 {
        assert_eq!(cached.get::<_, String>("tracking:k").await.unwrap(), "one");
    }
    assert!(cached.get_cache_statistics().unwrap().hit > 0);
    let _: () = c.set("tracking:k", "two").await.unwrap();
    // The invalidation is a push, on its way.
    while cached.get::<_, String>("tracking:k").await.unwrap() != "two" {
        sleep(Duration::from_millis(5)).await;
    }
}

async fn reconnect() {
    let config = ConnectionManagerConfig::new().set_max_delay(Duration::from_millis(100)).set_number_of_retries(100);
    let mut c = ConnectionManager::new_with_config(client("", "/2"), config).await.unwrap();
    let _: () = c.set("reconnect:k", "before").await.unwrap();
    restart().await;
    // What was lost with the connection is an error to the caller; then the manager has a new one.
    let mut tries = 0;
    while c.set::<_, _, ()>("reconnect:k", "after").await.is_err() {
        tries += 1;
        assert!(tries < 100);
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(c.get::<_, String>("reconnect:k").await.unwrap(), "after");
    let mut two = client("", "/2").get_multiplexed_async_connection().await.unwrap();
    assert_eq!(two.get::<_, String>("reconnect:k").await.unwrap(), "after");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    scenarios!(
        connect,
        strings,
        pipeline,
        transaction,
        pubsub,
        blocking,
        script,
        stream,
        scan,
        large,
        types,
        acl,
        select,
        clients,
        tracking,
        reconnect
    );
}
