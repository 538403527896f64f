# shellcheck shell=bash
# The tools people keep beside Redis, each started once: scripts/compat --tools sources this.
#
# A tool passes when it ends well, says what it should, and shows no error.

# Seconds for any one of them; far more than a loaded machine needs.
readonly TOOL_LIMIT=60

# tool NAME PART COMMAND…   what it says must hold PART.
tool() {
  local name=$1 part=$2 said="$work_dir/said" pid alarm result=0
  shift 2
  wanted "$name" || return 0
  # Its stdin is ours, which spawn would close.
  set -m
  "$@" >"$said" 2>&1 <&0 &
  pid=$!
  (sleep "$TOOL_LIMIT" && kill -- "-$pid") 2>/dev/null &
  alarm=$!
  set +m
  started="$started $pid $alarm"
  wait "$pid" || result=$?
  stop "$alarm"
  tr '\r' '\n' <"$said" >"$said.lines"
  if [ "$result" -eq 143 ]; then
    outcome "$name" tool FAIL "it did not end within $TOOL_LIMIT s: $(tail -n 1 "$said.lines")"
  elif [ "$result" -ne 0 ]; then
    outcome "$name" tool FAIL "it ended with $result: $(tail -n 1 "$said.lines")"
  elif grep -E 'ERR |\(error\)|^Error|[Cc]ould not|not be reached' "$said.lines" >"$work_dir/complaint"; then
    outcome "$name" tool FAIL "$(head -n 1 "$work_dir/complaint")"
  elif ! grep -qF -- "$part" "$said.lines"; then
    outcome "$name" tool FAIL "it does not say '$part' but: $(tail -n 2 "$said.lines" | tr '\n' ' ' | cut -c 1-200)"
  else
    outcome "$name" tool ok
  fi
}

# while_it_runs PROGRAM… -- COMMAND…   runs the command while the program runs, then ends the program.
while_it_runs() {
  local program=() result=0
  while [ "$1" != -- ]; do program+=("$1"); shift; done
  shift
  spawn "${program[@]}" >"$work_dir/program" 2>&1
  local pid=$spawned
  "$@" || result=$?
  stop "$pid"
  return "$result"
}

# Prints what the running program has said, once it has said this.
has_said() {
  local tries=100
  until grep -qF -- "$1" "$work_dir/program"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || break
    sleep 0.1
  done
  cat "$work_dir/program"
}

# http PORT PATH   one GET, tried until somebody listens.
http() {
  local tries=100
  until answers 127.0.0.1 "$1"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || return 1
    sleep 0.1
  done
  exec 5<>"/dev/tcp/127.0.0.1/$1"
  printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' "$2" >&5
  cat <&5
  exec 5>&-
}

cli() { redis-cli -p "$port" "$@"; }

some_data() {
  seq 1000 | sed 's/.*/SET key:& value:&/'
  seq 100 | sed 's/.*/HSET hash f& v/; p; s/HSET hash f\([0-9]*\) v/ZADD zset \1 m/'
  printf 'RPUSH list a b c\nSADD set a b\nXADD stream * f v\n'
}

monitor() {
  cli PING >/dev/null
  while_it_runs redis-cli -p "$port" MONITOR -- seen_in_monitor
}
seen_in_monitor() {
  has_said OK >/dev/null
  cli SET seen-in-monitor 1 >/dev/null
  has_said '"SET" "seen-in-monitor" "1"'
}

stat_lines() {
  # Without a terminal it keeps its lines until they fill a block.
  while_it_runs stdbuf -oL redis-cli -p "$port" --stat -i 0.2 -- has_said keys
  while_it_runs stdbuf -oL redis-cli -p "$port" --stat -i 0.2 -- has_said 1005
}

lua_debugger() {
  printf 'return redis.call("GET", KEYS[1])\n' >"$work_dir/debug.lua"
  printf 'step\n' | cli --ldb --eval "$work_dir/debug.lua" key:1
}

exporter() {
  local web
  web=$(random_port)
  while_it_runs prometheus-redis-exporter -redis.addr "redis://127.0.0.1:$port" -web.listen-address "127.0.0.1:$web" \
    -check-keys 'key:1*' -check-streams stream -export-client-list -include-config-metrics -- http "$web" /metrics |
    grep -E '^redis_(up|exporter_last_scrape_error|connected_clients|db_keys|slowlog_length|latency_spike|key_size|stream_length|config_maxmemory |exporter_last_key)'
}

commander() { # PATH
  local web
  web=$(random_port)
  while_it_runs node tests/compat/node/node_modules/.bin/redis-commander --redis-host 127.0.0.1 --redis-port "$port" \
    --address 127.0.0.1 --port "$web" --nosave --noload -- http "$web" "${1//PORT/$port}"
}

start_servers

tool redis-cli--pipe "errors: 0, replies: 1203" cli --pipe < <(some_data)
tool redis-benchmark "MSET (10 keys)" redis-benchmark -p "$port" -q -n 1000 -c 10
tool redis-benchmark-P "GET" redis-benchmark -p "$port" -q -n 2000 -c 10 -P 16 -r 1000 -d 2000 -t set,get,incr,mset
tool redis-benchmark-3 "GET" redis-benchmark -p "$port" -q -n 1000 -c 10 -3 -t set,get
tool redis-benchmark-eval "EVAL" redis-benchmark -p "$port" -q -n 500 -c 10 EVAL "return redis.call('GET', KEYS[1])" 1 key:1
cli FLUSHALL >/dev/null
some_data | cli --pipe >/dev/null
tool redis-cli--scan "key:1000" cli --scan --pattern 'key:100*'
tool redis-cli--bigkeys "Biggest hash" cli --bigkeys
tool redis-cli--memkeys "Biggest hash" cli --memkeys
cli CONFIG SET maxmemory-policy allkeys-lfu >/dev/null
tool redis-cli--hotkeys "Sampled 1005 keys" cli --hotkeys
cli CONFIG SET maxmemory-policy noeviction >/dev/null
tool redis-cli--latency " " cli --latency --raw -i 0.5
tool redis-cli--stat 1005 stat_lines
tool redis-cli--ldb "Lua debugging session ended" lua_debugger
tool redis-cli-MONITOR '"SET" "seen-in-monitor" "1"' monitor
tool redis-cli-COMMAND-DOCS summary cli COMMAND DOCS set
tool redis-cli-LATENCY-DOCTOR "Dave" cli LATENCY DOCTOR
tool redis-cli-MEMORY-DOCTOR "Sam" cli MEMORY DOCTOR

if command -v prometheus-redis-exporter >/dev/null; then
  tool exporter-up "redis_up 1" exporter
  tool exporter-scrape "redis_exporter_last_scrape_error{err=\"\"} 0" exporter
  tool exporter-keys 'redis_db_keys{db="db0"} 1006' exporter
else
  outcome exporter tool skip "NOT TESTED: prometheus-redis-exporter is missing; try scripts/setup compat"
fi

if [ -x tests/compat/node/node_modules/.bin/redis-commander ] && command -v node >/dev/null; then
  tool commander-connections '"ok":true' commander /connections
  tool commander-info 'Redis version' commander /apiv2/server/info
  tool commander-tree '"key:' commander '/apiv2/keystree/R:127.0.0.1:PORT:0'
  tool commander-key '"f1":"v"' commander '/apiv2/key/R:127.0.0.1:PORT:0/hash'
else
  outcome commander tool skip "NOT TESTED: redis-commander is missing; try scripts/setup compat"
fi

stop_servers
