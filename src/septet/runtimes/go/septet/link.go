package septet

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
)

// ErrCancelled is what reading a body or writing a reply gives once the caller is gone.
var ErrCancelled = errors.New("nobody waits for this call any more")

// link reads and writes frames; every call has a goroutine of its own.
type link struct {
	file    *os.File
	writing sync.Mutex
	answer  func(*call)
	slots   chan struct{}
	mutex   sync.Mutex
	calls   map[uint32]*call
	running sync.WaitGroup
}

// call is one call's state. `changed` is signalled whenever the platform said something about it.
type call struct {
	link      *link
	number    uint32
	head      []byte
	mutex     sync.Mutex
	changed   *sync.Cond
	chunks    [][]byte
	complete  bool
	window    int
	owed      int
	cancelled bool
	started   bool
	headSent  bool
	finished  bool
	context   context.Context
	cancel    context.CancelFunc
}

func newCall(l *link, f frame) *call {
	c := &call{link: l, number: f.stream, head: f.head, window: windowSize, complete: f.flags&flagEnd != 0}
	c.changed = sync.NewCond(&c.mutex)
	c.context, c.cancel = context.WithCancel(context.Background())
	if len(f.body) > 0 {
		c.chunks = [][]byte{f.body}
	}
	return c
}

func (l *link) write(data []byte) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if _, err := l.file.Write(data); err != nil {
		os.Exit(0)
	}
}

// serve reads until the platform closes the link, or says that no further call comes.
func (l *link) serve() {
	reader := bufio.NewReaderSize(l.file, piece)
	var fresh []*call
	for {
		f, err := readFrame(reader)
		if errors.Is(err, errProtocol) {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		if err != nil {
			os.Exit(0)
		}
		switch f.kind {
		case typeRequest:
			c := newCall(l, f)
			l.mutex.Lock()
			l.calls[f.stream] = c
			l.mutex.Unlock()
			fresh = append(fresh, c)
		case typeDrain:
			l.begin(fresh)
			go func() {
				l.running.Wait()
				os.Exit(0)
			}()
			fresh = nil
		default:
			l.mutex.Lock()
			c := l.calls[f.stream]
			l.mutex.Unlock()
			if c != nil {
				c.receive(f)
			}
		}
		// Only when nothing more is here, so that a call whose cancellation came along is not begun.
		if reader.Buffered() == 0 {
			l.begin(fresh)
			fresh = nil
		}
	}
}

func (l *link) begin(fresh []*call) {
	for _, c := range fresh {
		l.running.Add(1)
		go l.run(c)
	}
}

func (l *link) run(c *call) {
	defer l.running.Done()
	l.slots <- struct{}{}
	defer func() { <-l.slots }()
	c.mutex.Lock()
	if c.cancelled {
		c.mutex.Unlock()
		return
	}
	c.started = true
	c.mutex.Unlock()
	l.write(encode(typeStarted, c.number, nil, nil, 0))
	defer c.cancel()
	l.answer(c)
}

func (l *link) forget(c *call) {
	l.mutex.Lock()
	delete(l.calls, c.number)
	l.mutex.Unlock()
}

func (c *call) receive(f frame) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	switch f.kind {
	case typeData:
		if len(f.body) > 0 {
			c.chunks = append(c.chunks, f.body)
		}
		c.complete = c.complete || f.flags&flagEnd != 0
	case typeWindow:
		if len(f.body) == 4 {
			c.window += int(binary.BigEndian.Uint32(f.body))
		}
	case typeCancel:
		c.cancelled = true
		c.cancel()
		if !c.started {
			c.finished = true
			c.link.forget(c)
			c.link.write(encode(typeGone, c.number, nil, nil, flagNeverStarted))
		}
	}
	c.changed.Broadcast()
}

// Read takes the request's body, and gives its room back to the sender.
func (c *call) Read(into []byte) (int, error) {
	c.mutex.Lock()
	for len(c.chunks) == 0 && !c.complete && !c.cancelled {
		c.changed.Wait()
	}
	if c.cancelled {
		c.mutex.Unlock()
		return 0, ErrCancelled
	}
	if len(c.chunks) == 0 {
		c.mutex.Unlock()
		return 0, io.EOF
	}
	size := copy(into, c.chunks[0])
	c.chunks[0] = c.chunks[0][size:]
	if len(c.chunks[0]) == 0 {
		c.chunks = c.chunks[1:]
	}
	c.owed += size
	credit := 0
	if c.owed >= windowSize/4 && !c.complete {
		credit, c.owed = c.owed, 0
	}
	c.mutex.Unlock()
	if credit > 0 {
		c.link.write(encodeWindow(c.number, credit))
	}
	return size, nil
}

// Close is there so that a call is an io.ReadCloser; the rest of the body is dropped with the call.
func (c *call) Close() error { return nil }

func (c *call) sendHead(head []byte) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.cancelled {
		return ErrCancelled
	}
	c.headSent = true
	c.link.write(encode(typeReply, c.number, head, nil, 0))
	return nil
}

// sendWhole answers in one frame; the data is at most a piece, which the window of a fresh call takes.
func (c *call) sendWhole(head, data []byte) error {
	c.mutex.Lock()
	if c.cancelled {
		c.mutex.Unlock()
		return ErrCancelled
	}
	c.headSent = true
	c.window -= len(data)
	c.mutex.Unlock()
	c.finish(encode(typeReply, c.number, head, data, flagEnd))
	return nil
}

// Write sends body bytes, as the window allows.
func (c *call) Write(data []byte) (int, error) {
	sent := 0
	for sent < len(data) {
		c.mutex.Lock()
		for c.window == 0 && !c.cancelled {
			c.changed.Wait()
		}
		if c.cancelled {
			c.mutex.Unlock()
			return sent, ErrCancelled
		}
		size := min3(len(data)-sent, c.window, piece)
		c.window -= size
		c.mutex.Unlock()
		c.link.write(encode(typeData, c.number, nil, data[sent:sent+size], 0))
		sent += size
	}
	return sent, nil
}

func min3(a, b, c int) int {
	if b < a {
		a = b
	}
	if c < a {
		a = c
	}
	return a
}

// finish sends the call's last frame; what it is depends on whether somebody still waits.
func (c *call) finish(last []byte) {
	c.mutex.Lock()
	done := c.finished
	c.finished = true
	if c.cancelled {
		last = encode(typeGone, c.number, nil, nil, 0)
	}
	c.mutex.Unlock()
	if !done {
		c.link.forget(c)
		c.link.write(last)
	}
}

func (c *call) end() { c.finish(encode(typeData, c.number, nil, nil, flagEnd)) }

func (c *call) log(stream, text string) {
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		for first := true; first || len(line) > 0; first = false {
			size := min3(len(line), piece, piece)
			c.link.write(encode(typeLog, c.number, []byte(stream), []byte(line[:size]), 0))
			line = line[size:]
		}
	}
}
