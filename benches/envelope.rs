//! The time to compress and to decompress one value: JSON of several sizes, and noise of the same sizes, for which the compressor
//! gives up.

use std::fmt::Write;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shortstop::codec::{Codec, CompressOptions, compress, decode};

const SIZES: [usize; 3] = [1 << 10, 4 << 10, 66 << 10];

/// Price candles as a market data service stores them, cut at `len` bytes; 1 KB of them saves about 55 % at level 3.
fn candles(len: usize) -> Vec<u8> {
    let mut out = String::with_capacity(len + 128);
    let (mut random, mut price) = (88_172_645_463_325_252_u64, 6_000_000_u64);
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % 10_000
    };
    for minute in 0u64.. {
        price = price + next() - 5_000;
        let (high, low) = (price + next() / 4, price - next() / 4);
        write!(
            out,
            r#"{{"t":{},"o":{}.{:02},"h":{}.{:02},"l":{}.{:02},"v":{}.{:04}}},"#,
            1_700_000_000_000 + minute * 60_000,
            price / 100,
            price % 100,
            high / 100,
            high % 100,
            low / 100,
            low % 100,
            next() / 100,
            next(),
        )
        .expect("writing to a String does not fail");
        if out.len() >= len {
            break;
        }
    }
    out.truncate(len);
    out.into_bytes()
}

/// Bytes that cannot be compressed (xorshift64*).
fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn how(codec: Codec, level: u32) -> CompressOptions {
    CompressOptions { codec, level, min_size: 1024, min_saving: 10 }
}

fn compressing(c: &mut Criterion) {
    let mut group = c.benchmark_group("compress");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let (json, noise) = (candles(size), noise(size));
        let levels = [(Codec::Gzip, 1), (Codec::Gzip, 3), (Codec::Gzip, 6), (Codec::Zstd, 1), (Codec::Zstd, 3)];
        for (codec, level) in levels {
            group.bench_function(BenchmarkId::new(format!("json {codec} {level}"), size), |b| {
                b.iter(|| compress(black_box(&json), Some(&how(codec, level))))
            });
        }
        for (codec, level) in [(Codec::Gzip, 3), (Codec::Zstd, 1)] {
            group.bench_function(BenchmarkId::new(format!("noise {codec} {level}, given up"), size), |b| {
                b.iter(|| compress(black_box(&noise), Some(&how(codec, level))))
            });
        }
    }
}

fn decompressing(c: &mut Criterion) {
    let mut group = c.benchmark_group("decompress");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        for (codec, level) in [(Codec::Gzip, 3), (Codec::Zstd, 1)] {
            let compressed = compress(&candles(size), Some(&how(codec, level))).expect("JSON saves more than a tenth");
            let saved = 100 - compressed.len() * 100 / size;
            group.bench_function(BenchmarkId::new(format!("json {codec} {level}, {saved} % saved"), size), |b| {
                b.iter(|| decode(black_box(&compressed), size))
            });
        }
    }
}

criterion_group!(benches, compressing, decompressing);
criterion_main!(benches);
