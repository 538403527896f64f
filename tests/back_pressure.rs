//! Clients that send far more than they read: no other client waits for them, and memory is bounded per client and in total.

mod common;

use std::io::Read;
use std::net::SocketAddr;

use common::{
    Client, Fault, Process, Redis, Shortstop, Way, assert_reply, bulk, command, noise, pipeline_of, prose, wait_until,
    wait_within,
};

const REQUESTS: usize = 120_000;
const MB: usize = 1 << 20;

/// A key of 40 bytes.
fn key(number: usize) -> Vec<u8> {
    format!("{number:040}").into_bytes()
}

/// Reads exactly the expected bytes, and compares them.
fn assert_reads(client: &mut Client, expected: &[u8], what: &str) {
    let mut got = vec![0; expected.len()];
    client.stream().read_exact(&mut got).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(got == expected, "{what}: every reply, in order");
}

#[test]
fn a_pipeline_written_completely_before_reading_completes() {
    const KEYS: usize = 1_000;
    let redis = Redis::start();
    // One key is read from L1, one group from Redis each time, and one group does not exist.
    let yaml = "workers: 1\ndefaults: { cache: false, compress: false }\n\
                rules:\n  - match: \"hot\"\n    cache: { admit_after: 1 }\n";
    let proxy = Shortstop::start(&redis, yaml);
    let mut neighbour = proxy.client();
    let value = noise(200, 1);
    for number in 0..KEYS {
        neighbour.call(&[b"SET", &key(number), &value]);
    }
    neighbour.call(&[b"SET", b"hot", &value]);
    proxy.warm(&mut neighbour, "hot");

    let get = |number: usize| command(&[b"GET", &key(number)]);
    let hits = command(&[b"GET", b"hot"]).repeat(REQUESTS);
    let reads: Vec<u8> = (0..REQUESTS).flat_map(|number| get(number % KEYS)).collect();
    let absent: Vec<u8> = (0..REQUESTS).flat_map(|number| get(KEYS + number)).collect();
    let writes: Vec<u8> = (0..REQUESTS).flat_map(|number| command(&[b"SET", &key(number % KEYS), &value])).collect();
    let mixed: Vec<u8> =
        (0..REQUESTS / 2).flat_map(|number| [command(&[b"GET", b"hot"]), get(number % KEYS)].concat()).collect();
    for (what, requests, expected) in [
        ("hits", hits, bulk(&value).repeat(REQUESTS)),
        ("reads", reads, bulk(&value).repeat(REQUESTS)),
        ("absent keys", absent, b"$-1\r\n".repeat(REQUESTS)),
        ("writes", writes, b"+OK\r\n".repeat(REQUESTS)),
        ("hits and reads", mixed, bulk(&value).repeat(REQUESTS)),
    ] {
        let mut client = proxy.client();
        let (sent, is_sent) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                client.send(&requests);
                // The receiver lives to the end of the scope.
                let _ = sent.send(());
                client
            });
            // Until everything is sent, and once more while the replies wait.
            while is_sent.try_recv().is_err() && !writer.is_finished() {
                assert_reply(&neighbour.cmd("GET hot"), bulk(&value), "a neighbour is served from L1");
                assert_reply(&neighbour.cmd("ECHO x"), bulk(b"x"), "a neighbour is served by Redis");
            }
            let mut client = writer.join().unwrap_or_else(|_| panic!("{what}: the pipeline is not taken"));
            assert_reply(&neighbour.cmd("ECHO y"), bulk(b"y"), "a neighbour is served by Redis");
            assert_reads(&mut client, &expected, what);
            assert_reply(&client.cmd("ECHO z"), bulk(b"z"), "the client goes on");
        });
    }
}

/// The client id.
fn id_of(client: &mut Client) -> String {
    let reply = client.cmd("CLIENT ID");
    String::from_utf8_lossy(&reply).trim_start_matches(':').trim_end().to_owned()
}

/// Bytes of replies that wait for a client, from CLIENT LIST. `None` if the client is gone.
fn waiting_for(other: &mut Client, id: &str) -> Option<usize> {
    let list = other.cmd("CLIENT LIST");
    let list = String::from_utf8_lossy(&list).into_owned();
    let line = list.lines().find(|line| line.split(' ').any(|field| field.strip_prefix("id=") == Some(id)))?;
    let field = line.split(' ').find_map(|field| field.strip_prefix("omem="))?;
    field.parse().ok()
}

/// A Shortstop with one worker, `value` in L1 as `big`, and a client.
fn with_big_value(redis: &Redis, limits: &str, value: &[u8]) -> (Process, Client) {
    with_big_value_at(redis.addr(), limits, value)
}

fn with_big_value_at(upstream: SocketAddr, limits: &str, value: &[u8]) -> (Process, Client) {
    let yaml = format!(
        "workers: 1\nlimits: {{ {limits} }}\nl1: {{ max_memory: 64mb }}\n\
         defaults:\n  compress: false\n  cache: {{ admit_after: 1, max_value: 8mb }}\n"
    );
    let proxy = Process::start(upstream, &yaml);
    let mut client = proxy.client();
    client.call(&[b"SET", b"big", value]);
    common::warm(proxy.addr(), &mut client, b"big");
    (proxy, client)
}

#[test]
fn requests_are_taken_while_their_replies_wait_up_to_output_buffer() {
    const COUNT: usize = 1_000;
    const BOUND: usize = 8 * MB;
    let redis = Redis::start();
    let value = noise(100_000, 2);
    let (proxy, mut other) = with_big_value(&redis, "output_buffer: 8mb", &value);
    // From L1, and from Redis.
    redis.client().call(&[b"RPUSH", b"list", &value]);
    let element = [&b"*1\r\n"[..], &bulk(&value)].concat();
    for (request, expected) in
        [(&[&b"GET"[..], b"big"][..], bulk(&value)), (&[b"LRANGE", b"list", b"0", b"0"], element)]
    {
        let mut client = proxy.client();
        let id = id_of(&mut client);
        client.send(&command(request).repeat(COUNT));
        let mut waiting = 0;
        wait_until("replies wait, up to the bound", || {
            waiting = waiting_for(&mut other, &id).expect("the client is still there");
            assert!(waiting <= BOUND, "{waiting} bytes wait");
            waiting > BOUND / 4 * 3
        });
        // The client is not dropped at the bound, and gets everything.
        assert_reads(&mut client, &expected.repeat(COUNT), "all replies");
        assert_reply(&client.cmd("ECHO x"), bulk(b"x"), "the client goes on");
    }
    assert_eq!(proxy.stat("proxy_clients_dropped"), 0);
    wait_until("nothing is held any more", || proxy.stat("buffers_bytes") == 0);
}

#[test]
fn a_reply_larger_than_the_rest_of_output_buffer_is_still_sent() {
    // A client that reads slowly, and hits that are nearly as large as the bound. A request taken below the bound is answered, even
    // if its reply does not fit below it.
    const ROUNDS: usize = 60;
    let redis = Redis::start();
    let value = noise(1_020_000, 3);
    let (proxy, mut client) = with_big_value(&redis, "output_buffer: 1mb", &value);
    let expected = bulk(&value);
    client.send(&command(&[b"GET", b"big"]).repeat(ROUNDS));
    for round in 0..ROUNDS {
        let mut got = vec![0; expected.len()];
        for sip in got.chunks_mut(50_000) {
            client.stream().read_exact(sip).unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
        assert!(got == expected, "round {round}");
    }
    assert_eq!(proxy.stat("proxy_clients_dropped"), 0);
}

#[test]
fn a_reply_above_output_buffer_that_is_not_read_drops_the_client() {
    let redis = Redis::start();
    let (proxy, mut other) = with_big_value(&redis, "output_buffer: 4mb", b"small");
    let element = noise(MB, 4);
    for _ in 0..64 {
        redis.client().call(&[b"RPUSH", b"list", &element]);
    }
    let mut client = proxy.client();
    client.send(&command(&[b"LRANGE", b"list", b"0", b"-1"]));
    wait_until("it is dropped", || proxy.stat("proxy_clients_dropped") == 1);
    wait_until("the log says why", || proxy.log().contains("limits.output_buffer"));
    assert_reply(&other.cmd("ECHO x"), bulk(b"x"), "others go on");
    wait_until("nothing is held any more", || proxy.stat("buffers_bytes") == 0);
}

#[test]
fn a_client_that_sends_does_not_count_as_stalled() {
    const COUNT: usize = 400;
    let redis = Redis::start();
    let value = noise(100_000, 5);
    let (proxy, _) = with_big_value(&redis, "stall_timeout: 2s", &value);
    let requests = command(&[b"GET", b"big"]).repeat(COUNT);
    let (mut sends, mut deaf) = (proxy.client(), proxy.client());
    sends.send(&requests);
    deaf.send(&requests);
    let mut more = 0;
    wait_until("the one that neither reads nor sends is dropped", || {
        sends.send(&command(&[b"ECHO", b"x"]));
        more += 1;
        proxy.stat("proxy_clients_dropped") > 0
    });
    let expected = [bulk(&value).repeat(COUNT), bulk(b"x").repeat(more)].concat();
    assert_reads(&mut sends, &expected, "the one that went on sending");
    assert_reply(&sends.cmd("ECHO y"), bulk(b"y"), "it goes on");
    deaf.until_closed();
    assert_eq!(proxy.stat("proxy_clients_dropped"), 1);
}

#[test]
fn a_client_that_waits_for_redis_does_not_count_as_stalled() {
    // The client has unread replies because it is still sending. Redis does not answer, so no more is read from the client.
    const COUNT: usize = 200;
    let redis = Redis::start();
    let wire = Fault::before(redis.addr());
    let value = noise(100_000, 9);
    let (proxy, _) = with_big_value_at(wire.addr(), "stall_timeout: 2s", &value);
    let hits = command(&[b"GET", b"big"]).repeat(COUNT);
    let (mut held_up, mut deaf) = (proxy.client(), proxy.client());
    let id = id_of(&mut held_up);
    wire.hold(Way::Down);
    let echoes = 20_000;
    held_up.send(&[hits.clone(), command(&[b"ECHO", b"x"]).repeat(echoes)].concat());
    deaf.send(&hits);
    wait_until("the one that does not read is dropped", || proxy.stat("proxy_clients_dropped") > 0);
    deaf.until_closed();
    wire.release();
    let expected = [bulk(&value).repeat(COUNT), bulk(b"x").repeat(echoes)].concat();
    assert_reads(&mut held_up, &expected, "the one that Redis held up");
    assert_eq!(id_of(&mut held_up), id, "it goes on");
    assert_eq!(proxy.stat("proxy_clients_dropped"), 1);
}

#[test]
fn all_clients_together_are_bounded_and_the_small_ones_are_served() {
    const COUNT: usize = 1_000;
    const BOUND: usize = 16 * MB;
    let redis = Redis::start();
    let value = noise(100_000, 6);
    let (proxy, mut other) = with_big_value(&redis, "buffers_total: 16mb", &value);
    assert_eq!(proxy.stat("buffers_max_bytes"), BOUND as u64);
    let requests = command(&[b"GET", b"big"]).repeat(COUNT);
    let mut first = proxy.client();
    let id = id_of(&mut first);
    first.send(&requests);
    let mut alone = 0;
    wait_until("the first is stopped", || {
        alone = waiting_for(&mut other, &id).expect("it is there");
        alone > BOUND / 8 * 7
    });
    // More clients: room is left for them, and they are stopped too.
    let mut others = [(); 3].map(|()| proxy.client());
    let ids = others.each_mut().map(id_of);
    others.iter_mut().for_each(|client| client.send(&requests));
    wait_until("the others are stopped", || {
        let held = ids.each_ref().map(|id| waiting_for(&mut other, id).expect("it is there"));
        let total = proxy.stat("buffers_bytes") as usize;
        // Each may hold as much as is always served, and the last request.
        assert!(total < BOUND + 5 * MB, "{total} bytes are held");
        assert!(held.iter().all(|held| *held < alone), "those that came later have less: {held:?}");
        held.iter().all(|held| *held >= MB)
    });
    let now = waiting_for(&mut other, &id).expect("it is there");
    assert!(now <= alone + MB, "the largest gets no more: {alone}, {now}");
    // A client that reads its replies is served all the same, however large they are. So is one that leaves few unread.
    let mut small = proxy.client();
    let all = small.pipeline(&requests, COUNT);
    assert!(all.iter().all(|reply| *reply == bulk(&value)), "served in full");
    small.send(&command(&[b"GET", b"big"]).repeat(5));
    assert_reply(&other.cmd("SET k v"), "+OK\r\n", "a write");
    assert_reads(&mut small, &bulk(&value).repeat(5), "what was left for a moment");
    // The last first, so that each must continue while others still wait.
    for client in others.iter_mut().rev().chain([&mut first]) {
        assert_reads(client, &bulk(&value).repeat(COUNT), "nothing is lost");
    }
    assert_eq!(proxy.stat("proxy_clients_dropped"), 0);
    wait_until("nothing is held any more", || proxy.stat("buffers_bytes") == 0);
}

#[test]
fn clients_that_wait_for_each_other_are_woken_when_there_is_room() {
    // Both write everything before they read. The second can only be served after the first has read, and only that may wake it.
    let redis = Redis::start();
    let value = noise(1_000, 7);
    let (proxy, mut other) = with_big_value(&redis, "buffers_total: 64mb", &value);
    let mut filler = proxy.client();
    let id = id_of(&mut filler);
    let held = 50 * MB / value.len();
    filler.send(&command(&[b"GET", b"big"]).repeat(held));
    wait_until("much is held", || waiting_for(&mut other, &id).expect("it is there") > 36 * MB);
    let mut writer = proxy.client();
    let count = 45 * MB / value.len();
    let requests = command(&[b"ECHO", &value]).repeat(count);
    std::thread::scope(|scope| {
        let sends = scope.spawn(move || {
            writer.send(&requests);
            writer
        });
        wait_until("the writer is stopped", || proxy.stat("buffers_bytes") as usize > 58 * MB);
        assert!(!sends.is_finished(), "it cannot send everything yet");
        assert_reads(&mut filler, &bulk(&value).repeat(held), "the one that was there before");
        let mut writer = sends.join().expect("all is taken when there is room");
        assert_reads(&mut writer, &bulk(&value).repeat(count), "the one that waited");
    });
    assert_eq!(proxy.stat("proxy_clients_dropped"), 0);
}

#[test]
fn uploads_that_together_exceed_the_bound_all_complete() {
    const CLIENTS: usize = 4;
    let redis = Redis::start();
    let (proxy, mut other) = with_big_value(&redis, "buffers_total: 8mb", b"small");
    let values: Vec<Vec<u8>> = (0..CLIENTS).map(|number| noise(16 * MB, number as u64)).collect();
    std::thread::scope(|scope| {
        let uploads: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(number, value)| {
                let mut client = proxy.client();
                scope.spawn(move || client.call(&[b"SET", format!("up{number}").as_bytes(), value]))
            })
            .collect();
        wait_within(6 * common::PATIENCE, "all uploads end", || {
            assert_reply(&other.cmd("GET big"), bulk(b"small"), "a small client is served");
            uploads.iter().all(|upload| upload.is_finished())
        });
        for upload in uploads {
            assert_reply(&upload.join().expect("a whole upload"), "+OK\r\n", "an upload");
        }
    });
    for (number, value) in values.iter().enumerate() {
        let stored = redis.client().cmd(&format!("GET up{number}"));
        assert!(stored == bulk(value), "upload {number} is whole");
    }
    wait_until("nothing is held any more", || proxy.stat("buffers_bytes") == 0);
}

#[test]
fn at_twice_the_bound_the_largest_client_is_dropped() {
    let redis = Redis::start();
    let (proxy, mut other) = with_big_value(&redis, "buffers_total: 4mb", b"small");
    let element = noise(MB, 8);
    for _ in 0..64 {
        redis.client().call(&[b"RPUSH", b"list", &element]);
    }
    let mut deaf = proxy.client();
    deaf.send(&command(&[b"LRANGE", b"list", b"0", b"-1"]));
    wait_until("it is dropped", || {
        assert_reply(&other.cmd("GET big"), bulk(b"small"), "a small client is served");
        proxy.stat("proxy_clients_dropped") == 1
    });
    wait_until("the log says why", || proxy.log().contains("limits.buffers_total"));
    wait_until("nothing is held any more", || proxy.stat("buffers_bytes") == 0);
}

/// Eight replies with a value that takes a few KB in Redis. Only as many as fit are decompressed before the client reads.
#[test]
fn decompression_waits_for_room() {
    const VALUES: usize = 8;
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "workers: 1\nlimits: { buffers_total: 8mb }\ndefaults: { cache: false }\n");
    let (mut client, mut other) = (proxy.client(), proxy.client());
    let value = prose(4 * MB, 1);
    assert_reply(&client.call(&[b"SET", b"large", &value]), "+OK\r\n", "it is stored compressed");
    assert!(redis.client().cmd("STRLEN large").len() < 12, "it is small there");
    client.send(&pipeline_of(&["GET large"; VALUES]));
    // Two ticks later a client above twice the bound would have been dropped.
    proxy.wait_stat("buffers_bytes", |bytes| bytes > 0);
    for _ in 0..10 {
        std::thread::sleep(std::time::Duration::from_millis(60));
        assert!(proxy.stat("buffers_bytes") < 20 * MB as u64, "one at a time is decompressed");
        assert_reply(&other.cmd("ECHO x"), bulk(b"x"), "others are served");
    }
    assert_eq!(proxy.stat("proxy_clients_dropped"), 0);
    for _ in 0..VALUES {
        assert!(client.reply() == bulk(&value), "the value");
    }
    proxy.wait_stat("buffers_offloaded_bytes", |bytes| bytes == 0);
}

/// Publishes until Shortstop drops the subscriber, which reads nothing.
fn publish_until_dropped(proxy: &Shortstop, what: &str) {
    let mut subscriber = proxy.client();
    subscriber.cmd("SUBSCRIBE news");
    let mut publisher = proxy.client();
    let message = noise(100 << 10, 1);
    wait_until(what, || {
        publisher.call(&[b"PUBLISH", b"news", &message]);
        proxy.stat("proxy_clients_dropped") == 1
    });
}

#[test]
fn a_subscriber_that_does_not_read_is_dropped_above_its_own_limit() {
    let redis = Redis::start();
    let limits = "pubsub_buffer: 1mb, pubsub_buffer_soft: 0";
    let proxy = Shortstop::start(&redis, &format!("limits: {{ {limits} }}\ndefaults: {{ compress: false }}\n"));
    // Replies have another limit.
    let mut reader = proxy.client();
    let value = noise(MB, 2);
    reader.call(&[b"SET", b"k", &value]);
    reader.send(&pipeline_of(&["GET k"; 16]));
    publish_until_dropped(&proxy, "it is dropped at once");
    for _ in 0..16 {
        assert!(reader.reply() == bulk(&value), "the value");
    }
    assert_eq!(proxy.stat("proxy_clients_dropped"), 1);
}

#[test]
fn a_subscriber_above_the_soft_limit_for_too_long_is_dropped() {
    let redis = Redis::start();
    let limits = "pubsub_buffer: 0, pubsub_buffer_soft: 512kb, pubsub_buffer_time: 300ms";
    let proxy = Shortstop::start(&redis, &format!("limits: {{ {limits} }}\n"));
    publish_until_dropped(&proxy, "it is dropped after a while");
}
