// Reads a stream with a library for Go. Prints a line of JSON for each event and each error.
//
//	reader r3labs|tmaxmax URL
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	r3labs "github.com/r3labs/sse/v2"
	tmaxmax "github.com/tmaxmax/go-sse"
	"gopkg.in/cenkalti/backoff.v1"
)

func say(key string, value string) {
	line, err := json.Marshal(map[string]string{key: value})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

func readWithR3labs(url string) {
	client := r3labs.NewClient(url)
	client.ReconnectStrategy = backoff.NewConstantBackOff(20 * time.Millisecond)
	client.ReconnectNotify = func(err error, _ time.Duration) { say("error", err.Error()) }
	err := client.SubscribeRaw(func(event *r3labs.Event) { say("data", string(event.Data)) })
	if err != nil {
		say("ended", err.Error())
	}
}

func readWithTmaxmax(url string) {
	request, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		panic(err)
	}
	client := tmaxmax.Client{
		Backoff: tmaxmax.Backoff{InitialInterval: 20 * time.Millisecond, MaxInterval: time.Second},
		OnRetry: func(err error, _ time.Duration) { say("error", err.Error()) },
	}
	connection := client.NewConnection(request)
	connection.SubscribeToAll(func(event tmaxmax.Event) { say("data", event.Data) })
	if err := connection.Connect(); err != nil {
		say("ended", err.Error())
	}
}

func main() {
	read := map[string]func(string){"r3labs": readWithR3labs, "tmaxmax": readWithTmaxmax}
	read[os.Args[1]](os.Args[2])
}
