#!/usr/bin/env bash
# redis-cli as people use it in scripts. Argument: the protocol, 2 or 3.
#
# Prints one line per scenario (ok, FAIL or skip, its name, why); see tests/compat/README.md.
set -uo pipefail

port=${REDIS_URL##*:}
protocol=${1:-2}
command=(redis-cli -p "$port")
if [ "$protocol" = 3 ]; then command+=(-3); fi
cli() { "${command[@]}" "$@"; }
files=$(mktemp -d "${TMPDIR:-/tmp}/compat-cli.XXXXXX")
trap 'rm -rf "$files"' EXIT

why=""
# is WHAT GOT EXPECTED   notes the first difference of a scenario.
is() { [ -n "$why" ] || [ "$2" = "$3" ] || why="$1: $(printf '%s' "$2" | head -c 200 | tr '\n' '|') is not $(printf '%s' "$3" | head -c 200 | tr '\n' '|')"; }
# holds WHAT GOT PART
holds() { case $2 in *"$3"*) ;; *) is "$@" ;; esac; }
# three protocol's text, two protocol's
by_protocol() { if [ "$protocol" = 3 ]; then printf '%b' "$1"; else printf '%b' "$2"; fi; }

connect() {
  is ping "$(cli PING)" PONG
  holds info "$(cli INFO server)" redis_version:
  # With a terminal redis-cli asks for COMMAND DOCS by itself.
  holds docs "$(cli COMMAND DOCS get)" summary
  is inline "$(printf 'PING\r\nECHO hi\r\n' | timeout 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port; cat >&3; head -n 3 <&3" | tr -d '\r')" $'+PONG\n$2\nhi'
}

strings() {
  local value i
  for value in text "" "grüße" $'two\nlines'; do
    is set "$(cli SET strings:k "$value")" OK
    for i in 1 2 3 4; do is get "$(cli GET strings:k)" "$value"; done
  done
  head -c 3000 /dev/urandom >"$files/bytes"
  is -x "$(cli -x SET strings:b <"$files/bytes")" OK
  # redis-cli ends what it prints with a line feed.
  is "binary value" "$(cli GET strings:b | head -c 3000 | cksum)" "$(cksum <"$files/bytes")"
  is nil "$(cli --no-raw GET strings:none)" "(nil)"
  is number "$(cli --no-raw INCRBY strings:n 42)" "(integer) 42"
}

pipeline() {
  local i
  for i in $(seq 1000); do printf 'SET pipeline:%d %d\r\n' $((i % 50)) "$i"; done >"$files/sets"
  holds --pipe "$(cli --pipe <"$files/sets")" "errors: 0, replies: 1000"
  is lines "$(cli <"$files/sets" | sort | uniq -c | tr -s ' ')" " 1000 OK"
  is repeat "$(cli -r 5 INCR pipeline:n | tail -n 1)" 5
}

transaction() {
  is exec "$(printf 'MULTI\nSET transaction:k 1\nINCR transaction:k\nEXEC\n' | cli)" $'OK\nQUEUED\nQUEUED\nOK\n2'
  is discard "$(printf 'MULTI\nINCR transaction:k\nDISCARD\nGET transaction:k\n' | cli)" $'OK\nQUEUED\nOK\n2'
  # The conflict: another client writes between WATCH and EXEC.
  is conflict "$( (printf 'WATCH transaction:k\n'; sleep 0.3; cli SET transaction:k other >"$files/other"; printf 'MULTI\nSET transaction:k mine\nEXEC\n') | cli --no-raw)" \
    "$(printf 'OK\nOK\nQUEUED\n(nil)')"
  is "who was first" "$(cli GET transaction:k)" other
  holds abort "$(printf 'MULTI\nNOSUCH\nEXEC\n' | cli 2>&1)" EXECABORT
}

# The lines that a command which never ends has said so far, once there are enough of them.
said() { # file lines
  local tries=200
  while [ "$(wc -l <"$1")" -lt "$2" ] && [ "$tries" -gt 0 ]; do tries=$((tries - 1)); sleep 0.05; done
  head -n "$2" "$1"
}

pubsub() {
  local sub psub
  # Not by the function, so that the ids are those of redis-cli.
  "${command[@]}" SUBSCRIBE pubsub:a >"$files/sub" & sub=$!
  "${command[@]}" PSUBSCRIBE 'pubsub:*' >"$files/psub" & psub=$!
  said "$files/sub" 3 >"$files/ready"
  said "$files/psub" 3 >>"$files/ready"
  is publish "$(cli PUBLISH pubsub:a hello)" 2
  is message "$(said "$files/sub" 6 | tail -n 3)" $'message\npubsub:a\nhello'
  is pmessage "$(said "$files/psub" 7 | tail -n 4)" $'pmessage\npubsub:*\npubsub:a\nhello'
  kill $sub $psub
  wait $sub $psub 2>/dev/null
  while [ "$(cli PUBLISH pubsub:a nobody)" != 0 ]; do sleep 0.05; done
}

blocking() {
  local waiter
  cli BLPOP blocking:a blocking:b 10 >"$files/popped" & waiter=$!
  while cli INFO clients | grep -q blocked_clients:0; do sleep 0.02; done
  is push "$(cli RPUSH blocking:b job)" 1
  wait $waiter
  is popped "$(cat "$files/popped")" $'blocking:b\njob'
  is time-out "$(cli --no-raw BLPOP blocking:none 0.2)" "(nil)"
}

script() {
  local sha
  echo "redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])" >"$files/put.lua"
  is --eval "$(cli --eval "$files/put.lua" script:k , after)" after
  is get "$(cli GET script:k)" after
  sha=$(cli SCRIPT LOAD "return ARGV[1]")
  is evalsha "$(cli EVALSHA "$sha" 0 hi)" hi
  is flush "$(cli SCRIPT FLUSH)" OK
  holds noscript "$(cli EVALSHA "$sha" 0 hi 2>&1)" NOSCRIPT
  is nested "$(cli --no-raw EVAL "return {1, 'two', {3, false}}" 0)" $'1) (integer) 1\n2) "two"\n3) 1) (integer) 3\n   2) (nil)'
}

stream() {
  local first
  first=$(cli XADD stream:s '*' n 0)
  cli XADD stream:s '*' n 1 >"$files/id"
  is create "$(cli XGROUP CREATE stream:s g 0)" OK
  holds busy "$(cli XGROUP CREATE stream:s g 0 2>&1)" BUSYGROUP
  is read "$(cli XREADGROUP GROUP g one COUNT 1 STREAMS stream:s '>' | tr '\n' ' ')" "stream:s $first n 0 "
  is ack "$(cli XACK stream:s g "$first")" 1
  is nothing "$(cli XREADGROUP GROUP g two COUNT 5 BLOCK 50 STREAMS stream:s '>' | tail -n 1)" 1
}

scan() {
  seq 1000 | sed 's/.*/SET scan:& &/' | cli --pipe >"$files/out"
  seq 1000 | sed 's/.*/HSET scan-h & &/' | cli --pipe >"$files/out"
  is --scan "$(cli --scan --pattern 'scan:*' | sort -u | wc -l | tr -d ' ')" 1000
  holds hscan "$(cli HSCAN scan-h 0 COUNT 2000)" 1000
}

large() {
  local kind
  for kind in random text; do
    if [ $kind = random ]; then head -c 10485760 /dev/urandom; else yes '{"symbol": "BTCUSDT"},' | head -c 10485760; fi >"$files/large"
    is set "$(cli -x SET large:k <"$files/large")" OK
    is "the $kind value" "$(cli GET large:k | head -c 10485760 | cksum)" "$(cksum <"$files/large")"
  done
}

types() {
  cli HSET types:h f v >"$files/out"
  cli SADD types:s a >"$files/out"
  cli ZADD types:z 2.5 b >"$files/out"
  is hash "$(cli --no-raw HGETALL types:h)" "$(by_protocol '1# "f" => "v"' '1) "f"\n2) "v"')"
  is set "$(cli --no-raw SMEMBERS types:s)" "$(by_protocol '1~ "a"' '1) "a"')"
  is score "$(cli --no-raw ZSCORE types:z b)" "$(by_protocol '(double) 2.5' '"2.5"')"
  is csv "$(cli --csv HGETALL types:h)" "$(by_protocol '"f","v"' '"f","v"')"
  is json "$(cli --json HGETALL types:h)" '{"f":"v"}'
  is typed "$(cli --no-raw EVAL "redis.setresp(3); return {{double=1.5}, {map={a=1}}, true, false}" 0)" \
    "$(by_protocol '1) (double) 1.5\n2) 1# "a" => (integer) 1\n3) (true)\n4) (false)' '1) "1.5"\n2) 1) "a"\n   2) (integer) 1\n3) (integer) 1\n4) (integer) 0')"
  holds wrong "$(cli GET types:h 2>&1)" WRONGTYPE
}

acl() {
  local i
  cli SET acl:theirs secret >"$files/out"
  for i in 1 2 3 4; do is secret "$(cli GET acl:theirs)" secret; done
  is setuser "$(cli ACL SETUSER app reset on '>pass' '~user:*' '&*' +@all -@dangerous +@connection +info)" OK
  is whoami "$(cli --user app --pass pass --no-auth-warning ACL WHOAMI)" app
  is set "$(cli --user app --pass pass --no-auth-warning SET user:1 mine)" OK
  for i in 1 2 3 4; do is get "$(cli --user app --pass pass --no-auth-warning GET user:1)" mine; done
  holds forbidden "$(cli --user app --pass pass --no-auth-warning GET acl:theirs 2>&1)" NOPERM
  holds wrong "$(cli --user app --pass wrong --no-auth-warning PING 2>&1)" WRONGPASS
  is deluser "$(cli ACL DELUSER app)" 1
}

select_database() {
  is set "$(cli -n 3 SET select:k three)" OK
  is "in 0" "$(cli --no-raw GET select:k)" "(nil)"
  is "in 3" "$(cli -n 3 GET select:k)" three
  holds range "$(cli -n 99 PING 2>&1)" "out of range"
  is select "$(printf 'SELECT 3\nGET select:k\nSELECT 0\nGET select:k\n' | cli --no-raw)" $'OK\n"three"\nOK\n(nil)'
}

clients() {
  local id sleeper
  is name "$(printf 'CLIENT SETNAME compat-one\nCLIENT GETNAME\n' | cli)" $'OK\ncompat-one'
  (printf 'CLIENT SETNAME compat-two\nCLIENT ID\n'; sleep 5) | cli >"$files/two" & sleeper=$!
  id=$(said "$files/two" 2 | tail -n 1)
  holds list "$(cli CLIENT LIST | grep name=compat-two)" "id=$id "
  is kill "$(cli CLIENT KILL ID "$id")" 1
  is gone "$(cli CLIENT LIST | grep -c name=compat-two)" 0
  wait $sleeper
}

tracking() {
  [ "$protocol" = 3 ] || { why="skip redis-cli shows pushes in RESP3 only"; return; }
  # The push comes while the next command waits for its answer.
  (printf 'CLIENT TRACKING ON\nGET tracking:k\n'; sleep 0.3; cli SET tracking:k new >"$files/out"; printf 'PING\n'; sleep 0.2; printf 'PING\n') |
    cli --show-pushes yes >"$files/tracked"
  holds push "$(cat "$files/tracked")" tracking:k
}

reconnect() {
  local answer
  # One redis-cli that lives through the restart: it connects again for the command after the one that failed.
  mkfifo "$files/commands"
  cli <"$files/commands" >"$files/answers" 2>&1 &
  exec 5>"$files/commands"
  printf 'SET reconnect:k before\n' >&5
  said "$files/answers" 1 >"$files/ready"
  echo restart
  read -r answer
  is restart "$answer" restarted
  printf 'PING\nPING\nSET reconnect:k after\nGET reconnect:k\n' >&5
  exec 5>&-
  wait $!
  is answers "$(tail -n 2 "$files/answers")" $'OK\nafter'
}

echo "version $(redis-cli --version)"
for scenario in connect strings pipeline transaction pubsub blocking script stream scan large types acl select clients \
  tracking reconnect; do
  why=""
  if [ $scenario = select ]; then select_database; else $scenario; fi
  case $why in
    "") echo "ok $scenario" ;;
    skip\ *) echo "skip $scenario ${why#skip }" ;;
    *) echo "FAIL $scenario $why" ;;
  esac
done
