// What Gin's own example of server-sent events does, with a buffered channel for each client:
// a handler per client that renders each event and flushes it (Context.Stream).
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/gin-contrib/sse"
	"github.com/gin-gonic/gin"
)

// How many events may wait for a client; one that is further behind loses events, so that it can't
// hold up the others.
const waiting = 256

type client chan sse.Event

type topics struct {
	lock    sync.RWMutex
	clients map[string]map[client]struct{}
	last    uint64
}

func (t *topics) join(topic string) client {
	joined := make(client, waiting)
	t.lock.Lock()
	defer t.lock.Unlock()
	if t.clients[topic] == nil {
		t.clients[topic] = make(map[client]struct{})
	}
	t.clients[topic][joined] = struct{}{}
	return joined
}

func (t *topics) leave(topic string, left client) {
	t.lock.Lock()
	defer t.lock.Unlock()
	delete(t.clients[topic], left)
}

func (t *topics) publish(topic string, data string) {
	event := sse.Event{Id: strconv.FormatUint(atomic.AddUint64(&t.last, 1), 10), Data: data}
	t.lock.RLock()
	defer t.lock.RUnlock()
	for client := range t.clients[topic] {
		select {
		case client <- event:
		default:
		}
	}
}

func (t *topics) subscribe(c *gin.Context) {
	topic := c.Query("topic")
	events := t.join(topic)
	defer t.leave(topic, events)
	gone := c.Request.Context().Done()
	c.Header("Content-Type", sse.ContentType)
	c.Header("Cache-Control", "no-cache")
	c.Writer.WriteHeaderNow()
	c.Writer.Flush()
	c.Stream(func(io.Writer) bool {
		select {
		case event := <-events:
			c.Render(-1, event)
			return true
		case <-gone:
			return false
		}
	})
}

func (t *topics) post(c *gin.Context) {
	data, err := io.ReadAll(c.Request.Body)
	if err != nil {
		c.Status(http.StatusBadRequest)
		return
	}
	t.publish(c.Query("topic"), string(data))
	c.Status(http.StatusNoContent)
}

func main() {
	all := &topics{clients: make(map[string]map[client]struct{})}
	// gin.New and not gin.Default: without the logger, which writes a line for each request.
	router := gin.New()
	router.GET("/events", all.subscribe)
	router.POST("/events", all.post)
	// Go takes the backlog from net.core.somaxconn.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("listening on %s\n", listener.Addr())
	if err := http.Serve(listener, router); err != nil {
		panic(err)
	}
}
