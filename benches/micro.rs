//! `cargo bench --bench micro`: what one request costs on its way, without sockets. For before and after, not for a comparison with
//! anything else.

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use shortstop::command::Table;
use shortstop::config::{self, Config};
use shortstop::near_cache::{Entry, HotSet, KeyId, NearCache, Times};
use shortstop::resp::{Args, ReplyScanner, Resume, ScanLimits, scan};
use shortstop::rules::Rules;

const LIMITS: ScanLimits = ScanLimits { bulk_length: 512 << 20, arguments: 1 << 20, line_length: 64 << 10 };
const KEYS: u32 = 10_000;

fn key(number: u32) -> Vec<u8> {
    format!("market_data:BTCUSDT:{number}").into_bytes()
}

fn entry(number: u32) -> (KeyId, Entry) {
    let key = key(number);
    let times = Times { generation: 0, sent: 0, deadline: u64::MAX };
    (KeyId::new(0, &key), Entry::new(times, 0, &key, &[b'x'; 256]))
}

fn scanner(bench: &mut Criterion) {
    let mut args = Args::new();
    let get = b"*2\r\n$3\r\nGET\r\n$21\r\nmarket_data:BTCUSDT:1\r\n";
    bench.bench_function("scan a GET", |bench| {
        bench.iter(|| {
            args.clear();
            scan(black_box(get), &LIMITS, &mut args, &mut Resume::default())
        });
    });
    let reply = [&b"$256\r\n"[..], &[b'x'; 256], b"\r\n"].concat();
    bench.bench_function("find the end of a reply of 256 bytes", |bench| {
        bench.iter(|| ReplyScanner::default().scan(black_box(&reply)));
    });
}

fn memory(bench: &mut Criterion) {
    let bounds = config::L1::default();
    let near = NearCache::new(&bounds, Instant::now(), |_, _, _| {});
    let mut hot = HotSet::new(bounds.hot_entries, bounds.hot_max_value);
    for number in 0..KEYS {
        let (id, entry) = entry(number);
        hot.put(id, &entry);
        near.insert(id, entry);
    }
    let keys: Vec<Vec<u8>> = (0..KEYS).map(key).collect();
    let mut next = 0;
    let mut any = move || {
        // Every key in turn, far apart.
        next = (next + 7_919) % keys.len();
        KeyId::new(0, black_box(&keys[next]))
    };
    bench.bench_function("hash a key and find it in the hot set", |bench| {
        bench.iter(|| hot.get(any()).map(|hot| hot.entry.is_valid()));
    });
    bench.bench_function("hash a key and find it in the near cache", |bench| {
        bench.iter(|| near.get(any()).map(|entry| entry.is_valid()));
    });
}

fn tables(bench: &mut Criterion) {
    let table = Table::builtin();
    bench.bench_function("find a command", |bench| bench.iter(|| table.get(black_box(b"zrangebyscore"))));
    let yaml =
        "rules: [{ match: 'session:*' }, { match: '*:lock' }, { match: 'order?ook:*' }, { match: 'market_data:*' }]";
    let rules = Rules::compile(&Config::from_yaml(yaml).expect("sound"));
    bench.bench_function("find the rule of a key, the last of four", |bench| {
        bench.iter(|| rules.of(black_box(b"market_data:BTCUSDT:1h")).watch);
    });
}

criterion_group!(benches, scanner, memory, tables);
criterion_main!(benches);
