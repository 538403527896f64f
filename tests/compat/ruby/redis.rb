# redis-rb as an application uses it.
#
# Prints one line per scenario (ok, FAIL or skip, its name, why); see tests/compat/README.md.

require "redis"

URL = ENV.fetch("REDIS_URL")
Skip = Class.new(StandardError)

def client(**more) = Redis.new(url: URL, timeout: 20, **more)

def same(got, expected)
  raise "#{got.inspect[0, 120]} is not #{expected.inspect[0, 120]}" unless got == expected
end

def refused(kind, text)
  got = yield
rescue kind => error
  raise "'#{error.message}' does not hold #{text}" unless error.message.include?(text)
else
  raise "#{text} was expected, got #{got.inspect}"
end

# Waits in a thread until somebody is blocked, then runs the block.
def when_blocked
  Thread.new do
    sleep 0.01 while client.info("clients")["blocked_clients"] == "0"
    yield
  end
end

def restart
  puts "restart"
  same($stdin.gets.strip, "restarted")
end

R = client

SCENARIOS = {
  connect: lambda {
    same(R.ping, "PONG")
    raise "no version" unless R.info["redis_version"]
    raise "few commands" unless R.call(%w[COMMAND COUNT]) > 200
    same(client(id: "me").call(%w[CLIENT GETNAME]), "me")
    # One client for many threads.
    10.times.map { Thread.new { 50.times { R.incr("connect:n") } } }.each(&:join)
    same(R.get("connect:n"), "500")
  },
  strings: lambda {
    ["text", "", (0..255).to_a.pack("C*"), "x" * 5000, "a\r\nb\r\n"].each do |value|
      same(R.set("strings:k", value), "OK")
      4.times { same(R.get("strings:k").b, value.b) }
      same(R.mget("strings:k", "strings:none").map { |v| v&.b }, [value.b, nil])
    end
    same(R.set("strings:k", "v", nx: true), false)
    same(R.incrby("strings:n", 42), 42)
    same(R.setex("strings:e", 100, "v"), "OK")
  },
  pipeline: lambda {
    got = R.pipelined { |p| 1000.times { |i| p.set("pipeline:#{i % 50}", i); p.get("pipeline:#{i % 50}") } }
    same(got, 1000.times.flat_map { |i| ["OK", i.to_s] })
  },
  transaction: lambda {
    R.set("transaction:k", "1")
    3.times { R.get("transaction:k") }
    mine = client
    lost = mine.watch("transaction:k") do
      R.set("transaction:k", "2")
      mine.multi { |t| t.set("transaction:k", "3") }
    end
    same(lost, nil)
    same(mine.watch("transaction:k") { mine.multi { |t| t.incr("transaction:k"); t.get("transaction:k") } }, [3, "3"])
    R.hset("transaction:h", "f", "v")
    refused(Redis::CommandError, "WRONGTYPE") { R.multi { |t| t.incr("transaction:h"); t.incr("transaction:k") } }
    same(R.get("transaction:k"), "4")
  },
  pubsub: lambda {
    heard = []
    publisher = Thread.new do
      c = client
      sleep 0.01 while c.publish("pubsub:a", "hello") < 1
      sleep 0.01 while c.publish("pubsub:a", "bye") < 1
    end
    sub = client
    sub.subscribe("pubsub:a", "pubsub:b") do |on|
      on.subscribe { |channel, count| heard << [channel, count] }
      on.message do |_, message|
        heard << message
        sub.unsubscribe if message == "bye"
      end
    end
    publisher.join
    same(heard[0, 3], [["pubsub:a", 1], ["pubsub:b", 2], "hello"])
    publisher = Thread.new { c = client; sleep 0.01 while c.publish("pubsub:c", "hello") < 1 }
    sub.psubscribe("pubsub:*") do |on|
      on.pmessage { |pattern, channel, message| heard = [pattern, channel, message]; sub.punsubscribe("pubsub:*") }
    end
    publisher.join
    same(heard, ["pubsub:*", "pubsub:c", "hello"])
    # An ordinary client again.
    same(sub.get("pubsub:none"), nil)
    same(R.publish("pubsub:c", "nobody"), 0)
  },
  blocking: lambda {
    pusher = when_blocked { client.rpush("blocking:b", "job") }
    same(client.blpop("blocking:a", "blocking:b", timeout: 10), %w[blocking:b job])
    pusher.join
    pusher = when_blocked { client.zadd("blocking:z", 1.5, "m") }
    same(client.bzpopmin("blocking:z", timeout: 10), ["blocking:z", "m", 1.5])
    pusher.join
    start = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    same(R.blpop("blocking:none", timeout: 0.2), nil)
    raise "too early" if Process.clock_gettime(Process::CLOCK_MONOTONIC) - start < 0.15
  },
  script: lambda {
    put = "redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])"
    R.set("script:k", "before")
    3.times { R.get("script:k") }
    R.script(:flush)
    sha = Digest::SHA1.hexdigest(put)
    refused(Redis::CommandError, "NOSCRIPT") { R.evalsha(sha, ["script:k"], ["no"]) }
    same(R.eval(put, ["script:k"], ["after"]), "after")
    same(R.evalsha(sha, ["script:k"], ["again"]), "again")
    same(R.get("script:k"), "again")
    same(R.eval("return {1, 'two', {3, false}}"), [1, "two", [3, nil]])
  },
  stream: lambda {
    ids = 5.times.map { |i| R.xadd("stream:s", { n: i }) }
    same(R.xgroup(:create, "stream:s", "g", "0"), "OK")
    refused(Redis::CommandError, "BUSYGROUP") { R.xgroup(:create, "stream:s", "g", "0") }
    same(R.xreadgroup("g", "one", "stream:s", ">", count: 3)["stream:s"].map(&:first), ids[0, 3])
    same(R.xreadgroup("g", "two", "stream:s", ">", count: 3)["stream:s"].map(&:first), ids[3, 2])
    same(R.xreadgroup("g", "two", "stream:s", ">", block: 50), {})
    same(R.xack("stream:s", "g", ids[0, 2]), 2)
    same(R.xpending("stream:s", "g")["size"], 3)
    writer = when_blocked { client.xadd("stream:s", { n: "late" }) }
    same(client.xread("stream:s", "$", block: 10_000)["stream:s"][0][1], { "n" => "late" })
    writer.join
  },
  scan: lambda {
    R.pipelined { |p| 1000.times { |i| p.set("scan:#{i}", i); p.hset("scan-h", i, i); p.sadd("scan-s", [i]); p.zadd("scan-z", i, i) } }
    same(R.scan_each(match: "scan:*", count: 100).to_a.uniq.size, 1000)
    same(R.hscan_each("scan-h", count: 100).to_a.uniq.size, 1000)
    same(R.sscan_each("scan-s", count: 100).to_a.uniq.size, 1000)
    same(R.zscan_each("scan-z", count: 100).to_a.uniq.size, 1000)
  },
  large: lambda {
    [Random.bytes(10 << 20), '{"symbol": "BTCUSDT", "price": 64123.5},' * 250_000].each do |value|
      same(R.set("large:k", value), "OK")
      4.times { raise "the value came back changed" unless R.get("large:k").b == value.b }
    end
  },
  types: lambda {
    R.hset("types:h", { f: "v", g: 1 })
    same(R.hgetall("types:h"), { "f" => "v", "g" => "1" })
    R.sadd("types:s", %w[a b])
    same([R.smembers("types:s").sort, R.sismember("types:s", "a")], [%w[a b], true])
    R.zadd("types:z", [[1, "a"], [2.5, "b"], ["inf", "c"]])
    same(R.zscore("types:z", "b"), 2.5)
    same(R.zrange("types:z", 0, -1, with_scores: true), [["a", 1.0], ["b", 2.5], ["c", Float::INFINITY]])
    same(R.config(:get, "maxmemory"), { "maxmemory" => "0" })
    refused(Redis::CommandError, "WRONGTYPE") { R.get("types:h") }
  },
  acl: lambda {
    R.set("acl:theirs", "secret")
    4.times { R.get("acl:theirs") }
    R.call(%w[ACL SETUSER app reset on >pass ~user:* &* +@all -@dangerous +@connection +info])
    app = client(username: "app", password: "pass")
    same(app.call(%w[ACL WHOAMI]), "app")
    same(app.set("user:1", "mine"), "OK")
    4.times do
      same(app.get("user:1"), "mine")
      refused(Redis::CommandError, "NOPERM") { app.get("acl:theirs") }
    end
    refused(Redis::CommandError, "WRONGPASS") { client(username: "app", password: "wrong").ping }
    same(R.call(%w[ACL DELUSER app]), 1)
  },
  select: lambda {
    three = client(db: 3)
    R.set("select:k", "zero")
    three.set("select:k", "three")
    4.times { same([R.get("select:k"), three.get("select:k")], %w[zero three]) }
    refused(Redis::CommandError, "out of range") { three.select(99) }
  },
  clients: lambda {
    one, two = client(id: "compat-one"), client
    id, other = one.call(%w[CLIENT ID]), two.call(%w[CLIENT ID])
    raise "ids #{id}, #{other}" unless id.positive? && other > id
    same(one.client(:getname), "compat-one")
    same(R.client(:list).find { |c| c["id"] == id.to_s }&.fetch("name"), "compat-one")
    same(R.client(:kill, "ID", other), 1)
    # The library connects again by itself.
    raise "the same id" if [id, other].include?(two.call(%w[CLIENT ID]))
  },
  tracking: -> { raise Skip, "the library has no cache of its own" },
  reconnect: lambda {
    c = client(db: 2, id: "patient", reconnect_attempts: 10)
    c.set("reconnect:k", "before")
    restart
    # The library connects again by itself.
    same(c.set("reconnect:k", "after"), "OK")
    same([c.get("reconnect:k"), c.client(:getname)], %w[after patient])
    same(client(db: 2).get("reconnect:k"), "after")
  },
}.freeze

$stdout.sync = true
puts "version redis-rb #{Redis::VERSION}"
SCENARIOS.each do |name, scenario|
  scenario.call
  puts "ok #{name}"
rescue Skip => e
  puts "skip #{name} #{e.message}"
rescue StandardError => e
  warn e.full_message
  line = e.backtrace.map { |at| at[/redis\.rb:(\d+):in `block/, 1] if at.start_with?($PROGRAM_NAME) }.compact.first
  puts "FAIL #{name} line #{line}: #{e.class}: #{e.message.split.join(' ')[0, 300]}"
end
