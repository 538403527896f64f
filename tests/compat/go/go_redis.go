// go-redis as an application uses it; Debian's is version 5, from before RESP3.
package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"gopkg.in/redis.v5"
)

func client(change func(*redis.Options)) *redis.Client {
	options := &redis.Options{Addr: address, ReadTimeout: 20 * time.Second}
	if change != nil {
		change(options)
	}
	return redis.NewClient(options)
}

var r = client(nil)

// raw runs a command that this version has no method for, its words divided by spaces.
func raw(c *redis.Client, words string) *redis.Cmd {
	arguments := []interface{}{}
	for _, word := range strings.Split(words, " ") {
		arguments = append(arguments, word)
	}
	command := redis.NewCmd(arguments...)
	_ = c.Process(command)
	return command
}

func untilBlocked() {
	for strings.Contains(r.Info("clients").Val(), "blocked_clients:0") {
		time.Sleep(10 * time.Millisecond)
	}
}

func main() {
	fmt.Println("version go-redis 5 from Debian")
	run(
		scenario{"connect", func() {
			same(r.Ping().Val(), "PONG")
			check(strings.Contains(r.Info("server").Val(), "redis_version:"), "no version")
			check(raw(r, "COMMAND COUNT").Val().(int64) > 200, "few commands")
			done := make(chan error)
			for i := 0; i < 10; i++ {
				go func() {
					var err error
					for i := 0; i < 50 && err == nil; i++ {
						err = r.Incr("connect:n").Err()
					}
					done <- err
				}()
			}
			for i := 0; i < 10; i++ {
				no(<-done)
			}
			same(r.Get("connect:n").Val(), "500")
		}},
		scenario{"strings", func() {
			for _, value := range []string{"text", "", everyByte(), "a\r\nb\r\n"} {
				no(r.Set("strings:k", value, time.Minute).Err())
				for i := 0; i < 4; i++ {
					same(r.Get("strings:k").Val(), value)
				}
				same(r.MGet("strings:k", "strings:none").Val(), []interface{}{value, nil})
			}
			same(r.Get("strings:none").Err(), redis.Nil)
			same(r.SetNX("strings:k", "v", 0).Val(), false)
			same(r.IncrBy("strings:n", 42).Val(), int64(42))
		}},
		scenario{"pipeline", func() {
			replies, err := r.Pipelined(func(p *redis.Pipeline) error {
				for i := 0; i < 1000; i++ {
					p.Set("pipeline:"+strconv.Itoa(i%50), i, 0)
					p.Get("pipeline:" + strconv.Itoa(i%50))
				}
				return nil
			})
			no(err)
			for i := 0; i < 1000; i++ {
				same(replies[2*i+1].(*redis.StringCmd).Val(), strconv.Itoa(i))
			}
		}},
		scenario{"transaction", func() {
			no(r.Set("transaction:k", 1, 0).Err())
			for i := 0; i < 3; i++ {
				same(r.Get("transaction:k").Val(), "1")
			}
			rounds := 0
			add := func(tx *redis.Tx) error {
				n, err := tx.Get("transaction:k").Int64()
				no(err)
				if rounds++; rounds == 1 {
					no(r.Set("transaction:k", 41, 0).Err())
				}
				_, err = tx.Pipelined(func(p *redis.Pipeline) error { p.Set("transaction:k", n+1, 0); return nil })
				return err
			}
			same(r.Watch(add, "transaction:k"), redis.TxFailedErr)
			no(r.Watch(add, "transaction:k"))
			same(r.Get("transaction:k").Val(), "42")
			no(r.HSet("transaction:h", "f", "v").Err())
			_, err := r.TxPipelined(func(p *redis.Pipeline) error { p.Incr("transaction:h"); p.Incr("transaction:k"); return nil })
			refused(err, "WRONGTYPE")
			same(r.Get("transaction:k").Val(), "43")
		}},
		scenario{"pubsub", func() {
			sub, err := r.Subscribe("pubsub:a")
			no(err)
			no(sub.PSubscribe("pubsub:*"))
			for r.Publish("pubsub:a", "hello").Val() != 2 {
				time.Sleep(10 * time.Millisecond)
			}
			for heard := 0; heard < 2; {
				message, err := sub.ReceiveMessage()
				no(err)
				same(message.Payload, "hello")
				if message.Pattern != "" {
					heard++
				} else if heard == 0 {
					heard = 1
				}
			}
			no(sub.Unsubscribe("pubsub:a"))
			no(sub.PUnsubscribe("pubsub:*"))
			no(sub.Close())
			for r.Publish("pubsub:a", "nobody").Val() != 0 {
				time.Sleep(10 * time.Millisecond)
			}
		}},
		scenario{"blocking", func() {
			go func() { untilBlocked(); no(r.RPush("blocking:b", "job").Err()) }()
			same(r.BLPop(10*time.Second, "blocking:a", "blocking:b").Val(), []string{"blocking:b", "job"})
			start := time.Now()
			same(r.BLPop(time.Second, "blocking:none").Err(), redis.Nil)
			check(time.Since(start) > 900*time.Millisecond && time.Since(start) < 5*time.Second, "the time-out")
		}},
		scenario{"script", func() {
			put := redis.NewScript("redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])")
			no(r.ScriptFlush().Err())
			refused(put.EvalSha(r, []string{"script:k"}, "no").Err(), "NOSCRIPT")
			// EVALSHA, NOSCRIPT, EVAL.
			same(put.Run(r, []string{"script:k"}, "after").Val(), "after")
			same(r.Get("script:k").Val(), "after")
		}},
		scenario{"stream", func() {
			id := raw(r, "XADD stream:s * n 0").Val().(string)
			same(raw(r, "XGROUP CREATE stream:s g 0").Val(), "OK")
			got := raw(r, "XREADGROUP GROUP g one COUNT 1 STREAMS stream:s >")
			check(strings.Contains(fmt.Sprint(got.Val()), id), got.String())
			same(raw(r, "XACK stream:s g "+id).Val(), int64(1))
		}},
		scenario{"scan", func() {
			_, err := r.Pipelined(func(p *redis.Pipeline) error {
				for i := 0; i < 1000; i++ {
					n := strconv.Itoa(i)
					p.Set("scan:"+n, n, 0)
					p.HSet("scan-h", n, n)
					p.SAdd("scan-s", n)
					p.ZAdd("scan-z", redis.Z{Score: float64(i), Member: n})
				}
				return nil
			})
			no(err)
			for expected, iterators := range map[int][]*redis.ScanIterator{
				1000: {r.Scan(0, "scan:*", 100).Iterator(), r.SScan("scan-s", 0, "", 100).Iterator()},
				2000: {r.HScan("scan-h", 0, "", 100).Iterator(), r.ZScan("scan-z", 0, "", 100).Iterator()},
			} {
				for _, iterator := range iterators {
					count := 0
					for iterator.Next() {
						count++
					}
					no(iterator.Err())
					same(count, expected)
				}
			}
		}},
		scenario{"large", func() {
			for _, value := range largeValues() {
				no(r.Set("large:k", value, 0).Err())
				for i := 0; i < 4; i++ {
					check(r.Get("large:k").Val() == value, "the value came back changed")
				}
			}
		}},
		scenario{"types", func() {
			no(r.HMSet("types:h", map[string]string{"f": "v", "g": "1"}).Err())
			same(r.HGetAll("types:h").Val(), map[string]string{"f": "v", "g": "1"})
			no(r.ZAdd("types:z", redis.Z{Score: 1, Member: "a"}, redis.Z{Score: 2.5, Member: "b"}).Err())
			same(r.ZScore("types:z", "b").Val(), 2.5)
			same(r.ZRangeWithScores("types:z", 0, -1).Val(), []redis.Z{{Score: 1, Member: "a"}, {Score: 2.5, Member: "b"}})
			same(r.ConfigGet("maxmemory").Val(), []interface{}{"maxmemory", "0"})
			refused(r.Get("types:h").Err(), "WRONGTYPE")
		}},
		scenario{"acl", func() {
			no(r.Set("acl:theirs", "secret", 0).Err())
			for i := 0; i < 4; i++ {
				no(r.Get("acl:theirs").Err())
			}
			// This version knows a password and no name: the default user has one meanwhile.
			no(raw(r, "ACL SETUSER default on >pass").Err())
			// Connections that are there already stay who they are.
			defer func() { no(raw(r, "ACL SETUSER default on nopass").Err()) }()
			same(client(func(o *redis.Options) { o.Password = "pass" }).Get("acl:theirs").Val(), "secret")
			refused(client(func(o *redis.Options) { o.Password = "wrong" }).Ping().Err(), "WRONGPASS")
		}},
		scenario{"select", func() {
			three := client(func(o *redis.Options) { o.DB = 3 })
			no(r.Set("select:k", "zero", 0).Err())
			no(three.Set("select:k", "three", 0).Err())
			for i := 0; i < 4; i++ {
				same(r.Get("select:k").Val(), "zero")
				same(three.Get("select:k").Val(), "three")
			}
			refused(client(func(o *redis.Options) { o.DB = 99 }).Ping().Err(), "out of range")
		}},
		scenario{"clients", func() {
			one := client(func(o *redis.Options) { o.PoolSize = 1 })
			same(raw(one, "CLIENT SETNAME compat-one").Val(), "OK")
			id := raw(one, "CLIENT ID").Val().(int64)
			list := r.ClientList().Val()
			check(strings.Contains(list, fmt.Sprintf("id=%d ", id)) && strings.Contains(list, " name=compat-one "), list)
			same(raw(r, fmt.Sprintf("CLIENT KILL ID %d", id)).Val(), int64(1))
			// The library connects again by itself; it may have to find out first.
			err := errors.New("not asked")
			for i := 0; i < 3 && err != nil; i++ {
				err = one.Ping().Err()
			}
			no(err)
		}},
		scenario{"tracking", func() { panic(skip("the library has no cache of its own")) }},
		scenario{"reconnect", func() {
			c := client(func(o *redis.Options) { o.DB = 2; o.MaxRetries = 5 })
			no(c.Set("reconnect:k", "before", 0).Err())
			sub, err := c.Subscribe("reconnect:news")
			no(err)
			restart()
			no(c.Set("reconnect:k", "after", 0).Err())
			same(c.Get("reconnect:k").Val(), "after")
			go func() {
				for c.Publish("reconnect:news", "hello").Val() == 0 {
					time.Sleep(10 * time.Millisecond)
				}
			}()
			// The subscription comes back with the connection.
			message, err := sub.ReceiveMessage()
			no(err)
			same(message.Payload, "hello")
		}},
	)
}
