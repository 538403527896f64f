"""valkey-glide, asyncio, as an application uses it. Argument: the protocol, 2 or 3."""

import asyncio
import os
import sys
import time

import glide
from glide import Batch, GlideClient, GlideClientConfiguration, NodeAddress, ProtocolVersion, RequestError, Script
from report import URL, Skip, refused_async as refused, restart, run_async

# Its log goes to stdout, where scripts/compat listens.
glide.Logger.set_logger_config(glide.LogLevel.OFF)

RESP3 = sys.argv[1] == "3"
PubSub = GlideClientConfiguration.PubSubSubscriptions
Modes = GlideClientConfiguration.PubSubChannelModes


async def client(user=None, **more):
    host, port = URL.removeprefix("redis://").split(":")
    config = GlideClientConfiguration(
        [NodeAddress(host, int(port))],
        protocol=ProtocolVersion.RESP3 if RESP3 else ProtocolVersion.RESP2,
        credentials=glide.ServerCredentials(username=user[0], password=user[1]) if user else None,
        request_timeout=20_000,
        **more,
    )
    return await GlideClient.create(config)


async def connect():
    global r
    r = await client()
    assert await r.ping() == b"PONG"
    assert b"redis_version:" in await r.info()
    assert await r.custom_command(["COMMAND", "COUNT"]) > 200
    await asyncio.gather(*(r.incr("connect:n") for _ in range(500)))
    assert await r.get("connect:n") == b"500"
    named = await client(client_name="me")
    assert await named.client_getname() == b"me"
    await named.close()


async def strings():
    for value in (b"text", b"", bytes(range(256)), b"x" * 5000, b"a\r\nb\r\n"):
        assert await r.set("strings:k", value) == "OK"
        for _ in range(4):
            assert await r.get("strings:k") == value
        assert await r.mget(["strings:k", "strings:none"]) == [value, None]
    assert await r.incrby("strings:n", 42) == 42


async def pipeline():
    batch = Batch(is_atomic=False)
    for i in range(1000):
        batch.set(f"pipeline:{i % 50}", str(i)).get(f"pipeline:{i % 50}")
    assert await r.exec(batch, raise_on_error=True) == [x for i in range(1000) for x in ("OK", str(i).encode())]


async def transaction():
    await r.set("transaction:k", "1")
    [await r.get("transaction:k") for _ in range(3)]
    mine = await client()
    await mine.watch(["transaction:k"])
    assert await mine.get("transaction:k") == b"1"
    await r.set("transaction:k", "2")
    assert await mine.exec(Batch(is_atomic=True).set("transaction:k", "3"), raise_on_error=True) is None
    await mine.watch(["transaction:k"])
    assert await mine.exec(Batch(is_atomic=True).incr("transaction:k").get("transaction:k"), raise_on_error=True) == [3, b"3"]
    await r.hset("transaction:h", {"f": "v"})
    got = await r.exec(Batch(is_atomic=True).incr("transaction:h").incr("transaction:k"), raise_on_error=False)
    assert isinstance(got[0], RequestError) and got[1] == 4
    await refused(RequestError, r.exec(Batch(is_atomic=True).incr("transaction:k").custom_command(["NOSUCH"]), True))
    assert await r.get("transaction:k") == b"4"
    await mine.close()


def subscriptions(channels, patterns=()):
    return PubSub({Modes.Exact: set(channels), Modes.Pattern: set(patterns)}, callback=None, context=None)


async def pubsub():
    if not RESP3:
        raise Skip("the library wants RESP3 for publish and subscribe")
    sub = await client(pubsub_subscriptions=subscriptions({"pubsub:a"}, {"pubsub:*"}))
    while await r.publish("hello", "pubsub:a") != 2:
        await asyncio.sleep(0.01)
    heard = {(await sub.get_pubsub_message()).pattern for _ in range(2)}
    assert heard <= {None, b"pubsub:*"}
    # It goes on serving.
    assert await sub.set("pubsub:k", "v") == "OK"
    await sub.close()
    while await r.publish("nobody", "pubsub:a"):
        await asyncio.sleep(0.01)


async def until_blocked():
    while b"blocked_clients:0" in await r.info():
        await asyncio.sleep(0.01)


async def blocking():
    waiting = await client()
    job = asyncio.create_task(waiting.blpop(["blocking:a", "blocking:b"], 10))
    await until_blocked()
    await r.rpush("blocking:b", ["job"])
    assert await job == [b"blocking:b", b"job"]
    for _ in range(3):
        start = time.monotonic()
        assert await waiting.blpop(["blocking:none"], 0.2) is None
        assert 0.15 < time.monotonic() - start < 5
    await waiting.close()


async def script():
    await r.set("script:k", "before")
    [await r.get("script:k") for _ in range(3)]
    await r.script_flush()
    # EVALSHA, NOSCRIPT, SCRIPT LOAD, EVALSHA.
    put = Script("redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])")
    assert await r.invoke_script(put, keys=["script:k"], args=["after"]) == b"after"
    assert await r.get("script:k") == b"after"


async def stream():
    ids = [await r.xadd("stream:s", [("n", str(i))]) for i in range(5)]
    assert await r.xgroup_create("stream:s", "g", "0") == "OK"
    await refused(RequestError, r.xgroup_create("stream:s", "g", "0"), "BUSYGROUP")
    got = await r.xreadgroup({"stream:s": ">"}, "g", "one", glide.StreamReadGroupOptions(count=3))
    assert [*got[b"stream:s"]] == ids[:3]
    got = await r.xreadgroup({"stream:s": ">"}, "g", "two", glide.StreamReadGroupOptions(count=3))
    assert [*got[b"stream:s"]] == ids[3:]
    assert await r.xreadgroup({"stream:s": ">"}, "g", "two", glide.StreamReadGroupOptions(block_ms=50)) is None
    assert await r.xack("stream:s", "g", ids[:2]) == 2
    assert (await r.xpending("stream:s", "g"))[0] == 3


async def scan():
    batch = Batch(is_atomic=False)
    for i in map(str, range(1000)):
        batch.set(f"scan:{i}", i).hset("scan-h", {i: i}).sadd("scan-s", [i]).zadd("scan-z", {i: float(i)})
    await r.exec(batch, raise_on_error=True)

    async def pages(page):
        cursor, seen = b"0", []
        while True:
            cursor, batch = await page(cursor)
            seen += batch
            if cursor == b"0":
                return seen

    assert len(set(await pages(lambda c: r.scan(c, match="scan:*", count=100)))) == 1000
    assert len(await pages(lambda c: r.hscan("scan-h", c, count=100))) == 2000
    assert len(set(await pages(lambda c: r.sscan("scan-s", c, count=100)))) == 1000
    assert len(await pages(lambda c: r.zscan("scan-z", c, count=100))) == 2000


async def large():
    for value in (os.urandom(10 << 20), b'{"symbol": "BTCUSDT", "price": 64123.5},' * 250_000):
        assert await r.set("large:k", value) == "OK"
        for _ in range(4):
            assert await r.get("large:k") == value


async def types():
    await r.hset("types:h", {"f": "v", "g": "1"})
    assert await r.hgetall("types:h") == {b"f": b"v", b"g": b"1"}
    await r.sadd("types:s", ["a", "b"])
    assert await r.smembers("types:s") == {b"a", b"b"}
    await r.zadd("types:z", {"a": 1, "b": 2.5})
    assert await r.zscore("types:z", "b") == 2.5 and await r.zscore("types:z", "none") is None
    assert await r.zrange_withscores("types:z", glide.RangeByIndex(0, -1)) == {b"a": 1.0, b"b": 2.5}
    assert await r.config_get(["maxmemory"]) == {b"maxmemory": b"0"}
    await refused(RequestError, r.get("types:h"), "WRONGTYPE")


async def acl():
    await r.set("acl:theirs", "secret")
    [await r.get("acl:theirs") for _ in range(4)]
    await r.custom_command("ACL SETUSER app reset on >pass ~user:* &* +@all -@dangerous +@connection +info".split())
    app = await client(("app", "pass"))
    assert await app.custom_command(["ACL", "WHOAMI"]) == b"app"
    assert await app.set("user:1", "mine") == "OK"
    for _ in range(4):
        assert await app.get("user:1") == b"mine"
        await refused(RequestError, app.get("acl:theirs"), "no permissions")
    await app.close()
    await refused(Exception, client(("app", "wrong")), "WRONGPASS" if RESP3 else "authentication failed")
    assert await r.custom_command(["ACL", "DELUSER", "app"]) == 1


async def select():
    three = await client(database_id=3)
    await r.set("select:k", "zero")
    await three.set("select:k", "three")
    for _ in range(4):
        assert (await r.get("select:k"), await three.get("select:k")) == (b"zero", b"three")
    await refused(RequestError, three.select(99), "out of range")
    await three.close()


async def clients():
    one, two = await client(client_name="compat-one"), await client()
    ids = await one.client_id(), await two.client_id()
    assert 0 < ids[0] < ids[1]
    assert await one.client_getname() == b"compat-one" and await two.client_getname() is None
    listed = (await r.custom_command(["CLIENT", "LIST"])).decode().splitlines()
    assert any(line.startswith(f"id={ids[0]} ") and " name=compat-one " in line for line in listed), listed
    assert await r.custom_command(["CLIENT", "KILL", "ID", str(ids[1])]) == 1
    # The library connects again by itself; it may have to find out first.
    for _ in range(100):
        try:
            assert await two.client_id() not in ids
            break
        except glide.ConnectionError:
            await asyncio.sleep(0.02)
    else:
        raise AssertionError("no new connection")


async def tracking():
    raise Skip("the library's cache does not ask the server")


async def reconnect():
    strategy = glide.BackoffStrategy(num_of_retries=5, factor=20, exponent_base=2)
    patient = await client(client_name="patient", database_id=2, reconnect_strategy=strategy)
    await patient.set("reconnect:k", "before")
    await asyncio.to_thread(restart)
    for _ in range(200):
        try:
            await patient.set("reconnect:k", "after")
            break
        except (glide.ConnectionError, glide.TimeoutError):
            await asyncio.sleep(0.02)
    assert await patient.get("reconnect:k") == b"after" and await patient.client_getname() == b"patient"
    other = await client(database_id=2)
    assert await other.get("reconnect:k") == b"after"


asyncio.run(run_async(connect, strings, pipeline, transaction, pubsub, blocking, script, stream, scan, large, types, acl, select, clients, tracking, reconnect))
