// Appends words with the library's producer, and reads them until the end of the stream. Prints what
// was read. Arguments: the stream's URL, the live mode ("" for catch-up), how many words.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	ds "github.com/durable-streams/durable-streams/packages/client-go"
)

func main() {
	url, live := os.Args[1], ds.LiveMode(os.Args[2])
	count, err := strconv.Atoi(os.Args[3])
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	client := ds.NewClient()
	stream := client.Stream(url)
	check(stream.Create(ctx, ds.WithContentType("text/plain")))
	if live == ds.LiveModeNone {
		write(ctx, client, url, count)
	} else {
		go write(ctx, client, url, count)
	}
	read(ctx, stream, live)
}

func write(ctx context.Context, client *ds.Client, url string, count int) {
	producer, err := client.IdempotentProducer(url, "words", ds.IdempotentProducerConfig{
		ContentType: "text/plain", MaxBatchBytes: 64, LingerMs: 1, OnError: check,
	})
	check(err)
	for n := 0; n < count; n++ {
		check(producer.Append([]byte(fmt.Sprintf("word-%d ", n))))
	}
	check(producer.Flush(ctx))
	_, err = producer.CloseStream(ctx, []byte("end"))
	check(err)
}

func read(ctx context.Context, stream *ds.Stream, live ds.LiveMode) {
	it := stream.Read(ctx, ds.WithOffset("-1"), ds.WithLive(live))
	defer it.Close()
	for {
		chunk, err := it.Next()
		if errors.Is(err, ds.Done) {
			return
		}
		check(err)
		fmt.Print(string(chunk.Data))
		if chunk.StreamClosed {
			return
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
