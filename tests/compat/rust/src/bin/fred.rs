//! The fred crate, as an application uses it. Argument: the protocol, 2 or 3.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use compat::{large_values, refused, restart, scenarios, skip, url};
use fred::interfaces::TrackingInterface;
use fred::prelude::*;
use fred::types::scan::Scanner;
use fred::types::scripts::Script;
use fred::types::streams::XReadResponse;
use fred::types::{ClusterHash, CustomCommand, RespVersion};
use futures_util::TryStreamExt;
use tokio::time::sleep;

fn resp3() -> bool {
    std::env::args().nth(1).as_deref() == Some("3")
}

/// `user` is `name:password@`, `rest` what follows the port: `/3` for a database.
fn builder(user: &str, rest: &str) -> Builder {
    let url = url().replace("redis://", &format!("redis://{user}"));
    let mut config = Config::from_url(&format!("{url}{rest}")).unwrap();
    config.version = if resp3() { RespVersion::RESP3 } else { RespVersion::RESP2 };
    let mut builder = Builder::from_config(config);
    builder.set_policy(ReconnectPolicy::new_constant(100, 50));
    builder.with_performance_config(|performance| {
        performance.default_command_timeout = Duration::from_secs(20);
        performance.broadcast_channel_capacity = 1000;
    });
    builder
}

async fn client() -> Client {
    let client = builder("", "").build().unwrap();
    client.init().await.unwrap();
    client
}

async fn ask<T: FromValue>(c: &Client, words: &str) -> Result<T, Error> {
    let words: Vec<_> = words.split(' ').map(str::to_owned).collect();
    let command = CustomCommand::new(words[0].clone(), ClusterHash::FirstKey, false);
    c.custom(command, words[1..].to_vec()).await
}

async fn until_blocked(c: &Client) {
    while ask::<String>(c, "INFO clients").await.unwrap().contains("blocked_clients:0") {
        sleep(Duration::from_millis(10)).await;
    }
}

async fn connect() {
    let pool = builder("", "").build_pool(5).unwrap();
    pool.init().await.unwrap();
    assert_eq!(pool.ping::<String>(None).await.unwrap(), "PONG");
    let c = pool.next();
    assert!(c.info::<String>(None).await.unwrap().contains("redis_version:"));
    assert!(ask::<u32>(c, "COMMAND COUNT").await.unwrap() > 200);
    let tasks = (0..500).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move { pool.incr::<i64, _>("connect:n").await.unwrap() })
    });
    let seen: BTreeSet<i64> = futures_util::future::join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(seen, (1..=500).collect());
    pool.quit().await.unwrap();
}

async fn strings() {
    let c = client().await;
    let every_byte: Vec<u8> = (0..=255).collect();
    for value in [b"text".to_vec(), vec![], every_byte, vec![b'x'; 5000], b"a\r\nb\r\n".to_vec()] {
        let _: () = c.set("strings:k", value.as_slice(), None, None, false).await.unwrap();
        for _ in 0..4 {
            assert_eq!(c.get::<Vec<u8>, _>("strings:k").await.unwrap(), value);
        }
        let both: Value = c.mget(vec!["strings:k", "strings:none"]).await.unwrap();
        let both = both.into_array();
        assert_eq!((both[0].as_bytes(), both[1].is_null()), (Some(value.as_slice()), true));
    }
    assert_eq!(c.get::<Option<String>, _>("strings:none").await.unwrap(), None);
    let options = (Some(Expiration::EX(100)), Some(SetOptions::NX), false);
    let unset: Option<String> = c.set("strings:k", "v", options.0, options.1, options.2).await.unwrap();
    assert_eq!(unset, None);
    assert_eq!(c.incr_by::<i64, _>("strings:n", 42).await.unwrap(), 42);
}

async fn pipeline() {
    let c = client().await;
    let p = c.pipeline();
    for i in 0..1000 {
        let _: () = p.set(format!("pipeline:{}", i % 50), i, None, None, false).await.unwrap();
        let _: () = p.get(format!("pipeline:{}", i % 50)).await.unwrap();
    }
    let got: Vec<Value> = p.all().await.unwrap();
    for (i, pair) in got.chunks(2).enumerate() {
        assert_eq!((pair[0].as_str().unwrap(), pair[1].as_u64()), ("OK".into(), Some(i as u64)));
    }
    let p = c.pipeline();
    let _: () = p.set("pipeline:s", "text", None, None, false).await.unwrap();
    let _: () = p.incr("pipeline:s").await.unwrap();
    let _: () = p.get("pipeline:s").await.unwrap();
    let got = p.try_all::<Value>().await;
    assert!(got[0].is_ok() && got[1].is_err() && got[2].as_ref().unwrap().as_str().unwrap() == "text");
}

async fn transaction() {
    let (mine, other) = (client().await, client().await);
    let _: () = other.set("transaction:k", 1, None, None, false).await.unwrap();
    for _ in 0..3 {
        let _: i64 = mine.get("transaction:k").await.unwrap();
    }
    ask::<()>(&mine, "WATCH transaction:k").await.unwrap();
    assert_eq!(mine.get::<i64, _>("transaction:k").await.unwrap(), 1);
    let _: () = other.set("transaction:k", 2, None, None, false).await.unwrap();
    let t = mine.multi();
    let _: () = t.set("transaction:k", 3, None, None, false).await.unwrap();
    assert!(t.exec::<Value>(false).await.unwrap().is_null());
    ask::<()>(&mine, "WATCH transaction:k").await.unwrap();
    let t = mine.multi();
    let _: () = t.incr("transaction:k").await.unwrap();
    let _: () = t.get("transaction:k").await.unwrap();
    assert_eq!(t.exec::<(i64, i64)>(true).await.unwrap(), (3, 3));
    let t = mine.multi();
    let _: () = t.incr("transaction:k").await.unwrap();
    let _: () = t.custom(CustomCommand::new_static("NOSUCH", None, false), vec!["x"]).await.unwrap();
    assert!(t.exec::<Value>(true).await.is_err());
    assert_eq!(other.get::<i64, _>("transaction:k").await.unwrap(), 3);
}

async fn pubsub() {
    let (c, sub) = (client().await, client().await);
    let mut messages = sub.message_rx();
    sub.subscribe(vec!["pubsub:a", "pubsub:b"]).await.unwrap();
    sub.psubscribe("pubsub:*").await.unwrap();
    // In RESP2 the library does not wait for the answers.
    while ask::<i64>(&c, "PUBSUB NUMPAT").await.unwrap() != 1 {}
    assert_eq!(c.publish::<i64, _, _>("pubsub:a", "hello").await.unwrap(), 2);
    for _ in 0..2 {
        assert_eq!(messages.recv().await.unwrap().value.as_str().unwrap(), "hello");
    }
    sub.punsubscribe("pubsub:*").await.unwrap();
    sub.unsubscribe("pubsub:a").await.unwrap();
    while c.publish::<i64, _, _>("pubsub:a", "nobody").await.unwrap() != 0 {}
    for i in 0..100 {
        assert_eq!(c.publish::<i64, _, _>("pubsub:b", i).await.unwrap(), 1);
    }
    for i in 0..100 {
        let message = loop {
            let message = messages.recv().await.unwrap();
            if message.channel != "pubsub:a" {
                break message;
            }
        };
        assert_eq!(message.value.as_i64(), Some(i));
    }
    sub.unsubscribe("pubsub:b").await.unwrap();
    assert_eq!(sub.get::<Option<i64>, _>("pubsub:none").await.unwrap(), None);
}

async fn blocking() {
    let (c, waiting) = (client().await, client().await);
    let job: tokio::task::JoinHandle<Result<(String, String), Error>> = {
        let waiting = waiting.clone();
        tokio::spawn(async move { waiting.blpop(vec!["blocking:a", "blocking:b"], 10.0).await })
    };
    until_blocked(&c).await;
    let _: () = c.rpush("blocking:b", "job").await.unwrap();
    assert_eq!(job.await.unwrap().unwrap(), ("blocking:b".into(), "job".into()));
    for _ in 0..3 {
        let start = Instant::now();
        // What Redis answers with nil is an error of the library.
        refused(waiting.blpop::<Value, _>("blocking:none", 0.2).await, "timed out");
        assert!(start.elapsed() > Duration::from_millis(150) && start.elapsed() < Duration::from_secs(5));
    }
}

async fn script() {
    let c = client().await;
    let _: () = c.set("script:k", "before", None, None, false).await.unwrap();
    for _ in 0..3 {
        let _: String = c.get("script:k").await.unwrap();
    }
    c.script_flush(false).await.unwrap();
    let put = Script::from_lua("redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])");
    refused(put.evalsha::<Value, _, _, _>(&c, "script:k", "no").await, "NOSCRIPT");
    // EVALSHA, NOSCRIPT, SCRIPT LOAD, EVALSHA.
    let got: String = put.evalsha_with_reload(&c, "script:k", "after").await.unwrap();
    assert_eq!((got, c.get("script:k").await.unwrap()), ("after".to_owned(), "after".to_owned()));
    let three: Vec<i64> = c.eval("return {1, 2, 3}", (), ()).await.unwrap();
    assert_eq!(three, [1, 2, 3]);
    refused(c.eval::<Value, _, _, _>("return redis.error_reply('MINE no')", (), ()).await, "MINE no");
}

async fn stream() {
    let c = client().await;
    let mut ids: Vec<String> = vec![];
    for i in 0..5 {
        ids.push(c.xadd("stream:s", false, None, "*", ("n", i)).await.unwrap());
    }
    let _: () = c.xgroup_create("stream:s", "g", "0", false).await.unwrap();
    refused(c.xgroup_create::<Value, _, _, _>("stream:s", "g", "0", false).await, "BUSYGROUP");
    let read = async |consumer: &str| {
        let got: Result<XReadResponse<String, String, String, String>, _> =
            c.xreadgroup_map("g", consumer, Some(3), Some(50), false, "stream:s", ">").await;
        let entries = got.unwrap_or_default().remove("stream:s").unwrap_or_default();
        entries.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
    };
    assert_eq!(read("one").await, ids[..3]);
    assert_eq!(read("two").await, ids[3..]);
    assert_eq!(read("two").await, [""; 0]);
    assert_eq!(c.xack::<i64, _, _, _>("stream:s", "g", ids[..2].to_vec()).await.unwrap(), 2);
    let waiting = client().await;
    let late: tokio::task::JoinHandle<Result<XReadResponse<String, String, String, String>, Error>> =
        tokio::spawn(async move { waiting.xread_map(None, Some(10_000), "stream:s", "$").await });
    until_blocked(&c).await;
    let id: String = c.xadd("stream:s", false, None, "*", ("n", "late")).await.unwrap();
    assert_eq!(late.await.unwrap().unwrap()["stream:s"][0].0, id);
}

async fn scan() {
    let c = client().await;
    let p = c.pipeline();
    for i in 0..1000 {
        let _: () = p.set(format!("scan:{i}"), i, None, None, false).await.unwrap();
        let _: () = p.hset("scan-h", (i.to_string(), i)).await.unwrap();
        let _: () = p.sadd("scan-s", i).await.unwrap();
        let _: () = p.zadd("scan-z", None, None, false, false, (f64::from(i), i)).await.unwrap();
    }
    let _: Vec<Value> = p.all().await.unwrap();
    let keys: Vec<Key> = c.scan_buffered("scan:*", Some(100), None).try_collect().await.unwrap();
    assert_eq!(keys.into_iter().collect::<HashSet<_>>().len(), 1000);
    let (mut fields, mut members, mut scored) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut pages = Box::pin(c.hscan("scan-h", "*", Some(100)));
    while let Some(mut page) = pages.try_next().await.unwrap() {
        fields.extend(page.take_results().unwrap().inner().into_keys());
        page.next();
    }
    let mut pages = Box::pin(c.sscan("scan-s", "*", Some(100)));
    while let Some(mut page) = pages.try_next().await.unwrap() {
        members.extend(page.take_results().unwrap().into_iter().map(|member| member.as_i64().unwrap()));
        page.next();
    }
    let mut pages = Box::pin(c.zscan("scan-z", "*", Some(100)));
    while let Some(mut page) = pages.try_next().await.unwrap() {
        scored.extend(page.take_results().unwrap().into_iter().map(|(member, _)| member.as_i64().unwrap()));
        page.next();
    }
    assert_eq!((fields.len(), members.len(), scored.len()), (1000, 1000, 1000));
}

async fn large() {
    let c = client().await;
    for value in large_values() {
        let _: () = c.set("large:k", value.as_slice(), None, None, false).await.unwrap();
        for _ in 0..4 {
            assert!(c.get::<Vec<u8>, _>("large:k").await.unwrap() == value, "the value came back changed");
        }
    }
}

async fn types() {
    let c = client().await;
    let hash = HashMap::from([("f".to_owned(), "v".to_owned()), ("g".to_owned(), "1".to_owned())]);
    let _: () = c.hset("types:h", hash.clone()).await.unwrap();
    assert_eq!(c.hgetall::<HashMap<String, String>, _>("types:h").await.unwrap(), hash);
    let _: () = c.sadd("types:s", vec!["a", "b"]).await.unwrap();
    assert_eq!(c.smembers::<BTreeSet<String>, _>("types:s").await.unwrap(), BTreeSet::from(["a".into(), "b".into()]));
    let scores = vec![(1.0, "a"), (2.5, "b"), (f64::INFINITY, "c")];
    let _: () = c.zadd("types:z", None, None, false, false, scores).await.unwrap();
    assert_eq!(c.zscore::<Option<f64>, _, _>("types:z", "b").await.unwrap(), Some(2.5));
    assert_eq!(c.zscore::<Option<f64>, _, _>("types:z", "none").await.unwrap(), None);
    let range: Value = c.zrange("types:z", 0, -1, None, false, None, true).await.unwrap();
    let range = range.into_zset_result().unwrap().into_iter().map(|(v, s)| (v.as_string().unwrap(), s));
    let expected = [("a".to_owned(), 1.0), ("b".to_owned(), 2.5), ("c".to_owned(), f64::INFINITY)];
    assert_eq!(range.collect::<HashMap<_, _>>(), HashMap::from(expected));
    refused(c.get::<String, _>("types:h").await, "WRONGTYPE");
    // As they come over the wire.
    assert_eq!(ask::<Value>(&c, "HGETALL types:h").await.unwrap().is_map(), resp3());
    assert_eq!(ask::<Value>(&c, "CONFIG GET maxmemory").await.unwrap().is_map(), resp3());
    assert!(ask::<Value>(&c, "GET types:none").await.unwrap().is_null());
}

async fn acl() {
    let c = client().await;
    let _: () = c.set("acl:theirs", "secret", None, None, false).await.unwrap();
    for _ in 0..4 {
        let _: String = c.get("acl:theirs").await.unwrap();
    }
    let rules = "ACL SETUSER app reset on >pass ~user:* &* +@all -@dangerous +@connection +info";
    ask::<()>(&c, rules).await.unwrap();
    let app = builder("app:pass@", "").build().unwrap();
    app.init().await.unwrap();
    assert_eq!(ask::<String>(&app, "ACL WHOAMI").await.unwrap(), "app");
    let _: () = app.set("user:1", "mine", None, None, false).await.unwrap();
    for _ in 0..4 {
        assert_eq!(app.get::<String, _>("user:1").await.unwrap(), "mine");
        refused(app.get::<String, _>("acl:theirs").await, "NOPERM");
    }
    refused(app.set::<(), _, _>("acl:theirs", "x", None, None, false).await, "NOPERM");
    let mut wrong = builder("app:wrong@", "");
    wrong.set_policy(ReconnectPolicy::new_constant(1, 1));
    assert!(wrong.build().unwrap().init().await.is_err());
    assert_eq!(ask::<i64>(&c, "ACL DELUSER app").await.unwrap(), 1);
}

async fn select() {
    let c = client().await;
    let three = builder("", "/3").build().unwrap();
    three.init().await.unwrap();
    let _: () = c.set("select:k", "zero", None, None, false).await.unwrap();
    let _: () = three.set("select:k", "three", None, None, false).await.unwrap();
    for _ in 0..4 {
        assert_eq!(c.get::<String, _>("select:k").await.unwrap(), "zero");
        assert_eq!(three.get::<String, _>("select:k").await.unwrap(), "three");
    }
    three.select(4).await.unwrap();
    assert_eq!(three.get::<Option<String>, _>("select:k").await.unwrap(), None);
    assert!(three.select(99).await.is_err());
}

async fn clients() {
    let (c, one, two) = (client().await, client().await, client().await);
    let ids: (u64, u64) = (one.client_id().await.unwrap(), two.client_id().await.unwrap());
    assert!(0 < ids.0 && ids.0 < ids.1);
    one.client_setname::<_>("compat-one").await.unwrap();
    assert_eq!(one.client_getname::<String>().await.unwrap(), "compat-one");
    let info: String = one.client_info().await.unwrap();
    assert!(info.starts_with(&format!("id={} ", ids.0)) && info.contains(" name=compat-one "), "{info}");
    let list: String = ask(&c, "CLIENT LIST").await.unwrap();
    assert!(list.contains(&format!("id={} ", ids.1)) && list.contains(" name=compat-one "), "{list}");
    assert_eq!(ask::<i64>(&c, &format!("CLIENT KILL ID {}", ids.1)).await.unwrap(), 1);
    // The library connects again by itself.
    let now: u64 = two.client_id().await.unwrap();
    assert!(now != ids.0 && now != ids.1);
}

async fn tracking() {
    if !resp3() {
        skip("the library's interface for it needs RESP3");
    }
    let (c, cached) = (client().await, client().await);
    let mut invalidations = cached.invalidation_rx();
    cached.start_tracking(None, false, false, false, false).await.unwrap();
    let _: () = c.set("tracking:k", "one", None, None, false).await.unwrap();
    for _ in 0..3 {
        assert_eq!(cached.get::<String, _>("tracking:k").await.unwrap(), "one");
    }
    let _: () = c.set("tracking:k", "two", None, None, false).await.unwrap();
    assert_eq!(invalidations.recv().await.unwrap().keys, [Key::from("tracking:k")]);
    cached.stop_tracking().await.unwrap();
}

async fn reconnect() {
    let c = builder("", "/2").build().unwrap();
    c.init().await.unwrap();
    let sub = builder("", "").build_subscriber_client().unwrap();
    sub.init().await.unwrap();
    let _task = sub.manage_subscriptions();
    let mut messages = sub.message_rx();
    sub.subscribe("reconnect:news").await.unwrap();
    let _: () = c.set("reconnect:k", "before", None, None, false).await.unwrap();
    restart().await;
    let _: () = c.set("reconnect:k", "after", None, None, false).await.unwrap();
    assert_eq!(c.get::<String, _>("reconnect:k").await.unwrap(), "after");
    while c.publish::<i64, _, _>("reconnect:news", "hello").await.unwrap() == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(messages.recv().await.unwrap().value.as_str().unwrap(), "hello");
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
