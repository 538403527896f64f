// ioredis, and iovalkey that came of it, as an application uses it.
// Arguments: the package to load, and the protocol (2 or 3) where it has a choice.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";

import { restart, run, Skip, sleep, until, URL } from "./report.mjs";

const [name, protocol] = process.argv.slice(2);
const { default: Redis } = createRequire(import.meta.url)(name);

function client(more = {}) {
  const c = new Redis(URL, { ...(protocol && { protocol: Number(protocol) }), retryStrategy: () => 50, ...more });
  c.on("error", () => {});
  return c;
}

const r = client();
const refused = (promise, text) => assert.rejects(promise, (error) => error.message.includes(text) || assert.fail(`${error.message} is not ${text}`));

async function connect() {
  assert.equal(await r.ping(), "PONG");
  await until(() => r.status === "ready");
  assert.match(await r.info("server"), /redis_version:/);
  assert((await r.command("COUNT")) > 200);
  const named = client({ connectionName: "me" });
  assert.equal(await named.client("GETNAME"), "me");
  named.disconnect();
  // Commands that are sent before there is a connection wait for it.
  const lazy = client({ lazyConnect: true });
  assert.equal(await lazy.set("connect:k", "v"), "OK");
  assert.equal(await lazy.quit(), "OK");
}

async function strings() {
  for (const value of ["text", "", "grüße", "x".repeat(5000), "a\r\nb\r\n"]) {
    assert.equal(await r.set("strings:k", value), "OK");
    for (let i = 0; i < 4; i++) assert.equal(await r.get("strings:k"), value);
    assert.deepEqual(await r.mget("strings:k", "strings:none"), [value, null]);
  }
  const binary = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  await r.set("strings:b", binary);
  for (let i = 0; i < 4; i++) assert.deepEqual(await r.getBuffer("strings:b"), binary);
  assert.equal(await r.get("strings:none"), null);
  assert.equal(await r.set("strings:k", "v", "NX"), null);
  assert.equal(await r.set("strings:k", "v", "EX", 100, "GET"), "a\r\nb\r\n");
  assert((await r.ttl("strings:k")) > 90);
  assert.equal(await r.incrby("strings:n", 42), 42);
}

async function pipeline() {
  const p = r.pipeline();
  for (let i = 0; i < 1000; i++) p.set(`pipeline:${i % 50}`, i).get(`pipeline:${i % 50}`);
  const got = await p.exec();
  assert.deepEqual(got, Array.from({ length: 1000 }, (_, i) => [[null, "OK"], [null, String(i)]]).flat());
  const [set, wrong, get] = await r.pipeline().set("pipeline:s", "text").incr("pipeline:s").get("pipeline:s").exec();
  assert(set[1] === "OK" && wrong[0] instanceof Error && get[1] === "text");
  const auto = client({ enableAutoPipelining: true });
  await Promise.all(Array.from({ length: 1000 }, (_, i) => auto.set(`pipeline:${i}`, i)));
  assert.deepEqual(await Promise.all(Array.from({ length: 1000 }, (_, i) => auto.get(`pipeline:${i}`))), Array.from({ length: 1000 }, (_, i) => String(i)));
  auto.disconnect();
}

async function transaction() {
  await r.set("transaction:k", 1);
  for (let i = 0; i < 3; i++) await r.get("transaction:k");
  const mine = client();
  await mine.watch("transaction:k");
  assert.equal(await mine.get("transaction:k"), "1");
  await r.set("transaction:k", 2);
  assert.equal(await mine.multi().set("transaction:k", 3).exec(), null);
  await mine.watch("transaction:k");
  assert.deepEqual(await mine.multi().incr("transaction:k").get("transaction:k").exec(), [[null, 3], [null, "3"]]);
  // Without the pipeline: each command answers QUEUED.
  await mine.multi({ pipeline: false });
  assert.equal(await mine.set("transaction:k", 4), "QUEUED");
  assert.deepEqual(await mine.exec(), [[null, "OK"]]);
  await r.hset("transaction:h", "f", "v");
  const [wrong, right] = await r.multi().incr("transaction:h").incr("transaction:k").exec();
  assert(wrong[0] instanceof Error && right[1] === 5);
  await refused(r.multi().incr("transaction:k").call("NOSUCH").exec(), "EXECABORT");
  assert.equal(await r.get("transaction:k"), "5");
  mine.disconnect();
}

async function pubsub() {
  const sub = client();
  const heard = [];
  sub.on("message", (channel, message) => heard.push(`${channel}=${message}`));
  sub.on("pmessage", (pattern, channel, message) => heard.push(`${pattern}/${channel}=${message}`));
  assert.equal(await sub.subscribe("pubsub:a", "pubsub:b"), 2);
  assert.equal(await sub.psubscribe("pubsub:*"), 3);
  assert.deepEqual(await r.pubsub("NUMSUB", "pubsub:a"), ["pubsub:a", 1]);
  assert.equal(await r.publish("pubsub:a", "hello"), 2);
  await until(() => heard.length === 2);
  assert.deepEqual(heard.sort(), ["pubsub:*/pubsub:a=hello", "pubsub:a=hello"]);
  assert.deepEqual(await sub.ping(), protocol === "3" ? "PONG" : ["pong", ""]);
  assert.equal(await sub.punsubscribe("pubsub:*"), 2);
  assert.equal(await sub.unsubscribe("pubsub:a"), 1);
  assert.equal(await r.publish("pubsub:a", "nobody"), 0);
  heard.length = 0;
  for (let i = 0; i < 100; i++) r.publish("pubsub:b", i);
  await until(() => heard.length === 100);
  assert.deepEqual(heard, Array.from({ length: 100 }, (_, i) => `pubsub:b=${i}`));
  assert.equal(await sub.unsubscribe(), 0);
  // An ordinary client again.
  assert.equal(await sub.set("pubsub:k", "v"), "OK");
  sub.disconnect();
}

async function blocking() {
  const waiting = client();
  const blocked = async () => /blocked_clients:[1-9]/.test(await r.info("clients"));
  const job = waiting.blpop("blocking:a", "blocking:b", 10);
  await until(blocked);
  await r.rpush("blocking:b", "job");
  assert.deepEqual(await job, ["blocking:b", "job"]);
  const moved = waiting.blmove("blocking:a", "blocking:c", "LEFT", "RIGHT", 10);
  await until(blocked);
  await r.rpush("blocking:a", "x");
  assert.equal(await moved, "x");
  const least = waiting.bzpopmin("blocking:z", 10);
  await until(blocked);
  await r.zadd("blocking:z", 1.5, "m");
  assert.deepEqual(await least, ["blocking:z", "m", "1.5"]);
  for (let i = 0; i < 3; i++) {
    const start = Date.now();
    assert.equal(await waiting.blpop("blocking:none", 0.2), null);
    assert(Date.now() - start > 150 && Date.now() - start < 5000);
  }
  // What is sent behind it waits for it, and comes in order.
  const [first, second] = [waiting.blpop("blocking:none", 0.1), waiting.ping()];
  assert.deepEqual([await first, await second], [null, "PONG"]);
  waiting.disconnect();
}

async function script() {
  await r.set("script:k", "before");
  for (let i = 0; i < 3; i++) await r.get("script:k");
  await r.script("FLUSH");
  r.defineCommand("put", { numberOfKeys: 1, lua: "redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])" });
  await refused(r.evalsha("0".repeat(40), 0), "NOSCRIPT");
  // EVALSHA, NOSCRIPT, EVAL; from the second time on EVALSHA.
  assert.equal(await r.put("script:k", "after"), "after");
  assert.equal(await r.get("script:k"), "after");
  assert.equal(await r.put("script:k", "again"), "again");
  await r.script("FLUSH");
  assert.deepEqual(await r.pipeline().put("script:k", "in a pipeline").exec(), [[null, "in a pipeline"]]);
  assert.deepEqual(await r.eval("return {1, 'two', {3, false}}", 0), [1, "two", [3, null]]);
  await refused(r.eval("return redis.error_reply('MINE no')", 0), "MINE no");
}

async function stream() {
  const ids = [];
  for (let i = 0; i < 5; i++) ids.push(await r.xadd("stream:s", "*", "n", i));
  assert.equal(await r.xgroup("CREATE", "stream:s", "g", "0"), "OK");
  await refused(r.xgroup("CREATE", "stream:s", "g", "0"), "BUSYGROUP");
  const read = async (consumer, ...more) => (await r.xreadgroup("GROUP", "g", consumer, ...more, "STREAMS", "stream:s", ">"))?.[0][1].map(([id]) => id);
  assert.deepEqual(await read("one", "COUNT", 3), ids.slice(0, 3));
  assert.deepEqual(await read("two", "COUNT", 3), ids.slice(3));
  assert.equal(await read("two", "BLOCK", 50), undefined);
  assert.equal(await r.xack("stream:s", "g", ids[0], ids[1]), 2);
  assert.equal((await r.xpending("stream:s", "g"))[0], 3);
  assert.equal((await r.xautoclaim("stream:s", "g", "two", 0, "0"))[1][0][0], ids[2]);
  const waiting = client();
  const late = waiting.xread("BLOCK", 10_000, "STREAMS", "stream:s", "$");
  await until(async () => /blocked_clients:[1-9]/.test(await r.info("clients")));
  const id = await r.xadd("stream:s", "*", "n", "late");
  assert.deepEqual(await late, [["stream:s", [[id, ["n", "late"]]]]]);
  waiting.disconnect();
}

async function scan() {
  const p = r.pipeline();
  for (let i = 0; i < 1000; i++) p.set(`scan:${i}`, i).hset("scan-h", i, i).sadd("scan-s", i).zadd("scan-z", i, i);
  await p.exec();
  const all = async (s, step) => {
    const seen = new Set();
    for await (const batch of s) for (let i = 0; i < batch.length; i += step) seen.add(batch[i]);
    return seen.size;
  };
  assert.equal(await all(r.scanStream({ match: "scan:*", count: 100 }), 1), 1000);
  assert.equal(await all(r.hscanStream("scan-h", { count: 100 }), 2), 1000);
  assert.equal(await all(r.sscanStream("scan-s", { count: 100 }), 1), 1000);
  assert.equal(await all(r.zscanStream("scan-z", { count: 100 }), 2), 1000);
}

async function large() {
  for (const value of [randomBytes(10 << 20), Buffer.from('{"symbol": "BTCUSDT", "price": 64123.5},'.repeat(250_000))]) {
    assert.equal(await r.set("large:k", value), "OK");
    for (let i = 0; i < 4; i++) assert((await r.getBuffer("large:k")).equals(value));
  }
}

async function types() {
  await r.hset("types:h", { f: "v", g: 1 });
  assert.deepEqual(await r.hgetall("types:h"), { f: "v", g: "1" });
  assert.deepEqual(await r.hgetall("types:none"), {});
  await r.hset("types:m", { type: "message", from: "alice", text: "hi" });
  assert.deepEqual(await r.hmget("types:m", "type", "from", "text"), ["message", "alice", "hi"]);
  await r.sadd("types:s", "a", "b");
  assert.deepEqual((await r.smembers("types:s")).sort(), ["a", "b"]);
  await r.zadd("types:z", 1, "a", 2.5, "b", "inf", "c");
  assert.equal(await r.zscore("types:z", "b"), "2.5");
  assert.deepEqual(await r.zrange("types:z", 0, -1, "WITHSCORES"), ["a", "1", "b", "2.5", "c", "inf"]);
  assert.deepEqual(await r.config("GET", "maxmemory"), ["maxmemory", "0"]);
  await refused(r.get("types:h"), "WRONGTYPE");
  if (protocol !== "3") return;
  const typed = client({ replyMapping: "resp3" });
  assert.deepEqual({ ...(await typed.call("HGETALL", "types:h")) }, { f: "v", g: "1" });
  assert.equal(await typed.zscore("types:z", "b"), 2.5);
  assert.deepEqual([...(await typed.smembers("types:s"))].sort(), ["a", "b"]);
  typed.disconnect();
}

async function acl() {
  await r.set("acl:theirs", "secret");
  for (let i = 0; i < 4; i++) await r.get("acl:theirs");
  await r.acl("SETUSER", "app", "reset", "on", ">pass", "~user:*", "&*", "+@all", "-@dangerous", "+@connection", "+info");
  const app = client({ username: "app", password: "pass" });
  assert.equal(await app.acl("WHOAMI"), "app");
  assert.equal(await app.set("user:1", "mine"), "OK");
  for (let i = 0; i < 4; i++) assert.equal(await app.get("user:1"), "mine");
  for (let i = 0; i < 4; i++) await refused(app.get("acl:theirs"), "NOPERM");
  await refused(app.set("acl:theirs", "x"), "NOPERM");
  app.disconnect();
  const wrong = client({ username: "app", password: "wrong", retryStrategy: () => null, enableOfflineQueue: false });
  const [error] = await new Promise((resolve) => wrong.once("error", (...e) => resolve(e)));
  assert.match(error.message, /WRONGPASS/);
  assert.equal(await r.acl("DELUSER", "app"), 1);
}

async function select() {
  const three = client({ db: 3 });
  await r.set("select:k", "zero");
  await three.set("select:k", "three");
  for (let i = 0; i < 4; i++) assert.deepEqual([await r.get("select:k"), await three.get("select:k")], ["zero", "three"]);
  assert.equal(await three.select(4), "OK");
  assert.equal(await three.get("select:k"), null);
  await refused(three.select(99), "out of range");
  three.disconnect();
}

async function clients() {
  const [one, two] = [client({ connectionName: "compat-one" }), client()];
  const ids = [await one.client("ID"), await two.client("ID")];
  assert(ids[0] > 0 && ids[0] !== ids[1]);
  assert.equal(await one.client("SETNAME", "compat-two"), "OK");
  assert.equal(await one.client("GETNAME"), "compat-two");
  assert.match(await one.client("INFO"), new RegExp(`^id=${ids[0]} .*name=compat-two `));
  assert.match(await r.client("LIST"), new RegExp(`^id=${ids[0]} .*name=compat-two `, "m"));
  const gone = new Promise((resolve) => two.once("close", resolve));
  assert.equal(await r.client("KILL", "ID", ids[1]), 1);
  await gone;
  // The library connects again by itself.
  assert(!ids.includes(await two.client("ID")));
  one.disconnect();
  two.disconnect();
}

async function tracking() {
  throw new Skip("the library has no cache of its own");
}

async function reconnect() {
  const sub = client();
  const heard = [];
  sub.on("message", (_, message) => heard.push(message));
  await sub.subscribe("reconnect:news");
  const named = client({ connectionName: "patient", db: 2 });
  await named.set("reconnect:k", "before");
  const queue = client().blpop("reconnect:queue", 30);
  await until(async () => /blocked_clients:[1-9]/.test(await r.info("clients")));
  await restart();
  // Sent while there is no connection: they wait, and the library sends what had no answer again.
  assert.equal(await named.set("reconnect:k", "after"), "OK");
  assert.equal(await named.get("reconnect:k"), "after");
  assert.equal(await named.client("GETNAME"), "patient");
  await r.rpush("reconnect:queue", "job");
  assert.deepEqual(await queue, ["reconnect:queue", "job"]);
  await until(async () => (await r.publish("reconnect:news", "hello")) && (await sleep(10), heard.length > 0));
  sub.disconnect();
  named.disconnect();
}

run(connect, strings, pipeline, transaction, pubsub, blocking, script, stream, scan, large, types, acl, select, clients, tracking, reconnect);
