// Redigo as an application uses it: a pool, and commands by name.
package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"
)

var pool = &redis.Pool{
	MaxIdle:      10,
	Dial:         func() (redis.Conn, error) { return redis.Dial("tcp", address, redis.DialReadTimeout(20*time.Second)) },
	TestOnBorrow: func(c redis.Conn, _ time.Time) error { _, err := c.Do("PING"); return err },
}

// do runs one command, its words divided by spaces, on a connection of the pool.
func do(words string) (interface{}, error) {
	c := pool.Get()
	defer c.Close()
	return on(c, words)
}

func on(c redis.Conn, words string) (interface{}, error) {
	parts := strings.Split(words, " ")
	arguments := redis.Args{}.AddFlat(parts[1:])
	return c.Do(parts[0], arguments...)
}

func text(reply interface{}, err error) string {
	got, err := redis.String(reply, err)
	no(err)
	return got
}

func number(reply interface{}, err error) int64 {
	got, err := redis.Int64(reply, err)
	no(err)
	return got
}

func untilBlocked() {
	for strings.Contains(text(do("INFO clients")), "blocked_clients:0") {
		time.Sleep(10 * time.Millisecond)
	}
}

func main() {
	fmt.Println("version redigo from Debian")
	run(
		scenario{"connect", func() {
			same(text(do("PING")), "PONG")
			check(strings.Contains(text(do("INFO server")), "redis_version:"), "no version")
			check(number(do("COMMAND COUNT")) > 200, "few commands")
			c, err := redis.Dial("tcp", address, redis.DialClientName("me"), redis.DialDatabase(1))
			no(err)
			same(text(on(c, "CLIENT GETNAME")), "me")
			done := make(chan error)
			for i := 0; i < 10; i++ {
				go func() {
					var err error
					for i := 0; i < 50 && err == nil; i++ {
						_, err = do("INCR connect:n")
					}
					done <- err
				}()
			}
			for i := 0; i < 10; i++ {
				no(<-done)
			}
			same(text(do("GET connect:n")), "500")
		}},
		scenario{"strings", func() {
			c := pool.Get()
			defer c.Close()
			for _, value := range []string{"text", "", everyByte(), "a\r\nb\r\n"} {
				same(text(c.Do("SET", "strings:k", value)), "OK")
				for i := 0; i < 4; i++ {
					same(text(c.Do("GET", "strings:k")), value)
				}
			}
			_, err := redis.String(do("GET strings:none"))
			same(err, redis.ErrNil)
			same(number(do("INCRBY strings:n 42")), int64(42))
		}},
		scenario{"pipeline", func() {
			c := pool.Get()
			defer c.Close()
			for i := 0; i < 1000; i++ {
				no(c.Send("SET", "pipeline:"+strconv.Itoa(i%50), i))
				no(c.Send("GET", "pipeline:"+strconv.Itoa(i%50)))
			}
			no(c.Flush())
			for i := 0; i < 1000; i++ {
				same(text(c.Receive()), "OK")
				same(text(c.Receive()), strconv.Itoa(i))
			}
		}},
		scenario{"transaction", func() {
			c := pool.Get()
			defer c.Close()
			same(text(do("SET transaction:k 1")), "OK")
			for i := 0; i < 3; i++ {
				same(text(do("GET transaction:k")), "1")
			}
			same(text(on(c, "WATCH transaction:k")), "OK")
			same(text(do("SET transaction:k 2")), "OK")
			no(c.Send("MULTI"))
			no(c.Send("SET", "transaction:k", "3"))
			lost, err := c.Do("EXEC")
			no(err)
			same(lost, nil)
			same(text(on(c, "WATCH transaction:k")), "OK")
			no(c.Send("MULTI"))
			no(c.Send("INCR", "transaction:k"))
			no(c.Send("GET", "transaction:k"))
			won, err := redis.Values(c.Do("EXEC"))
			no(err)
			same(won, []interface{}{int64(3), []byte("3")})
			no(c.Send("MULTI"))
			no(c.Send("INCR", "transaction:k"))
			no(c.Send("NOSUCH"))
			_, err = c.Do("EXEC")
			check(err != nil, "EXECABORT was expected")
			same(text(do("GET transaction:k")), "3")
		}},
		scenario{"pubsub", func() {
			sub := redis.PubSubConn{Conn: pool.Get()}
			no(sub.Subscribe("pubsub:a", "pubsub:b"))
			same(sub.Receive(), redis.Subscription{Kind: "subscribe", Channel: "pubsub:a", Count: 1})
			same(sub.Receive(), redis.Subscription{Kind: "subscribe", Channel: "pubsub:b", Count: 2})
			no(sub.PSubscribe("pubsub:*"))
			same(sub.Receive(), redis.Subscription{Kind: "psubscribe", Channel: "pubsub:*", Count: 3})
			same(number(do("PUBLISH pubsub:a hello")), int64(2))
			same(sub.Receive(), redis.Message{Channel: "pubsub:a", Data: []byte("hello")})
			same(sub.Receive(), redis.Message{Channel: "pubsub:a", Pattern: "pubsub:*", Data: []byte("hello")})
			no(sub.Ping("still there"))
			same(sub.Receive(), redis.Pong{Data: "still there"})
			no(sub.PUnsubscribe())
			same(sub.Receive(), redis.Subscription{Kind: "punsubscribe", Channel: "pubsub:*", Count: 2})
			// The pool unsubscribes from what is left before it takes the connection back.
			no(sub.Close())
			for number(do("PUBLISH pubsub:a nobody")) != 0 {
				time.Sleep(10 * time.Millisecond)
			}
		}},
		scenario{"blocking", func() {
			go func() { untilBlocked(); number(do("RPUSH blocking:b job")) }()
			job, err := redis.Strings(do("BLPOP blocking:a blocking:b 10"))
			no(err)
			same(job, []string{"blocking:b", "job"})
			for i := 0; i < 3; i++ {
				start := time.Now()
				_, err = redis.Strings(do("BLPOP blocking:none 0.2"))
				same(err, redis.ErrNil)
				check(time.Since(start) > 150*time.Millisecond && time.Since(start) < 5*time.Second, "the time-out")
			}
		}},
		scenario{"script", func() {
			c := pool.Get()
			defer c.Close()
			put := redis.NewScript(1, "redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])")
			same(text(do("SET script:k before")), "OK")
			for i := 0; i < 3; i++ {
				same(text(do("GET script:k")), "before")
			}
			same(text(do("SCRIPT FLUSH")), "OK")
			_, err := do("EVALSHA " + put.Hash() + " 1 script:k no")
			refused(err, "NOSCRIPT")
			// EVALSHA, NOSCRIPT, EVAL.
			same(text(put.Do(c, "script:k", "after")), "after")
			same(text(do("GET script:k")), "after")
		}},
		scenario{"stream", func() {
			first := text(do("XADD stream:s * n 0"))
			text(do("XADD stream:s * n 1"))
			same(text(do("XGROUP CREATE stream:s g 0")), "OK")
			_, err := do("XGROUP CREATE stream:s g 0")
			refused(err, "BUSYGROUP")
			got, err := redis.Values(do("XREADGROUP GROUP g one COUNT 1 STREAMS stream:s >"))
			no(err)
			check(strings.Contains(fmt.Sprintf("%s", got), first), "the first entry")
			same(number(do("XACK stream:s g "+first)), int64(1))
		}},
		scenario{"scan", func() {
			c := pool.Get()
			defer c.Close()
			for i := 0; i < 1000; i++ {
				no(c.Send("SET", "scan:"+strconv.Itoa(i), i))
				no(c.Send("HSET", "scan-h", i, i))
				no(c.Send("SADD", "scan-s", i))
				no(c.Send("ZADD", "scan-z", i, i))
			}
			_, err := c.Do("")
			no(err)
			for what, expected := range map[string]int{"SCAN %s MATCH scan:*": 1000, "HSCAN scan-h %s": 2000, "SSCAN scan-s %s": 1000, "ZSCAN scan-z %s": 2000} {
				cursor, count := "0", 0
				for first := true; first || cursor != "0"; first = false {
					page, err := redis.Values(on(c, fmt.Sprintf(what, cursor)+" COUNT 100"))
					no(err)
					cursor = text(page[0], nil)
					count += len(page[1].([]interface{}))
				}
				same(count, expected)
			}
		}},
		scenario{"large", func() {
			c := pool.Get()
			defer c.Close()
			for _, value := range largeValues() {
				same(text(c.Do("SET", "large:k", value)), "OK")
				for i := 0; i < 4; i++ {
					check(text(c.Do("GET", "large:k")) == value, "the value came back changed")
				}
			}
		}},
		scenario{"types", func() {
			same(number(do("HSET types:h f v g 1")), int64(2))
			hash, err := redis.StringMap(do("HGETALL types:h"))
			no(err)
			same(hash, map[string]string{"f": "v", "g": "1"})
			same(number(do("ZADD types:z 1 a 2.5 b")), int64(2))
			score, err := redis.Float64(do("ZSCORE types:z b"))
			no(err)
			same(score, 2.5)
			scores, err := redis.StringMap(do("ZRANGE types:z 0 -1 WITHSCORES"))
			no(err)
			same(scores, map[string]string{"a": "1", "b": "2.5"})
			_, err = do("GET types:h")
			refused(err, "WRONGTYPE")
		}},
		scenario{"acl", func() {
			same(text(do("SET acl:theirs secret")), "OK")
			for i := 0; i < 4; i++ {
				same(text(do("GET acl:theirs")), "secret")
			}
			same(text(do("ACL SETUSER app reset on >pass ~user:* &* +@all -@dangerous +@connection +info")), "OK")
			app, err := redis.Dial("tcp", address, redis.DialUsername("app"), redis.DialPassword("pass"))
			no(err)
			same(text(on(app, "ACL WHOAMI")), "app")
			same(text(on(app, "SET user:1 mine")), "OK")
			for i := 0; i < 4; i++ {
				same(text(on(app, "GET user:1")), "mine")
				_, err = on(app, "GET acl:theirs")
				refused(err, "NOPERM")
			}
			_, err = redis.Dial("tcp", address, redis.DialUsername("app"), redis.DialPassword("wrong"))
			refused(err, "WRONGPASS")
			same(number(do("ACL DELUSER app")), int64(1))
		}},
		scenario{"select", func() {
			three, err := redis.DialURL("redis://" + address + "/3")
			no(err)
			same(text(do("SET select:k zero")), "OK")
			same(text(on(three, "SET select:k three")), "OK")
			for i := 0; i < 4; i++ {
				same(text(do("GET select:k")), "zero")
				same(text(on(three, "GET select:k")), "three")
			}
			_, err = on(three, "SELECT 99")
			refused(err, "out of range")
		}},
		scenario{"clients", func() {
			one, err := redis.Dial("tcp", address, redis.DialClientName("compat-one"))
			no(err)
			id := number(on(one, "CLIENT ID"))
			same(text(on(one, "CLIENT GETNAME")), "compat-one")
			check(strings.HasPrefix(text(on(one, "CLIENT INFO")), fmt.Sprintf("id=%d ", id)), "CLIENT INFO has another id")
			list := text(do("CLIENT LIST"))
			check(strings.Contains(list, fmt.Sprintf("id=%d ", id)) && strings.Contains(list, " name=compat-one "), list)
			same(number(do(fmt.Sprintf("CLIENT KILL ID %d", id))), int64(1))
			_, err = on(one, "PING")
			check(err != nil, "it is still connected")
		}},
		scenario{"tracking", func() { panic(skip("the library has no cache of its own")) }},
		scenario{"reconnect", func() {
			same(text(do("SET reconnect:k before")), "OK")
			restart()
			// The pool tries each connection before it lends it.
			same(text(do("SET reconnect:k after")), "OK")
			same(text(do("GET reconnect:k")), "after")
		}},
	)
}
