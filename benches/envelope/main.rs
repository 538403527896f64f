//! The time to compress and to decompress one value, and what that saves: JSON of several kinds and sizes, and noise, for which the
//! compressor gives up.

mod values;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shortstop::codec::{Codec, CompressOptions, compress, compress_with, decode, decode_with, train};

/// Values of one kind, so that no compressor sees the same one twice in a row.
const VALUES: u64 = 50;

const WAYS: [(Codec, u32); 5] =
    [(Codec::Gzip, 1), (Codec::Gzip, 3), (Codec::Gzip, 6), (Codec::Zstd, 1), (Codec::Zstd, 3)];

fn kinds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let candles = |len| (0..VALUES).map(|at| values::candles(len, at * 977)).collect();
    vec![
        ("signal", (0..VALUES).map(values::signal).collect()),
        ("candles 512 B", candles(512)),
        ("candles 1 KB", candles(1 << 10)),
        ("candles 4 KB", candles(4 << 10)),
        ("candles 64 KB", candles(64 << 10)),
        ("order book", (0..VALUES).map(values::order_book).collect()),
    ]
}

fn how((codec, level): (Codec, u32)) -> CompressOptions {
    CompressOptions { codec, level, min_size: 0, min_saving: 0 }
}

fn bytes(values: &[Vec<u8>]) -> usize {
    values.iter().map(Vec::len).sum()
}

/// Small values with a dictionary, trained on others of their kind.
fn with_a_dictionary(c: &mut Criterion) {
    let mut group = c.benchmark_group("with a dictionary");
    for kind in ["signal", "candles 512 B", "candles 1 KB"] {
        let value = |at| match kind {
            "signal" => values::signal(at),
            "candles 512 B" => values::candles(512, at * 977),
            _ => values::candles(1 << 10, at * 977),
        };
        let samples: Vec<Vec<u8>> = (1_000..2_000).map(value).collect();
        let dictionary = train(&samples, 1).expect("they have much in common");
        let (how, values): (_, Vec<Vec<u8>>) = (how((Codec::Zstd, 1)), (0..VALUES).map(value).collect());
        let compress = |value: &Vec<u8>| compress_with(value, Some(&how), Some(&dictionary)).expect("it saves");
        let envelopes: Vec<Vec<u8>> = values.iter().map(compress).collect();
        let saved = 100.0 - bytes(&envelopes) as f64 * 100.0 / bytes(&values) as f64;
        group.throughput(Throughput::Bytes(bytes(&values) as u64 / VALUES));
        let mut next = values.iter().cycle();
        let name = format!("compress, {} bytes, {saved:.1} % saved", dictionary.bytes().len());
        group.bench_function(BenchmarkId::new(name, kind), |b| {
            b.iter(|| compress(black_box(next.next().expect("a cycle has no end"))))
        });
        let mut next = envelopes.iter().cycle();
        group.bench_function(BenchmarkId::new("decompress", kind), |b| {
            b.iter(|| decode_with(black_box(next.next().expect("a cycle has no end")), 1 << 20, Some(&dictionary)))
        });
    }
}

fn compressing(c: &mut Criterion) {
    let mut group = c.benchmark_group("compress");
    for (kind, values) in kinds() {
        group.throughput(Throughput::Bytes(bytes(&values) as u64 / VALUES));
        for way in WAYS {
            let how = how(way);
            let stored: usize =
                values.iter().map(|value| compress(value, Some(&how)).map_or(value.len(), |it| it.len())).sum();
            let saved = 100.0 - stored as f64 * 100.0 / bytes(&values) as f64;
            let mut next = values.iter().cycle();
            group.bench_function(BenchmarkId::new(format!("{} {}, {saved:.1} % saved", way.0, way.1), kind), |b| {
                b.iter(|| compress(black_box(next.next().expect("a cycle has no end")), Some(&how)))
            });
        }
    }
    let noise = values::noise(4 << 10);
    for way in [(Codec::Gzip, 3), (Codec::Zstd, 1)] {
        group.bench_function(BenchmarkId::new(format!("{} {}, given up", way.0, way.1), "noise 4 KB"), |b| {
            b.iter(|| compress(black_box(&noise), Some(&how(way))))
        });
    }
}

fn decompressing(c: &mut Criterion) {
    let mut group = c.benchmark_group("decompress");
    for (kind, values) in kinds() {
        group.throughput(Throughput::Bytes(bytes(&values) as u64 / VALUES));
        for way in [(Codec::Gzip, 3), (Codec::Zstd, 1)] {
            let compressed: Vec<Vec<u8>> = values.iter().filter_map(|value| compress(value, Some(&how(way)))).collect();
            let mut next = compressed.iter().cycle();
            group.bench_function(BenchmarkId::new(format!("{} {}", way.0, way.1), kind), |b| {
                b.iter(|| decode(black_box(next.next().expect("a cycle has no end")), 1 << 20))
            });
        }
    }
}

criterion_group!(benches, compressing, decompressing, with_a_dictionary);
criterion_main!(benches);
