"""redis-py, asyncio, as an application uses it. Argument: the protocol, 2 or 3; none: what the library takes by itself."""

import asyncio
import os
import sys

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from report import URL, Skip, refused_async as refused, restart, run_async

PROTOCOL = {"protocol": int(sys.argv[1])} if len(sys.argv) > 1 else {}


def client(**more):
    return redis.asyncio.Redis.from_url(URL, **{"socket_timeout": 20, **PROTOCOL, **more})


r = client()


async def connect():
    assert await r.ping() is True
    assert (await r.info("server"))["redis_version"]
    assert await r.command_count() > 200
    pool = redis.asyncio.BlockingConnectionPool.from_url(URL, max_connections=5, **PROTOCOL)
    shared = redis.asyncio.Redis(connection_pool=pool)
    await asyncio.gather(*(shared.incr("connect:n") for _ in range(500)))
    assert await r.get("connect:n") == b"500"
    await pool.disconnect()


async def strings():
    for value in (b"text", b"", bytes(range(256)), b"x" * 5000, b"a\r\nb\r\n"):
        assert await r.set("strings:k", value) is True
        for _ in range(4):
            assert await r.get("strings:k") == value
        assert await r.mget("strings:k", "strings:none") == [value, None]
    assert await r.incrby("strings:n", 42) == 42
    assert await r.setex("strings:e", 100, "v") is True and 0 < await r.ttl("strings:e") <= 100


async def pipeline():
    async with r.pipeline(transaction=False) as p:
        for i in range(1000):
            p.set(f"pipeline:{i % 50}", i).get(f"pipeline:{i % 50}")
        assert await p.execute() == [x for i in range(1000) for x in (True, str(i).encode())]


async def transaction():
    await r.set("transaction:k", 1)
    async with r.pipeline() as p:
        await p.watch("transaction:k")
        assert await p.get("transaction:k") == b"1"
        await r.set("transaction:k", 2)
        p.multi()
        p.set("transaction:k", 3)
        await refused(redis.WatchError, p.execute())
    assert await r.get("transaction:k") == b"2"

    async def count():
        async def one_more(p):
            n = int(await p.get("transaction:k"))
            p.multi()
            p.set("transaction:k", n + 1)

        for _ in range(10):
            await r.transaction(one_more, "transaction:k")

    await asyncio.gather(*(count() for _ in range(4)))
    assert await r.get("transaction:k") == b"42"


async def pubsub():
    sub = r.pubsub()

    async def next_message():
        message = await sub.get_message(timeout=10)
        return message["type"], message["channel"], message["data"]

    await sub.subscribe("pubsub:a")
    assert await next_message() == ("subscribe", b"pubsub:a", 1)
    await sub.psubscribe("pubsub:*")
    assert await next_message() == ("psubscribe", b"pubsub:*", 2)
    assert await r.publish("pubsub:a", "hello") == 2
    assert {await next_message(), await next_message()} == {
        ("message", b"pubsub:a", b"hello"),
        ("pmessage", b"pubsub:a", b"hello"),
    }
    await sub.punsubscribe()
    assert await next_message() == ("punsubscribe", b"pubsub:*", 1)
    await sub.unsubscribe()
    assert await next_message() == ("unsubscribe", b"pubsub:a", 0)
    assert await r.publish("pubsub:a", "nobody") == 0
    await sub.aclose()


async def blocking():
    waiting = [asyncio.create_task(r.blpop([f"blocking:{i}"], 10)) for i in range(20)]
    while (await r.info("clients"))["blocked_clients"] < 20:
        await asyncio.sleep(0.01)
    for i in range(20):
        await r.rpush(f"blocking:{i}", i)
    assert [[*x] for x in await asyncio.gather(*waiting)] == [[f"blocking:{i}".encode(), str(i).encode()] for i in range(20)]
    assert await r.blpop(["blocking:none"], 0.2) is None
    # A wait that is given up: the connection goes, and with it the waiter.
    task = asyncio.create_task(r.blpop(["blocking:given-up"], 0))
    while not (await r.info("clients"))["blocked_clients"]:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    while (await r.info("clients"))["blocked_clients"]:
        await asyncio.sleep(0.01)
    assert await r.rpush("blocking:given-up", "still there") == 1


async def script():
    await r.script_flush()
    put = r.register_script("redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])")
    await refused(redis.exceptions.NoScriptError, r.evalsha(put.sha, 1, "script:k", "no"))
    assert await put(keys=["script:k"], args=["after"]) == b"after"
    assert await r.get("script:k") == b"after"


async def stream():
    ids = [await r.xadd("stream:s", {"n": i}) for i in range(5)]
    await r.xgroup_create("stream:s", "g", "0")
    got = await r.xreadgroup("g", "one", {"stream:s": ">"}, count=3)
    assert ids[2] in repr(got).encode() and ids[3] not in repr(got).encode()
    late = asyncio.create_task(r.xreadgroup("g", "two", {"stream:s": ">"}, block=10_000))
    assert ids[4] in repr(await late).encode()
    late = asyncio.create_task(r.xreadgroup("g", "two", {"stream:s": ">"}, block=10_000))
    await asyncio.sleep(0)
    new = await r.xadd("stream:s", {"n": "late"})
    assert new in repr(await late).encode()
    assert await r.xack("stream:s", "g", *ids) == 5
    assert (await r.xpending("stream:s", "g"))["pending"] == 1


async def scan():
    async with r.pipeline(transaction=False) as p:
        for i in range(1000):
            p.set(f"scan:{i}", i).hset("scan-h", i, i).sadd("scan-s", i).zadd("scan-z", {i: i})
        await p.execute()
    numbers = {str(i).encode() for i in range(1000)}
    assert {k[5:] async for k in r.scan_iter("scan:*", count=100)} == numbers
    assert {f: v async for f, v in r.hscan_iter("scan-h", count=100)} == {n: n for n in numbers}
    assert {m async for m in r.sscan_iter("scan-s", count=100)} == numbers
    assert {m: s async for m, s in r.zscan_iter("scan-z", count=100)} == {n: float(n) for n in numbers}


async def large():
    for value in (os.urandom(10 << 20), b'{"symbol": "BTCUSDT", "price": 64123.5},' * 250_000):
        assert await r.set("large:k", value) is True
        # Four at once, over four connections.
        assert all(got == value for got in await asyncio.gather(*(r.get("large:k") for _ in range(4))))


async def types():
    await r.hset("types:h", mapping={"f": "v", "g": 1})
    assert await r.hgetall("types:h") == {b"f": b"v", b"g": b"1"}
    await r.sadd("types:s", "a", "b")
    assert set(await r.smembers("types:s")) == {b"a", b"b"}
    await r.zadd("types:z", {"a": 1, "b": 2.5})
    assert await r.zscore("types:z", "b") == 2.5
    assert [tuple(x) for x in await r.zrange("types:z", 0, -1, withscores=True)] == [(b"a", 1.0), (b"b", 2.5)]
    assert await r.config_get("maxmemory") == {"maxmemory": "0"}
    await refused(redis.ResponseError, r.get("types:h"), "wrong kind of value")


async def acl():
    await r.set("acl:theirs", "secret")
    [await r.get("acl:theirs") for _ in range(4)]
    await r.execute_command("ACL SETUSER app reset on >pass ~user:* &* +@all -@dangerous +@connection +info")
    app = client(username="app", password="pass")
    assert await app.set("user:1", "mine") is True
    assert [await app.get("user:1") for _ in range(4)] == [b"mine"] * 4
    await refused(redis.exceptions.NoPermissionError, app.get("acl:theirs"))
    await refused(redis.exceptions.NoPermissionError, app.set("acl:theirs", "x"))
    await refused(redis.exceptions.AuthenticationError, client(username="app", password="wrong").ping())
    assert await r.acl_deluser("app") == 1


async def select():
    three = client(db=3)
    await r.set("select:k", "zero")
    await three.set("select:k", "three")
    for _ in range(4):
        assert (await r.get("select:k"), await three.get("select:k")) == (b"zero", b"three")
    await refused(redis.ResponseError, client(db=99).ping(), "out of range")


async def clients():
    one, two = client(client_name="compat-one").client(), client().client()
    async with one, two:
        assert await one.client_getname() in ("compat-one", b"compat-one")
        ids = await one.client_id(), await two.client_id()
        assert 0 < ids[0] < ids[1]
        assert (await one.client_info())["id"] == ids[0]
        assert {int(c["id"]): c for c in await r.client_list()}[ids[0]]["name"] == "compat-one"
        assert await r.client_kill_filter(_id=ids[1]) == 1


async def tracking():
    raise Skip("the library's cache is not for asyncio")


async def reconnect():
    sub = r.pubsub(ignore_subscribe_messages=True)
    await sub.subscribe("reconnect:news")
    retry = Retry(redis.backoff.ConstantBackoff(0.1), 50)
    patient = client(client_name="patient", retry=retry, retry_on_error=[redis.ConnectionError])
    await patient.set("reconnect:k", "before")
    await asyncio.to_thread(restart)
    assert await patient.set("reconnect:k", "after") is True
    assert await patient.get("reconnect:k") == b"after" and await patient.client_getname() in ("patient", b"patient")

    # The subscription comes back with the connection.
    async def heard():
        try:
            message = await sub.get_message(timeout=0.1)
        except redis.ConnectionError:
            return False
        return bool(message) and message["data"] == b"hello"

    for _ in range(100):
        await patient.publish("reconnect:news", "hello")
        if await heard():
            return
    raise AssertionError("the subscriber heard nothing after the restart")


asyncio.run(run_async(connect, strings, pipeline, transaction, pubsub, blocking, script, stream, scan, large, types, acl, select, clients, tracking, reconnect))
