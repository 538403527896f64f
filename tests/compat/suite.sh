# shellcheck shell=bash
# redis-py's own tests, to Redis and through Shortstop: scripts/compat --suite redis-py sources this.
#
# Which tests, and how two runs are compared: tests/compat/python/suite.py.

# suite VERSION PROTOCOL
suite() {
  local name=redis-py-$1-resp$2 folder=$made/redis-py-$1-suite direct_port direct_pid word scenario why
  wanted "$name" || return 0
  if [ ! -d "$folder/redis-$1/tests" ]; then
    outcome "$name" suite skip "NOT TESTED: its tests are missing; try scripts/setup compat-suite"
    return
  fi
  # Two of them, because the two runs go on at the same time.
  start_redis
  direct_port=$redis_port
  direct_pid=$redis_pid
  start_redis
  port=$redis_port
  [ -n "$direct" ] || start_shortstop_on 0
  while read -r word scenario why; do
    case $word in
      note) say "$name: $scenario $why" ;;
      *) outcome "$name" "$scenario" "$word" "$why" ;;
    esac
  done < <("$folder/venv/bin/python" tests/compat/python/suite.py "$folder/redis-$1" "$2" \
    "redis://127.0.0.1:$direct_port/0" "redis://127.0.0.1:$port/0")
  stop_servers
  stop "$direct_pid"
}

# Some tests ask for errors with DEBUG.
# shellcheck disable=SC2034 # read by lib.sh
redis_options="--enable-debug-command yes"
suite 7.4.1 2
suite 7.4.1 3
suite 8.1.0 3
