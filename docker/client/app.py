"""A service as it stands: it caches market data in Redis and knows nothing but REDIS_URL.

Each second it reads a lot, writes a little, and says how it went.
"""

import json
import os
import random
import signal
import sys
import time

import redis

SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT"]
TIMEFRAMES = ["1m", "1h", "1d"]
READS_PER_SECOND = 500
WRITES_PER_SECOND = 10
TTL_SECONDS = 3600


def candles(symbol: str, timeframe: str) -> str:
    """One value: some KB of JSON."""
    price = random.uniform(100, 50_000)
    rows = []
    for _ in range(30):
        close = price * random.uniform(0.99, 1.01)
        rows.append({"open": round(price, 2), "close": round(close, 2), "volume": round(random.uniform(1, 999), 2)})
        price = close
    return json.dumps({"symbol": symbol, "timeframe": timeframe, "written": time.time(), "candles": rows})


def one_second(client: redis.Redis) -> str:
    """The work of one second, and a line about it."""
    keys = [f"market_data:{symbol}:{timeframe}" for symbol in SYMBOLS for timeframe in TIMEFRAMES]
    began = time.monotonic()
    for key in random.sample(keys, WRITES_PER_SECOND):
        _, symbol, timeframe = key.split(":")
        client.setex(key, TTL_SECONDS, candles(symbol, timeframe))
    found = 0
    for _ in range(READS_PER_SECOND):
        value = client.get(random.choice(keys))
        if value is not None:
            json.loads(value)
            found += 1
    took = time.monotonic() - began
    time.sleep(max(0.0, 1.0 - took))
    return f"{WRITES_PER_SECOND} writes, {READS_PER_SECOND} reads ({found} found) in {took * 1000:.0f} ms"


def main() -> None:
    """Until told to stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    client = redis.Redis.from_url(os.environ["REDIS_URL"])
    while True:
        try:
            print(one_second(client))
        except redis.RedisError as error:
            print(f"redis: {error}")
            time.sleep(1)


if __name__ == "__main__":
    main()
