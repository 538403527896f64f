//! The data of a trading service: which keys there are, how often each is asked for, what their values look
//! like. Pure: a seed in, keys and JSON out.

use serde_json::{Value, json};

const SYMBOLS: [&str; 12] = [
    "BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT", "LTCUSDT", "DOTUSDT", "LINKUSDT",
    "AVAXUSDT", "TRXUSDT",
];
const TIMEFRAMES: [&str; 5] = ["1m", "5m", "15m", "1h", "1d"];

/// The key that crossings are shown on. Nobody else writes it, everybody reads it.
pub const SHOWN: &str = "market_data:BTCUSDT:1h";

/// How long Redis keeps candles, signals and order books: seconds.
const CANDLES_TTL: u32 = 3600;
const SIGNALS_TTL: u32 = 1800;
const BOOK_TTL: u32 = 60;

/// One key with a new value.
pub struct Quote {
    /// The key.
    pub key: String,
    /// JSON text.
    pub value: String,
    /// Time to live in Redis, seconds.
    pub ttl: u32,
}

/// A seeded source of keys and values (xorshift64*: good enough to look like a market, and repeatable).
pub struct Market {
    state: u64,
    version: u64,
}

impl Market {
    /// Two markets with the same seed say the same.
    pub fn new(seed: u64) -> Self {
        Self {
            // The generator must not start at 0.
            state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            version: 0,
        }
    }

    /// Every key once, to begin with.
    pub fn all(&mut self) -> Vec<Quote> {
        let mut quotes = Vec::new();
        for symbol in SYMBOLS {
            quotes.extend(TIMEFRAMES.map(|timeframe| self.candles(symbol, timeframe)));
            quotes.push(self.book(symbol));
            quotes.push(self.signal(symbol));
        }
        quotes
    }

    /// The next write: mostly order books, as on an exchange.
    pub fn update(&mut self) -> Quote {
        let symbol = self.symbol();
        match self.below(10) {
            0 => self.signal(symbol),
            1..=3 => {
                let timeframe = TIMEFRAMES[self.below(TIMEFRAMES.len())];
                let quote = self.candles(symbol, timeframe);
                if quote.key == SHOWN { self.book(symbol) } else { quote }
            }
            _ => self.book(symbol),
        }
    }

    /// The key of the next read: mostly candles, and mostly those of the first symbols.
    pub fn wanted(&mut self) -> String {
        let symbol = self.symbol();
        match self.below(10) {
            0 => format!("signals:{symbol}:latest"),
            1 | 2 => format!("orderbook:{symbol}"),
            _ => format!("market_data:{symbol}:{}", TIMEFRAMES[self.below(TIMEFRAMES.len())]),
        }
    }

    /// [`SHOWN`] at a version of the caller's.
    pub fn shown(&mut self, version: u64) -> Quote {
        self.version = version - 1;
        self.candles("BTCUSDT", "1h")
    }

    /// Between about 1 and 4 KB.
    fn candles(&mut self, symbol: &str, timeframe: &str) -> Quote {
        let count = 10 + self.below(30);
        let mut price = self.price(symbol);
        let candles: Vec<Value> = (0..count)
            .map(|n| {
                let open = price;
                price *= 1.0 + (self.unit() - 0.5) / 100.0;
                json!({
                    "time": 1_700_000_000 + n * 3600,
                    "open": cents(open),
                    "high": cents(open.max(price) * (1.0 + self.unit() / 500.0)),
                    "low": cents(open.min(price) * (1.0 - self.unit() / 500.0)),
                    "close": cents(price),
                    "volume": cents(self.unit() * 1000.0),
                })
            })
            .collect();
        self.version += 1;
        Quote {
            key: format!("market_data:{symbol}:{timeframe}"),
            value: json!({"symbol": symbol, "timeframe": timeframe, "version": self.version, "candles": candles})
                .to_string(),
            ttl: CANDLES_TTL,
        }
    }

    fn book(&mut self, symbol: &str) -> Quote {
        let price = self.price(symbol);
        let mut levels = |away: f64| -> Vec<[f64; 2]> {
            (1..=20)
                .map(|n| [cents(price * (1.0 + away * f64::from(n) / 10_000.0)), cents(self.unit() * 50.0)])
                .collect()
        };
        let (bids, asks) = (levels(-1.0), levels(1.0));
        self.version += 1;
        Quote {
            key: format!("orderbook:{symbol}"),
            value: json!({"symbol": symbol, "version": self.version, "bids": bids, "asks": asks}).to_string(),
            ttl: BOOK_TTL,
        }
    }

    fn signal(&mut self, symbol: &str) -> Quote {
        let side = if self.below(2) == 0 { "buy" } else { "sell" };
        self.version += 1;
        Quote {
            key: format!("signals:{symbol}:latest"),
            value: json!({
                "symbol": symbol,
                "version": self.version,
                "side": side,
                "strength": cents(self.unit()),
                "indicators": {"rsi": cents(self.unit() * 100.0), "macd": cents(self.unit() - 0.5)},
            })
            .to_string(),
            ttl: SIGNALS_TTL,
        }
    }

    /// The cube of an even choice: the first symbol is asked for most.
    fn symbol(&mut self) -> &'static str {
        let place = self.unit().powi(3) * SYMBOLS.len() as f64;
        SYMBOLS[(place as usize).min(SYMBOLS.len() - 1)]
    }

    fn price(&mut self, symbol: &str) -> f64 {
        let base = symbol.bytes().map(u64::from).sum::<u64>() as f64;
        base * (1.0 + self.unit() / 50.0)
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// 0 ≤ x < 1.
    fn unit(&mut self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.unit() * limit as f64) as usize
    }
}

fn cents(price: f64) -> f64 {
    (price * 100.0).round() / 100.0
}

/// The number in `"version":…` of a value made here.
pub fn version_of(value: &[u8]) -> Option<u64> {
    let parsed: Value = serde_json::from_slice(value).ok()?;
    parsed.get("version")?.as_u64()
}
