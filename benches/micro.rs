//! `cargo bench --bench micro`: the time of one request in each step, without sockets. Compares two versions of Shortstop, and
//! nothing else.

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use shortstop::command::Table;
use shortstop::config::{self, Config};
use shortstop::metrics::rules::RulePlace;
use shortstop::near_cache::{Entry, EntryId, HotSet, NearCache, Question, Times};
use shortstop::resp::{ReplyScanner, ScanLimits, Scanner, Version};
use shortstop::rules::Rules;

const LIMITS: ScanLimits = ScanLimits { bulk_length: 512 << 20, arguments: 1 << 20, line_length: 64 << 10 };
const KEYS: u32 = 10_000;

fn key(number: u32) -> Vec<u8> {
    format!("market_data:BTCUSDT:{number}").into_bytes()
}

fn entry(question: &Question<'_>) -> (EntryId, Entry) {
    let times = Times { generation: 0, sent: 0, deadline: u64::MAX };
    (question.id(), Entry::new(times, question, &[b'x'; 256], None, RulePlace::DEFAULTS))
}

fn scanner(bench: &mut Criterion) {
    let mut scanner = Scanner::default();
    let get = b"*2\r\n$3\r\nGET\r\n$21\r\nmarket_data:BTCUSDT:1\r\n";
    bench.bench_function("scan a GET", |bench| {
        bench.iter(|| {
            scanner.forget();
            scanner.scan(black_box(get), &LIMITS)
        });
    });
    let reply = [&b"$256\r\n"[..], &[b'x'; 256], b"\r\n"].concat();
    bench.bench_function("find the end of a reply of 256 bytes", |bench| {
        bench.iter(|| ReplyScanner::default().scan(black_box(&reply)));
    });
}

/// Calls `ask` with every number in turn, far apart.
fn each<T>(mut ask: impl FnMut(usize) -> T) -> impl FnMut() -> T {
    let mut next = 0;
    move || {
        next = (next + 7_919) % KEYS as usize;
        ask(next)
    }
}

fn memory(bench: &mut Criterion) {
    let bounds = config::L1::default();
    let near = NearCache::new(&bounds, Instant::now(), |_, _, _| {});
    let hot_set = || HotSet::new(bounds.hot_entries, bounds.hot_max_value);
    let (mut values, mut replies) = (hot_set(), hot_set());
    let keys: Vec<Vec<u8>> = (0..KEYS).map(key).collect();
    let requests: Vec<Vec<u8>> =
        keys.iter().map(|key| [b"*3\r\n$4\r\nHGET\r\n$24\r\n", &key[..], b"\r\n$5\r\nfield\r\n"].concat()).collect();
    let get = |at: usize| Question::get(0, 0, black_box(&keys[at]));
    let hget = |at: usize| {
        let request = black_box(&requests[at]);
        Question::other(0, 0, &keys[at], Version::Resp2, request).expect("short")
    };
    for at in 0..KEYS as usize {
        let (id, value) = entry(&get(at));
        values.put(id, &value);
        near.insert(id, value);
        let (id, reply) = entry(&hget(at));
        replies.put(id, &reply);
    }
    let found = |hot: &mut HotSet, question: Question<'_>| {
        hot.get(question.id()).is_some_and(|hot| hot.entry.is_valid() && hot.entry.answers(&question))
    };
    bench.bench_function("hash a key and find it in the hot set", |bench| {
        bench.iter(each(|at| found(&mut values, get(at))));
    });
    bench.bench_function("hash an HGET and find it in the hot set", |bench| {
        bench.iter(each(|at| found(&mut replies, hget(at))));
    });
    bench.bench_function("hash a key and find it in the near cache", |bench| {
        bench.iter(each(|at| {
            let question = get(at);
            near.get(question.id()).is_some_and(|entry| entry.is_valid() && entry.answers(&question))
        }));
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
