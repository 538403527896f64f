//! A thousand clients at once, each with its own connection.
//!
//! Alone in its binary: the usual limit of 1,024 open files has room for them and little else. Shortstop is a process of its own
//! here, with its own limit.

mod common;

use common::{Client, Process, Redis, assert_reply, bulk, pipeline_of};

const CLIENTS: usize = 1_000;
const THREADS: usize = 8;

#[test]
fn a_thousand_clients_are_served() {
    let redis = Redis::start();
    let proxy = Process::start(redis.addr(), "defaults:\n  cache: { admit_after: 1 }\n");
    let mut clients: Vec<(usize, Client)> = (0..CLIENTS).map(|id| (id, proxy.client())).collect();
    for round in 0..3 {
        std::thread::scope(|scope| {
            for part in clients.chunks_mut(CLIENTS / THREADS) {
                scope.spawn(move || {
                    // All of them send a request before any reply is read.
                    for (id, client) in part.iter_mut() {
                        client.send(&pipeline_of(&[
                            format!("SET mine:{id} {round}.{id}"),
                            format!("GET mine:{id}"),
                            "GET shared".into(),
                            format!("ECHO {id}"),
                        ]));
                    }
                    for (id, client) in part.iter_mut() {
                        let expected = [
                            b"+OK\r\n".to_vec(),
                            bulk(format!("{round}.{id}").as_bytes()),
                            b"$-1\r\n".to_vec(),
                            bulk(id.to_string().as_bytes()),
                        ]
                        .concat();
                        assert_reply(&client.replies(4).concat(), expected, &format!("client {id}, round {round}"));
                    }
                });
            }
        });
        // They share a few connections to Redis.
        assert!(redis.connections() < 50, "Redis sees {} connections", redis.connections());
    }
    for (id, client) in clients.iter_mut().step_by(100) {
        assert_reply(
            &client.pipeline(&pipeline_of(&["MULTI", &format!("GET mine:{id}"), "EXEC"]), 3)[2],
            [&b"*1\r\n"[..], &bulk(format!("2.{id}").as_bytes())].concat(),
            "a session among them",
        );
    }
    assert_eq!(proxy.stat("proxy_clients"), CLIENTS as u64 + 1, "all are still there, and the one that asks");
}
