"""redis-py, blocking, as an application uses it. Argument: the protocol, 2 or 3; none: what the library takes by itself."""

import os
import sys
import threading
import time

import redis
from redis.cache import CacheConfig
from report import URL, Skip, refused, restart, run

PROTOCOL = {"protocol": int(sys.argv[1])} if len(sys.argv) > 1 else {}
# What the library speaks when nothing is said changed with 8.0.
RESP3 = PROTOCOL.get("protocol", 3 if int(redis.__version__.split(".")[0]) >= 8 else 2) == 3


def client(**more):
    return redis.Redis.from_url(URL, **{"socket_timeout": 20, **PROTOCOL, **more})


r = client()


def connect():
    assert r.ping() is True
    assert r.info("server")["redis_version"]
    assert r.command_count() > 200 and "get" in r.command()
    pool = redis.ConnectionPool.from_url(URL, max_connections=10, **PROTOCOL)
    shared = redis.Redis(connection_pool=pool)
    threads = [threading.Thread(target=lambda: [shared.incr("connect:n") for _ in range(50)]) for _ in range(10)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert r.get("connect:n") == b"500"
    pool.disconnect()
    assert client(decode_responses=True, client_name="me").client_getname() == "me"


def strings():
    for value in (b"text", b"", bytes(range(256)), "grüße".encode(), b"x" * 5000, b"a\r\nb\r\n"):
        assert r.set("strings:k", value) is True
        for _ in range(4):
            assert r.get("strings:k") == value
        assert r.mget("strings:k", "strings:none") == [value, None]
    assert r.get("strings:none") is None
    assert r.set("strings:k", "v", nx=True) is None
    assert r.set("strings:k", "v", get=True) == b"a\r\nb\r\n"
    assert r.incrby("strings:n", 42) == 42
    assert r.setex("strings:e", 100, "v") is True and 0 < r.ttl("strings:e") <= 100
    assert r.getdel("strings:e") == b"v" and r.exists("strings:e") == 0


def pipeline():
    with r.pipeline(transaction=False) as p:
        for i in range(1000):
            p.set(f"pipeline:{i % 50}", i).get(f"pipeline:{i % 50}")
        assert p.execute() == [x for i in range(1000) for x in (True, str(i).encode())]
        p.set("pipeline:s", "text").incr("pipeline:s").get("pipeline:s")
        got = p.execute(raise_on_error=False)
        assert got[0] is True and isinstance(got[1], redis.ResponseError) and got[2] == b"text"


def transaction():
    r.set("transaction:k", 1)
    [r.get("transaction:k") for _ in range(3)]
    with r.pipeline() as p:
        p.watch("transaction:k")
        assert p.get("transaction:k") == b"1"
        client().set("transaction:k", 2)
        p.multi()
        p.set("transaction:k", 3)
        refused(redis.WatchError, p.execute)
    assert r.get("transaction:k") == b"2"
    # The library's own loop: tries again until nobody was faster.
    r.transaction(lambda p: (lambda n: (p.multi(), p.set("transaction:k", n + 1)))(int(p.get("transaction:k"))), "transaction:k")
    assert r.get("transaction:k") == b"3"
    with r.pipeline() as p:
        assert p.incr("transaction:k").hset("transaction:h", "f", "v").get("transaction:k").execute() == [4, 1, b"4"]
        p.incr("transaction:h").incr("transaction:k")
        got = p.execute(raise_on_error=False)
        assert isinstance(got[0], redis.ResponseError) and got[1] == 5
        p.incr("transaction:k").execute_command("NOSUCH")
        refused(redis.ResponseError, p.execute, "unknown command")
    assert r.get("transaction:k") == b"5"


def pubsub():
    sub = r.pubsub()

    def next_message():
        message = sub.get_message(timeout=10)
        return message["type"], message["channel"], message["data"]

    sub.subscribe("pubsub:a", "pubsub:b")
    assert [next_message(), next_message()] == [("subscribe", b"pubsub:a", 1), ("subscribe", b"pubsub:b", 2)]
    sub.psubscribe("pubsub:*")
    assert next_message() == ("psubscribe", b"pubsub:*", 3)
    assert r.pubsub_numsub("pubsub:a") == [(b"pubsub:a", 1)] and r.pubsub_numpat() == 1
    assert r.publish("pubsub:a", "hello") == 2
    assert {next_message(), next_message()} == {("message", b"pubsub:a", b"hello"), ("pmessage", b"pubsub:a", b"hello")}
    sub.ping()
    assert next_message()[0] == "pong"
    sub.punsubscribe()
    assert next_message() == ("punsubscribe", b"pubsub:*", 2)
    sub.unsubscribe("pubsub:a")
    assert next_message() == ("unsubscribe", b"pubsub:a", 1)
    for i in range(100):
        assert r.publish("pubsub:b", i) == 1
    assert [next_message() for _ in range(100)] == [("message", b"pubsub:b", str(i).encode()) for i in range(100)]
    sub.unsubscribe()
    assert next_message() == ("unsubscribe", b"pubsub:b", 0)
    sub.subscribe("pubsub:c")
    assert next_message() == ("subscribe", b"pubsub:c", 1)
    sub.close()


def blocking():
    def woken(wait, act):
        got = []
        thread = threading.Thread(target=lambda: got.append(wait(client())))
        before = r.info("clients")["blocked_clients"]
        thread.start()
        while r.info("clients")["blocked_clients"] == before:
            time.sleep(0.01)
        act()
        thread.join(20)
        return got[0] if got else "nothing"

    # RESP2: a tuple; RESP3: a list.
    assert [*woken(lambda c: c.blpop(["blocking:a", "blocking:b"], 10), lambda: r.rpush("blocking:b", "job"))] == [b"blocking:b", b"job"]
    assert woken(lambda c: c.blmove("blocking:a", "blocking:c", 10), lambda: r.rpush("blocking:a", "x")) == b"x"
    assert [*woken(lambda c: c.bzpopmin("blocking:z", 10), lambda: r.zadd("blocking:z", {"m": 1.5}))][1:] == [b"m", 1.5]
    for _ in range(3):
        start = time.monotonic()
        assert r.blpop("blocking:none", 0.2) is None
        assert 0.15 < time.monotonic() - start < 5
    assert r.ping() is True


def script():
    r.set("script:k", "before")
    [r.get("script:k") for _ in range(3)]
    r.script_flush()
    put = r.register_script("redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])")
    refused(redis.exceptions.NoScriptError, lambda: r.evalsha(put.sha, 1, "script:k", "no"))
    # EVALSHA, NOSCRIPT, SCRIPT LOAD, EVALSHA.
    assert put(keys=["script:k"], args=["after"]) == b"after"
    assert r.get("script:k") == b"after" and r.script_exists(put.sha) == [True]
    assert r.eval("return {1, 'two', {3, false}}", 0) == [1, b"two", [3, None]]
    with r.pipeline() as p:
        put(keys=["script:k"], args=["in a pipeline"], client=p)
        assert p.execute() == [b"in a pipeline"]
    refused(redis.ResponseError, lambda: r.eval("return redis.error_reply('MINE no')", 0), "no")


def stream():
    ids = [r.xadd("stream:s", {"n": i}) for i in range(5)]
    assert r.xlen("stream:s") == 5 and r.xrange("stream:s", count=1) == [(ids[0], {b"n": b"0"})]
    assert r.xgroup_create("stream:s", "g", "0") is True
    refused(redis.ResponseError, lambda: r.xgroup_create("stream:s", "g", "0"), "BUSYGROUP")

    def read(consumer, **more):
        got = r.xreadgroup("g", consumer, {"stream:s": ">"}, **more)
        entries = (got.get(b"stream:s") if isinstance(got, dict) else got[0][1]) if got else []
        # RESP3: one more list around the entries.
        return entries[0] if entries and isinstance(entries[0], list) else entries

    assert [i for i, _ in read("one", count=3)] == ids[:3]
    assert [i for i, _ in read("two", count=3)] == ids[3:]
    assert read("two", block=50) == []
    assert r.xack("stream:s", "g", ids[0], ids[1]) == 2
    assert r.xpending("stream:s", "g")["pending"] == 3
    assert r.xautoclaim("stream:s", "g", "two", 0)[1][0][0] == ids[2]
    got = []
    other = threading.Thread(target=lambda: got.append(client().xread({"stream:s": "$"}, block=10_000)))
    other.start()
    while not got and other.is_alive():
        r.xadd("stream:s", {"late": "1"})
        time.sleep(0.02)
    assert got[0]
    assert r.xinfo_groups("stream:s")[0]["pending"] == 3


def scan():
    with r.pipeline(transaction=False) as p:
        for i in range(1000):
            p.set(f"scan:{i}", i).hset("scan-h", i, i).sadd("scan-s", i).zadd("scan-z", {i: i})
        p.execute()
    numbers = {str(i).encode() for i in range(1000)}
    assert {k[5:] for k in r.scan_iter("scan:*", count=100)} == numbers
    assert dict(r.hscan_iter("scan-h", count=100)) == {n: n for n in numbers}
    assert set(r.sscan_iter("scan-s", count=100)) == numbers
    assert dict(r.zscan_iter("scan-z", count=100)) == {n: float(n) for n in numbers}
    assert set(r.scan_iter(_type="hash")) >= {b"scan-h"}


def large():
    for name, value in (("random", os.urandom(10 << 20)), ("text", b'{"symbol": "BTCUSDT", "price": 64123.5},' * 250_000)):
        assert r.set(f"large:{name}", value) is True
        for _ in range(4):
            assert r.get(f"large:{name}") == value
        with r.pipeline() as p:
            assert p.set(f"large:{name}", value).get(f"large:{name}").execute() == [True, value]


def types():
    r.hset("types:h", mapping={"f": "v", "g": 1})
    assert r.hgetall("types:h") == {b"f": b"v", b"g": b"1"} and r.hgetall("types:none") == {}
    # A hash whose values look like a message of publish and subscribe.
    r.hset("types:m", mapping={"type": "message", "from": "alice", "text": "hi"})
    assert r.hmget("types:m", "type", "from", "text") == [b"message", b"alice", b"hi"]
    r.sadd("types:s", "a", "b")
    assert set(r.smembers("types:s")) == {b"a", b"b"} and r.sismember("types:s", "a") == 1
    r.zadd("types:z", {"a": 1, "b": 2.5, "c": float("inf")})
    assert r.zscore("types:z", "b") == 2.5 and r.zscore("types:z", "none") is None
    assert [tuple(x) for x in r.zrange("types:z", 0, -1, withscores=True)] == [(b"a", 1.0), (b"b", 2.5), (b"c", float("inf"))]
    assert r.incrbyfloat("types:f", 1.5) == 1.5
    assert r.config_get("maxmemory") == {"maxmemory": "0"}
    r.rpush("types:l", 1, 2)
    assert r.lrange("types:l", 0, -1) == [b"1", b"2"] and r.lpos("types:l", "3") is None
    refused(redis.ResponseError, lambda: r.get("types:l"), "wrong kind of value")
    typed = r.eval("redis.setresp(3); return {{double=1.5}, {map={a=1}}, true, false, {big_number='123456789012345678901'}}", 0)
    assert typed == ([1.5, {b"a": 1}, True, False, 123456789012345678901] if RESP3 else [b"1.5", [b"a", 1], 1, 0, b"123456789012345678901"]), typed


def acl():
    r.set("acl:theirs", "secret")
    [r.get("acl:theirs") for _ in range(4)]
    r.execute_command("ACL SETUSER app reset on >pass ~user:* &* +@all -@dangerous +@connection +info")
    app = client(username="app", password="pass")
    assert app.acl_whoami() in ("app", b"app")
    assert app.set("user:1", "mine") is True
    assert [app.get("user:1") for _ in range(4)] == [b"mine"] * 4
    for _ in range(4):
        refused(redis.exceptions.NoPermissionError, lambda: app.get("acl:theirs"))
    refused(redis.exceptions.NoPermissionError, lambda: app.set("acl:theirs", "x"))
    refused(redis.exceptions.NoPermissionError, app.flushall)
    refused(redis.exceptions.AuthenticationError, client(username="app", password="wrong").ping)
    assert r.get("acl:theirs") == b"secret" and r.get("user:1") == b"mine"
    assert r.acl_deluser("app") == 1
    refused(redis.exceptions.AuthenticationError, client(username="app", password="pass").ping)


def select():
    three = client(db=3)
    r.set("select:k", "zero")
    three.set("select:k", "three")
    for _ in range(4):
        assert (r.get("select:k"), three.get("select:k")) == (b"zero", b"three")
    assert r.move("select:k", 4) == 1 and r.get("select:k") is None and client(db=4).get("select:k") == b"zero"
    three.flushdb()
    assert three.get("select:k") is None and r.dbsize() > 0
    refused(redis.ResponseError, client(db=99).ping, "out of range")


def clients():
    with r.client() as one, client().client() as two:
        assert one.client_setname("compat-one") is True and one.client_getname() in ("compat-one", b"compat-one")
        assert two.client_getname() in (None, "")
        ids = one.client_id(), two.client_id()
        assert ids[0] > 0 and ids[1] > ids[0]
        info = one.client_info()
        assert info["id"] == ids[0] and info["name"] == "compat-one", info
        listed = {int(c["id"]): c for c in r.client_list()}
        assert listed[ids[0]]["name"] == "compat-one" and ids[1] in listed, listed
        assert r.client_kill_filter(_id=ids[1]) == 1
        # Its connection is gone, and the library makes another one.
        try:
            two.ping()
        except redis.ConnectionError:
            pass
        assert two.ping() is True and two.client_id() not in ids


def tracking():
    if not RESP3:
        raise Skip("the library's cache needs RESP3")
    version = tuple(int(n) for n in r.info("server")["redis_version"].split(".")[:2])
    if version < (7, 4):
        raise Skip("the library's cache wants Redis 7.4 or newer")
    cached = client(cache_config=CacheConfig())
    r.set("tracking:k", "one")
    assert [cached.get("tracking:k") for _ in range(3)] == [b"one"] * 3 and cached.get_cache().size == 1
    r.set("tracking:k", "two")
    # The invalidation is a push, on its way.
    end = time.monotonic() + 10
    while cached.get("tracking:k") != b"two":
        assert time.monotonic() < end
    cached.close()


def reconnect():
    sub = r.pubsub(ignore_subscribe_messages=True)
    sub.subscribe("reconnect:news")
    sub.get_message(timeout=1)
    retry = {"retry": redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 50), "retry_on_error": [redis.ConnectionError]}
    patient = client(client_name="patient", **retry)
    patient.set("reconnect:k", "before")
    restart()
    assert patient.set("reconnect:k", "after") is True
    assert patient.get("reconnect:k") == b"after" and patient.client_getname() in ("patient", b"patient")
    # A pool full of dead connections, without retries: each may fail once.
    for _ in range(20):
        try:
            r.ping()
            break
        except redis.ConnectionError:
            pass
    assert r.ping() is True

    # The subscription comes back with the connection.
    def heard():
        try:
            message = sub.get_message(timeout=0.1)
        except redis.ConnectionError:
            return False
        return bool(message) and message["data"] == b"hello"

    for _ in range(100):
        r.publish("reconnect:news", "hello")
        if heard():
            break
    else:
        raise AssertionError("the subscriber heard nothing after the restart")


run(connect, strings, pipeline, transaction, pubsub, blocking, script, stream, scan, large, types, acl, select, clients, tracking, reconnect)
