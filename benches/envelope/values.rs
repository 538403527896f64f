//! Values as a trading system caches them, in JSON: candles, order books, signals; and noise.

use std::fmt::Write;

/// A repeatable sequence of numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    /// A price in dollars, with cents.
    fn price(&mut self, near: f64) -> f64 {
        near * (1.0 + (self.below(2_001) as f64 - 1_000.0) / 1e6)
    }
}

const SYMBOLS: [&str; 8] = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT", "LINKUSDT"];
const TIMEFRAMES: [&str; 5] = ["1m", "5m", "15m", "1h", "4h"];

/// Candles up to `len` bytes, cut there. `seed`: which.
pub fn candles(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (seed + 1));
    let (mut out, mut price) = (String::from("["), 100.0 + random.below(6_000_000) as f64 / 100.0);
    for minute in 0.. {
        let open = price;
        price = random.price(price);
        let beyond = |random: &mut Random| 1.0 + random.below(500) as f64 / 1e6;
        let (high, low) = (open.max(price) * beyond(&mut random), open.min(price) / beyond(&mut random));
        let volume = random.below(100_000_000) as f64 / 1e5;
        let time = 1_700_000_000 + (seed + minute) * 60;
        write!(
            out,
            r#"{{"timestamp":{time},"open":{open:.2},"high":{high:.2},"low":{low:.2},"close":{price:.2},"volume":{volume:.5}}},"#
        )
        .expect("writing to a String does not fail");
        if out.len() >= len {
            break;
        }
    }
    out.truncate(len);
    out.into_bytes()
}

/// An order book of about 2.5 KB.
pub fn order_book(seed: u64) -> Vec<u8> {
    let mut random = Random(0x2545_f491_4f6c_dd1d ^ (seed + 1));
    let symbol = SYMBOLS[seed as usize % SYMBOLS.len()];
    let middle = 100.0 + random.below(6_000_000) as f64 / 100.0;
    let mut out = format!(r#"{{"symbol":"{symbol}","lastUpdateId":{},"#, 40_000_000_000 + random.below(1 << 30));
    for (side, sign) in [("bids", -1.0), ("asks", 1.0)] {
        write!(out, r#""{side}":["#).expect("writing to a String does not fail");
        let mut price = middle;
        for level in 0..46 {
            price += sign * (1 + random.below(40)) as f64 / 100.0;
            let (comma, amount) = (if level > 0 { "," } else { "" }, random.below(100_000_000) as f64 / 1e7);
            write!(out, r#"{comma}["{price:.2}","{amount:.5}000"]"#).expect("writing to a String does not fail");
        }
        out.push_str(if sign < 0.0 { "]," } else { "]}" });
    }
    out.into_bytes()
}

/// A signal of 260 to 320 bytes.
pub fn signal(seed: u64) -> Vec<u8> {
    let mut random = Random(0xda94_2042_e4dd_58b5 ^ (seed + 1));
    let price = 100.0 + random.below(6_000_000) as f64 / 100.0;
    let part = |random: &mut Random| random.below(10_000) as f64 / 1e4;
    format!(
        r#"{{"symbol":"{}","timeframe":"{}","action":"{}","strategy":"{}","price":{price:.2},"confidence":{:.4},"stop_loss":{:.2},"take_profit":{:.2},"indicators":{{"rsi":{:.2},"macd":{:.4},"ema_fast":{:.2},"ema_slow":{:.2}}},"timestamp":"2023-11-14T22:{:02}:{:02}.{:06}","valid":true}}"#,
        SYMBOLS[random.below(8) as usize],
        TIMEFRAMES[random.below(5) as usize],
        ["BUY", "SELL", "HOLD"][random.below(3) as usize],
        ["ema_cross", "rsi_reversal", "breakout"][random.below(3) as usize],
        part(&mut random),
        price * 0.98,
        price * 1.04,
        part(&mut random) * 100.0,
        part(&mut random) * 20.0 - 10.0,
        random.price(price),
        random.price(price),
        random.below(60),
        random.below(60),
        random.below(1_000_000),
    )
    .into_bytes()
}

/// Bytes that cannot be compressed.
pub fn noise(len: usize) -> Vec<u8> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    std::iter::repeat_with(|| random.below(256) as u8).take(len).collect()
}
