# shellcheck shell=bash
# Sourced by scripts/run, scripts/demo and scripts/compat: starts private servers on loopback, with their files in one
# temporary folder, and stops them. Every program started here leads its own process group, so a Ctrl-C in the terminal
# reaches only the script, which then stops the programs in order. Works with bash 3.2 (macOS). It must not stop
# anything that it did not start.

# Debian and its derivatives install servers in folders that are not on an ordinary user's PATH.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# Seconds for a program to exit after SIGTERM; more than Shortstop's own limit (timeouts.shutdown).
readonly STOP_LIMIT=15

work_dir=""   # all files are written here
started=""    # process ids, oldest first
spawned=""    # the id of the program started last
ready=""      # once set, a signal is the normal end
profile=release # the build of Shortstop to make and start: release or debug
redis_options="" # more words for the command line of redis-server

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# A URL without its user and password, for messages.
without_password() { printf '%s' "$1" | sed 's,//.*@,//***@,'; }

begin() {
  work_dir=$(mktemp -d "${TMPDIR:-/tmp}/shortstop.XXXXXX")
  trap end EXIT
  trap 'on_signal 130' INT
  # PIPE: in `make run | tee file`, a Ctrl-C ends tee too, and the next line printed gets SIGPIPE.
  trap 'on_signal 143' TERM HUP PIPE
}

on_signal() {
  [ -z "$ready" ] || exit 0
  exit "$1"
}

# spawn command…   starts the command in the background, and sets $spawned to its process id.
spawn() {
  set -m
  "$@" </dev/null &
  spawned=$!
  set +m
  started="$started $spawned"
}

running() { kill -0 "$1" 2>/dev/null; }

# Signals the whole group, because compilers are children of cargo.
signal_group() { kill -s "$1" -- "-$2" 2>/dev/null || true; }

# stop pid   sends SIGTERM, waits, and sends SIGKILL after STOP_LIMIT.
stop() {
  local pid=$1 tries=$((STOP_LIMIT * 20))
  signal_group TERM "$pid"
  while running "$pid"; do
    tries=$((tries - 1))
    if [ "$tries" -le 0 ]; then
      say "process $pid did not end within $STOP_LIMIT s: killed" >&2
      signal_group KILL "$pid"
      break
    fi
    sleep 0.05
  done
  wait "$pid" 2>/dev/null || true
}

# Newest first, so that no program loses a server that it uses. A second Ctrl-C here kills all at once.
end() {
  local status=$? pid newest_first=""
  set +e
  trap - EXIT
  trap '' PIPE
  trap kill_all INT TERM HUP
  [ -z "$ready" ] || { say; say "Stopping."; }
  for pid in $started; do newest_first="$pid $newest_first"; done
  for pid in $newest_first; do stop "$pid"; done
  rm -rf "$work_dir"
  exit "$status"
}

kill_all() {
  local pid
  for pid in $started; do
    if running "$pid"; then signal_group KILL "$pid"; fi
  done
}

# answers host port   succeeds if a server listens there.
answers() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }

# Below the range of ports for outgoing connections (Linux: 32768, macOS: 49152).
random_port() { say $((20000 + RANDOM % 12000)); }

# A port that looks free may be taken before the server binds it, so each server is tried on several
# ports until it is up. A server that did not start has logged the reason.
start_redis() { # sets redis_port and redis_pid
  for _ in 1 2 3 4 5; do
    redis_port=$(random_port)
    if answers 127.0.0.1 "$redis_port"; then continue; fi
    if start_redis_on "$redis_port"; then return; fi
  done
  die "redis-server does not start: $(tail -n 3 "$work_dir/redis.log" 2>/dev/null)"
}

start_redis_on() { # port; sets redis_pid; false when it does not start there
  # shellcheck disable=SC2086 # words
  spawn redis-server --bind 127.0.0.1 --port "$1" --dir "$work_dir" \
    --save '' --appendonly no --logfile "$work_dir/redis.log" $redis_options
  # shellcheck disable=SC2034 # read by the scripts that source this
  redis_pid=$spawned
  wait_until "$spawned" redis_is_ours "$1" "$spawned"
}

redis_is_ours() {
  # Not grep -q: it exits early, and with pipefail the broken pipe would count as a failure.
  redis-cli -p "$1" INFO server 2>/dev/null | tr -d '\r' | grep -x "process_id:$2" >/dev/null
}

start_nats() { # sets nats_port
  for _ in 1 2 3 4 5; do
    nats_port=$(random_port)
    if answers 127.0.0.1 "$nats_port"; then continue; fi
    rm -f "$work_dir/nats.log"
    spawn nats-server --addr 127.0.0.1 --port "$nats_port" --log "$work_dir/nats.log"
    if wait_until "$spawned" grep -qs 'Server is ready' "$work_dir/nats.log"; then return; fi
  done
  die "nats-server does not start: $(tail -n 3 "$work_dir/nats.log" 2>/dev/null)"
}

# start_shortstop name [argument…]   starts Shortstop with the current environment; sets shortstop_addr and shortstop_pid.
start_shortstop() {
  local name=$1
  shift
  local out="$work_dir/$name.out"
  : >"$out"
  spawn_shortstop "$out" "$@"
  shortstop_pid=$spawned
  # No time limit here: Shortstop logs that it is ready, or exits.
  while ! grep -q '^shortstop listening on ' "$out"; do
    running "$shortstop_pid" || die "Shortstop did not start; its own words are above."
    sleep 0.05
  done
  # shellcheck disable=SC2034 # read by the scripts that source this
  shortstop_addr=$(sed -n 's/^shortstop listening on //p' "$out" | head -n 1)
}

spawn_shortstop() {
  local out=$1
  shift
  spawn "${CARGO_TARGET_DIR:-target}/$profile/shortstop" "$@" >"$out"
}

# wait_until pid command…   succeeds once the command succeeds; fails when the process exits or after 10 s.
wait_until() {
  local pid=$1 tries=200
  shift
  until "$@"; do
    tries=$((tries - 1))
    if [ "$tries" -le 0 ]; then
      stop "$pid"
      return 1
    fi
    running "$pid" || return 1
    sleep 0.05
  done
}

# build cargo-arguments…
build() {
  local failed=0
  command -v cargo >/dev/null || die "cargo is missing: run scripts/setup run"
  say "Building (the first time takes a while)."
  if [ "$profile" = release ]; then set -- --release "$@"; fi
  spawn cargo build "$@"
  wait "$spawned" || failed=$?
  [ "$failed" -eq 0 ] || die "the build failed (cargo ended with $failed)"
}
