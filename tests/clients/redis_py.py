"""Drives Shortstop through redis-py, as an application would: argument 1 is the URL.

Uses only what the library documents, checks every answer, and prints one line per part that held.
"""

import sys
import threading
import time
import zlib

import redis

URL = sys.argv[1]


def connect(**more):
    return redis.Redis.from_url(URL, protocol=2, **more)


def strings(r):
    assert r.set("s", "value") is True
    assert r.get("s") == b"value"
    assert r.set("s", "other", nx=True) is None
    assert r.set("s", "new", get=True) == b"value"
    assert r.get("absent") is None
    assert r.mset({"a": 1, "b": 2}) is True
    assert r.mget("a", "b", "absent") == [b"1", b"2", None]
    assert r.incr("n") == 1 and r.incrby("n", 41) == 42
    assert r.append("s", "!") == 4 and r.strlen("s") == 4
    assert r.getrange("s", 0, 2) == b"new"
    assert r.setex("e", 100, "v") is True and 0 < r.ttl("e") <= 100
    assert r.getdel("e") == b"v" and r.exists("e") == 0
    assert connect(decode_responses=True).get("s") == "new!"


def large_values(r):
    text = b'{"symbol": "BTCUSDT", "price": 64123.5},' * 5_000
    binary = bytes(range(256)) * 40 + zlib.compress(text)
    for value in (text, binary, b""):
        r.set("large", value)
        for _ in range(4):
            assert r.get("large") == value
            assert r.mget("large", "absent") == [value, None]


def every_type(r):
    assert r.rpush("l", 1, 2, 3) == 3 and r.lrange("l", 0, -1) == [b"1", b"2", b"3"]
    assert r.hset("h", mapping={"f": "v", "g": 1}) == 2 and r.hgetall("h") == {b"f": b"v", b"g": b"1"}
    # A hash whose values look like a message of publish and subscribe.
    assert r.hset("m", mapping={"type": "message", "from": "alice", "text": "hi"}) == 3
    assert r.hmget("m", "type", "from", "text") == [b"message", b"alice", b"hi"]
    assert r.sadd("set", "x", "y") == 2 and r.smembers("set") == {b"x", b"y"}
    assert r.zadd("z", {"a": 1, "b": 2.5}) == 2
    assert r.zrange("z", 0, -1, withscores=True) == [(b"a", 1.0), (b"b", 2.5)]
    assert r.xadd("st", {"f": "v"}, id="1-1") == b"1-1" and r.xlen("st") == 1
    assert r.type("h") == b"hash" and r.delete("l", "h", "absent") == 2
    assert sorted(r.scan_iter("*", count=5)) == sorted(r.keys("*"))


def pipelines(r):
    with r.pipeline(transaction=False) as p:
        for i in range(5_000):
            p.set(f"p:{i % 50}", i).get(f"p:{i % 50}")
        got = p.execute()
    assert got == [x for i in range(5_000) for x in (True, str(i).encode())]
    with r.pipeline(transaction=True) as p:
        assert p.set("t", 1).incr("t").get("t").mget("t", "absent").execute() == [True, 2, b"2", [b"2", None]]
    with r.pipeline(transaction=False) as p:
        got = p.set("s", "text").incr("s").get("s").execute(raise_on_error=False)
    assert got[0] is True and isinstance(got[1], redis.ResponseError) and got[2] == b"text"


def a_pipeline_that_is_sent_whole_before_it_is_read(r):
    count = 120_000
    for i in range(100):
        r.set(f"{i:040}", "v" * 200)
    with r.pipeline(transaction=False) as p:
        for i in range(count):
            p.get(f"{i % 200:040}")
        got = p.execute()
    assert got == [b"v" * 200 if i % 200 < 100 else None for i in range(count)]


def optimistic_locking(r):
    r.set("counter", 0)

    def count():
        mine = connect()
        for _ in range(20):
            mine.transaction(lambda p: (lambda n: (p.multi(), p.set("counter", n + 1)))(int(p.get("counter"))), "counter")

    threads = [threading.Thread(target=count) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert r.get("counter") == b"80", r.get("counter")


def publish_and_subscribe(r):
    sub = r.pubsub(ignore_subscribe_messages=True)
    sub.subscribe("news")
    sub.psubscribe("n*")
    deadline = time.monotonic() + 10
    while r.pubsub_numsub("news") != [(b"news", 1)] or r.pubsub_numpat() != 1:
        assert time.monotonic() < deadline
        sub.get_message(timeout=0.01)
    assert r.publish("news", "hello") == 2
    got = set()
    while len(got) < 2:
        assert time.monotonic() < deadline
        message = sub.get_message(timeout=1)
        if message:
            got.add((message["type"], message["data"]))
    assert got == {("message", b"hello"), ("pmessage", b"hello")}
    sub.close()


def blocking(r):
    result = []
    other = threading.Thread(target=lambda: result.append(connect().blpop("queue", timeout=10)))
    other.start()
    r.rpush("queue", "job")
    other.join()
    assert result == [(b"queue", b"job")]
    assert r.blpop("queue", timeout=0.05) is None


def scripts(r):
    put = r.register_script("redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])")
    r.set("by-script", "before")
    [r.get("by-script") for _ in range(3)]
    assert put(keys=["by-script"], args=["after"]) == b"after"
    assert r.get("by-script") == b"after"


def locks(r):
    with r.lock("a-lock", timeout=10):
        assert not connect().lock("a-lock", timeout=10).acquire(blocking=False)
    assert r.exists("a-lock") == 0


def databases(r):
    other = connect(db=5)
    other.set("where", "five")
    r.set("where", "zero")
    assert (r.get("where"), other.get("where")) == (b"zero", b"five")


def errors(r):
    r.rpush("list", 1)
    for call in (lambda: r.get("list"), lambda: r.execute_command("NOSUCH"), lambda: r.execute_command("GET")):
        try:
            call()
        except redis.ResponseError:
            continue
        raise AssertionError("an error was expected")
    assert r.ping() is True


def what_it_says_of_itself(r):
    info = r.info()
    assert info["redis_version"] and int(info["l1_hits"]) > 0
    assert "redis_version" in r.info("server")
    assert r.client_setname("me") is True and r.client_getname() == "me"
    assert b"l1_hits:" in r.execute_command("PROXY", "INFO")
    assert r.config_get("maxmemory") and r.dbsize() > 0


r = connect(max_connections=50)
r.flushall()
for part in (strings, large_values, every_type, pipelines,
             a_pipeline_that_is_sent_whole_before_it_is_read, optimistic_locking, publish_and_subscribe, blocking,
             scripts, locks, databases, errors, what_it_says_of_itself):
    part(r)
    print("ok", part.__name__, flush=True)
