// How the Go programs tell scripts/compat what held. It knows nothing of any library.
//
// A program prints one line per scenario (`ok`, `FAIL` or `skip`, its name, why), and may ask for a new server.
package main

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"time"
)

// For any one scenario; far more than a loaded machine needs.
const limit = 60 * time.Second

var address = strings.TrimPrefix(os.Getenv("REDIS_URL"), "redis://")

// skip is thrown where the library cannot do it; the text says so.
type skip string

type scenario struct {
	name string
	run  func()
}

// run runs the scenarios one after the other; a panic is a failure.
func run(scenarios ...scenario) {
	for _, s := range scenarios {
		done := make(chan string)
		go func() {
			defer func() {
				switch why := recover().(type) {
				case nil:
					done <- "ok " + s.name
				case skip:
					done <- "skip " + s.name + " " + string(why)
				default:
					fmt.Fprintf(os.Stderr, "%v\n%s", why, debug.Stack())
					done <- "FAIL " + s.name + " " + strings.Join(strings.Fields(fmt.Sprint(why)), " ")
				}
			}()
			s.run()
		}()
		select {
		case outcome := <-done:
			fmt.Println(outcome)
		case <-time.After(limit):
			fmt.Println("FAIL " + s.name + " took too long")
		}
	}
}

var answers = bufio.NewReader(os.Stdin)

// restart returns when the server behind REDIS_URL has ended and a new one listens on the same port.
func restart() {
	fmt.Println("restart")
	answer, err := answers.ReadString('\n')
	no(err)
	same(answer, "restarted\n")
}

func no(err error) {
	if err != nil {
		panic(err)
	}
}

func same(got, expected interface{}) {
	if !reflect.DeepEqual(got, expected) {
		panic(fmt.Sprintf("%.200v is not %.200v", got, expected))
	}
}

func check(holds bool, what string) {
	if !holds {
		panic(what)
	}
}

// refused wants an error that holds the text.
func refused(err error, text string) {
	if err == nil || !strings.Contains(err.Error(), text) {
		panic(fmt.Sprintf("%v does not hold %s", err, text))
	}
}

func everyByte() string {
	bytes := make([]byte, 256)
	for i := range bytes {
		bytes[i] = byte(i)
	}
	return string(bytes)
}

// largeValues are 10 MB that no compressor can make smaller, and 10 MB that any can.
func largeValues() []string {
	noise := make([]byte, 10<<20)
	_, err := rand.Read(noise)
	no(err)
	return []string{string(noise), strings.Repeat(`{"symbol": "BTCUSDT", "price": 64123.5},`, 250000)}
}
