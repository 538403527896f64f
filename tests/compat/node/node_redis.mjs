// node-redis as an application uses it.
// Arguments: the package to load, and the protocol (2 or 3) where it has a choice; none: what the library takes by itself.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";

import { restart, run, Skip, sleep, until, URL } from "./report.mjs";

const [name, protocol] = process.argv.slice(2);
const library = createRequire(import.meta.url)(name);
const { createClient, defineScript } = library;
// 4.x: buffers are asked for by the command, iterators bring one at a time, there is one protocol.
const four = name === "redis4";

const put = defineScript({
  SCRIPT: "redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])",
  NUMBER_OF_KEYS: 1,
  FIRST_KEY_INDEX: 1,
  parseCommand: (parser, key, value) => (parser.pushKey(key), parser.push(value)),
  transformArguments: (key, value) => [key, value],
  transformReply: (reply) => reply,
});

function unconnected(more = {}) {
  const { url = URL, ...rest } = more;
  // 5.x asks to be told that what it makes of XREAD in RESP3 may change.
  const resp = protocol && { RESP: Number(protocol), unstableResp3: true };
  const socket = { reconnectStrategy: (tries, cause) => (tries < 100 ? 50 : cause) };
  const c = createClient({ url, ...resp, socket, scripts: { put }, ...rest });
  c.on("error", () => {});
  return c;
}
const client = (more) => unconnected(more).connect();
const close = (...cs) => cs.forEach((c) => (four ? c.disconnect() : c.destroy()));
const getBuffer = (c, key) =>
  four ? c.get(library.commandOptions({ returnBuffers: true }), key) : c.withTypeMapping({ [library.RESP_TYPES.BLOB_STRING]: Buffer }).get(key);

const r = await client();
const refused = (promise, text) => assert.rejects(promise, (error) => error.message.includes(text) || assert.fail(`${error.message} is not ${text}`));
const blocked = async () => /blocked_clients:[1-9]/.test(await r.info("clients"));

async function connect() {
  assert.equal(await r.ping(), "PONG");
  assert(r.isReady);
  assert.match(await r.info("server"), /redis_version:/);
  assert((await r.commandCount()) > 200);
  const named = await client({ name: "me" });
  assert.equal(await named.clientGetName(), "me");
  close(named);
  if (four) return;
  const pool = library.createClientPool({ url: URL, ...(protocol && { RESP: Number(protocol) }) }, { maximum: 10 });
  pool.on("error", () => {});
  await pool.connect();
  await Promise.all(Array.from({ length: 500 }, () => pool.incr("connect:n")));
  assert.equal(await pool.get("connect:n"), "500");
  pool.destroy();
}

async function strings() {
  for (const value of ["text", "", "grüße", "x".repeat(5000), "a\r\nb\r\n"]) {
    assert.equal(await r.set("strings:k", value), "OK");
    for (let i = 0; i < 4; i++) assert.equal(await r.get("strings:k"), value);
    assert.deepEqual(await r.mGet(["strings:k", "strings:none"]), [value, null]);
  }
  const binary = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  await r.set("strings:b", binary);
  for (let i = 0; i < 4; i++) assert((await getBuffer(r, "strings:b")).equals(binary));
  assert.equal(await r.get("strings:none"), null);
  assert.equal(await r.set("strings:k", "v", { NX: true }), null);
  assert.equal(await r.set("strings:k", "v", { EX: 100, GET: true }), "a\r\nb\r\n");
  assert((await r.ttl("strings:k")) > 90);
  assert.equal(await r.incrBy("strings:n", 42), 42);
}

async function pipeline() {
  // Commands of one tick are a pipeline.
  const set = Array.from({ length: 1000 }, (_, i) => r.set(`pipeline:${i}`, String(i)));
  const get = Array.from({ length: 1000 }, (_, i) => r.get(`pipeline:${i}`));
  assert((await Promise.all(set)).every((x) => x === "OK"));
  assert.deepEqual(await Promise.all(get), Array.from({ length: 1000 }, (_, i) => String(i)));
  const many = r.multi();
  for (let i = 0; i < 1000; i++) many.incr("pipeline:n");
  assert.deepEqual(await many.execAsPipeline(), Array.from({ length: 1000 }, (_, i) => i + 1));
}

async function transaction() {
  await r.set("transaction:k", "1");
  for (let i = 0; i < 3; i++) await r.get("transaction:k");
  const mine = await client();
  await mine.watch("transaction:k");
  assert.equal(await mine.get("transaction:k"), "1");
  await r.set("transaction:k", "2");
  await assert.rejects(mine.multi().set("transaction:k", "3").exec(), library.WatchError);
  await mine.watch("transaction:k");
  assert.deepEqual(await mine.multi().incr("transaction:k").get("transaction:k").exec(), [3, "3"]);
  await r.hSet("transaction:h", "f", "v");
  await refused(r.multi().incr("transaction:h").incr("transaction:k").exec(), "1 commands failed");
  assert.equal(await r.get("transaction:k"), "4");
  await assert.rejects(r.multi().incr("transaction:k").addCommand(["NOSUCH"]).exec());
  assert.equal(await r.get("transaction:k"), "4");
  close(mine);
}

async function pubsub() {
  const sub = await client();
  const heard = [];
  await sub.subscribe(["pubsub:a", "pubsub:b"], (message, channel) => heard.push(`${channel}=${message}`));
  await sub.pSubscribe("pubsub:*", (message, channel) => heard.push(`*${channel}=${message}`));
  assert.equal(await r.publish("pubsub:a", "hello"), 2);
  await until(() => heard.length === 2);
  assert.deepEqual(heard.sort(), ["*pubsub:a=hello", "pubsub:a=hello"]);
  assert.equal((await sub.ping()).toUpperCase(), "PONG");
  // In RESP3 a subscriber may do anything.
  if (protocol === "3") assert.equal(await sub.set("pubsub:k", "v"), "OK");
  await sub.pUnsubscribe("pubsub:*");
  await sub.unsubscribe("pubsub:a");
  assert.equal(await r.publish("pubsub:a", "nobody"), 0);
  heard.length = 0;
  for (let i = 0; i < 100; i++) r.publish("pubsub:b", String(i));
  await until(() => heard.length === 100);
  assert.deepEqual(heard, Array.from({ length: 100 }, (_, i) => `pubsub:b=${i}`));
  await sub.sSubscribe("pubsub:sharded", (message) => heard.push(message));
  assert.equal(await r.sPublish("pubsub:sharded", "hi"), 1);
  await until(() => heard.includes("hi"));
  await sub.sUnsubscribe("pubsub:sharded");
  await sub.unsubscribe();
  // An ordinary client again; some lines bring buffers from here on.
  assert.equal(String(await sub.set("pubsub:k", "v")), "OK");
  close(sub);
}

async function blocking() {
  const waiting = await client();
  const job = waiting.blPop(["blocking:a", "blocking:b"], 10);
  await until(blocked);
  await r.rPush("blocking:b", "job");
  assert.deepEqual({ ...(await job) }, { key: "blocking:b", element: "job" });
  const moved = waiting.blMove("blocking:a", "blocking:c", "LEFT", "RIGHT", 10);
  await until(blocked);
  await r.rPush("blocking:a", "x");
  assert.equal(await moved, "x");
  const least = waiting.bzPopMin("blocking:z", 10);
  await until(blocked);
  await r.zAdd("blocking:z", { score: 1.5, value: "m" });
  assert.deepEqual({ ...(await least) }, { key: "blocking:z", value: "m", score: 1.5 });
  for (let i = 0; i < 3; i++) {
    const start = Date.now();
    assert.equal(await waiting.blPop("blocking:none", 0.2), null);
    assert(Date.now() - start > 150 && Date.now() - start < 5000);
  }
  const [first, second] = [waiting.blPop("blocking:none", 0.1), waiting.ping()];
  assert.deepEqual([await first, await second], [null, "PONG"]);
  close(waiting);
}

async function script() {
  await r.set("script:k", "before");
  for (let i = 0; i < 3; i++) await r.get("script:k");
  await r.scriptFlush();
  await refused(r.evalSha("0".repeat(40)), "NOSCRIPT");
  // EVALSHA, NOSCRIPT, EVAL; from the second time on EVALSHA.
  assert.equal(await r.put("script:k", "after"), "after");
  assert.equal(await r.get("script:k"), "after");
  assert.equal(await r.put("script:k", "again"), "again");
  assert.deepEqual(await r.eval("return {1, 'two', {3, false}}"), [1, "two", [3, null]]);
  await refused(r.eval("return redis.error_reply('MINE no')"), "MINE no");
}

async function stream() {
  const ids = [];
  for (let i = 0; i < 5; i++) ids.push(await r.xAdd("stream:s", "*", { n: String(i) }));
  assert.equal(await r.xGroupCreate("stream:s", "g", "0"), "OK");
  await refused(r.xGroupCreate("stream:s", "g", "0"), "BUSYGROUP");
  // 5.x brings in RESP3 what Redis said, in RESP2 and from 6.0 on objects.
  const idsOf = (reply) => reply && (reply[0]?.messages.map(({ id }) => id) ?? reply["stream:s"].map(([id]) => id));
  const read = async (consumer, more) => idsOf(await r.xReadGroup("g", consumer, { key: "stream:s", id: ">" }, more));
  assert.deepEqual(await read("one", { COUNT: 3 }), ids.slice(0, 3));
  assert.deepEqual(await read("two", { COUNT: 3 }), ids.slice(3));
  assert.equal(await read("two", { BLOCK: 50 }), null);
  assert.equal(await r.xAck("stream:s", "g", ids.slice(0, 2)), 2);
  assert.equal((await r.xPending("stream:s", "g")).pending, 3);
  assert.equal((await r.xAutoClaim("stream:s", "g", "two", 0, "0")).messages[0].id, ids[2]);
  const waiting = await client();
  const late = waiting.xRead({ key: "stream:s", id: "$" }, { BLOCK: 10_000 });
  await until(blocked);
  const id = await r.xAdd("stream:s", "*", { n: "late" });
  assert.deepEqual(idsOf(await late), [id]);
  close(waiting);
}

async function scan() {
  await Promise.all(
    Array.from({ length: 1000 }, (_, i) => String(i)).flatMap((i) => [
      r.set(`scan:${i}`, i),
      r.hSet("scan-h", i, i),
      r.sAdd("scan-s", i),
      r.zAdd("scan-z", { score: Number(i), value: i }),
    ]),
  );
  const all = async (iterator, key) => {
    const seen = new Set();
    for await (const batch of iterator) for (const one of [batch].flat()) seen.add(key ? one[key] : one);
    return seen.size;
  };
  assert.equal(await all(r.scanIterator({ MATCH: "scan:*", COUNT: 100 })), 1000);
  assert.equal(await all(r.hScanIterator("scan-h", { COUNT: 100 }), "field"), 1000);
  assert.equal(await all(r.sScanIterator("scan-s", { COUNT: 100 })), 1000);
  assert.equal(await all(r.zScanIterator("scan-z", { COUNT: 100 }), "value"), 1000);
}

async function large() {
  for (const value of [randomBytes(10 << 20), Buffer.from('{"symbol": "BTCUSDT", "price": 64123.5},'.repeat(250_000))]) {
    assert.equal(await r.set("large:k", value), "OK");
    for (let i = 0; i < 4; i++) assert((await getBuffer(r, "large:k")).equals(value));
  }
}

async function types() {
  await r.hSet("types:h", { f: "v", g: 1 });
  assert.deepEqual({ ...(await r.hGetAll("types:h")) }, { f: "v", g: "1" });
  assert.deepEqual({ ...(await r.hGetAll("types:none")) }, {});
  await r.hSet("types:m", { type: "message", from: "alice", text: "hi" });
  assert.deepEqual(await r.hmGet("types:m", ["type", "from", "text"]), ["message", "alice", "hi"]);
  await r.sAdd("types:s", ["a", "b"]);
  assert.deepEqual([...(await r.sMembers("types:s"))].sort(), ["a", "b"]);
  assert.equal(Boolean(await r.sIsMember("types:s", "a")), true);
  // 4.x does not read what RESP2 calls infinity.
  const scores = [{ value: "a", score: 1 }, { value: "b", score: 2.5 }, { value: "c", score: four ? 3 : Infinity }];
  await r.zAdd("types:z", scores);
  assert.equal(await r.zScore("types:z", "b"), 2.5);
  assert.equal(await r.zScore("types:z", "none"), null);
  const range = await r.zRangeWithScores("types:z", 0, -1);
  assert.deepEqual(range.map((x) => ({ ...x })), scores);
  assert.equal(await r.incrByFloat("types:f", 1.5), "1.5");
  assert.deepEqual({ ...(await r.configGet("maxmemory")) }, { maxmemory: "0" });
  await refused(r.get("types:h"), "WRONGTYPE");
  const typed = await r.eval("redis.setresp(3); return {{double=1.5}, {map={a=1}}, true, false}");
  const plain = typed.map((x) => (x !== null && typeof x === "object" && !Array.isArray(x) ? { ...x } : x));
  assert.deepEqual(plain, protocol === "3" || (!protocol && typeof typed[0] === "number") ? [1.5, { a: 1 }, true, false] : ["1.5", ["a", 1], 1, 0]);
}

async function acl() {
  await r.set("acl:theirs", "secret");
  for (let i = 0; i < 4; i++) await r.get("acl:theirs");
  await r.aclSetUser("app", ["reset", "on", ">pass", "~user:*", "&*", "+@all", "-@dangerous", "+@connection", "+info"]);
  const app = await client({ username: "app", password: "pass" });
  assert.equal(await app.aclWhoAmI(), "app");
  assert.equal(await app.set("user:1", "mine"), "OK");
  for (let i = 0; i < 4; i++) assert.equal(await app.get("user:1"), "mine");
  for (let i = 0; i < 4; i++) await refused(app.get("acl:theirs"), "NOPERM");
  await refused(app.set("acl:theirs", "x"), "NOPERM");
  close(app);
  await refused(unconnected({ username: "app", password: "wrong", socket: { reconnectStrategy: false } }).connect(), "WRONGPASS");
  assert.equal(await r.aclDelUser("app"), 1);
}

async function select() {
  const three = await client({ database: 3 });
  await r.set("select:k", "zero");
  await three.set("select:k", "three");
  for (let i = 0; i < 4; i++) assert.deepEqual([await r.get("select:k"), await three.get("select:k")], ["zero", "three"]);
  await three.select(4);
  assert.equal(await three.get("select:k"), null);
  await refused(three.select(99), "out of range");
  close(three);
}

async function clients() {
  const [one, two] = [await client({ name: "compat-one" }), await client()];
  const ids = [await one.clientId(), await two.clientId()];
  assert(ids[0] > 0 && ids[0] !== ids[1]);
  assert.equal(await one.clientSetName("compat-two"), "OK");
  assert.equal(await one.clientGetName(), "compat-two");
  const info = await one.clientInfo();
  assert.deepEqual([info.id, info.name], [ids[0], "compat-two"]);
  assert((await r.clientList()).some((c) => c.id === ids[0] && c.name === "compat-two"));
  const gone = new Promise((resolve) => two.once("reconnecting", resolve));
  assert.equal(await r.clientKill({ filter: "ID", id: ids[1] }), 1);
  await gone;
  assert(!ids.includes(await two.clientId()));
  close(one, two);
}

async function tracking() {
  if (four || protocol !== "3") throw new Skip("the library's cache needs RESP3 and a newer line");
  const cached = await client({ clientSideCache: { ttl: 0, maxEntries: 0, evictPolicy: "LRU" } });
  await r.set("tracking:k", "one");
  for (let i = 0; i < 3; i++) assert.equal(await cached.get("tracking:k"), "one");
  await r.set("tracking:k", "two");
  // The invalidation is a push, on its way.
  await until(async () => (await cached.get("tracking:k")) === "two");
  close(cached);
}

async function reconnect() {
  const sub = await client();
  const heard = [];
  await sub.subscribe("reconnect:news", (message) => heard.push(message));
  const named = await client({ name: "patient", database: 2 });
  await named.set("reconnect:k", "before");
  await restart();
  // Sent while there is no connection: they wait. What was sent and had no answer fails, so the first may.
  await until(async () => (await named.set("reconnect:k", "after").catch(() => null)) === "OK");
  assert.equal(await named.get("reconnect:k"), "after");
  assert.equal(await named.clientGetName(), "patient");
  await until(async () => {
    await r.publish("reconnect:news", "hello").catch(() => null);
    await sleep(10);
    return heard.length > 0;
  });
  close(sub, named);
}

run(connect, strings, pipeline, transaction, pubsub, blocking, script, stream, scan, large, types, acl, select, clients, tracking, reconnect);
