package septet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"
)

// Request is one call's request. Body streams; Text and JSON take all of it.
type Request struct {
	Method string
	// Path is decoded; Target is what was sent.
	Path, Target string
	Header       http.Header
	Body         io.Reader
	url          *url.URL
}

// Query gives the query's parameters.
func (r *Request) Query() url.Values { return r.url.Query() }

// Bytes takes the whole body.
func (r *Request) Bytes() ([]byte, error) { return io.ReadAll(r.Body) }

// Text takes the whole body.
func (r *Request) Text() (string, error) {
	data, err := r.Bytes()
	return string(data), err
}

// JSON decodes the whole body; an empty one leaves `into` as it is.
func (r *Request) JSON(into any) error {
	data, err := r.Bytes()
	if err != nil || len(data) == 0 {
		return err
	}
	return json.Unmarshal(data, into)
}

// Context is what is known around a call. It is done when the caller is gone or the deadline has passed.
type Context struct {
	context.Context
	InvocationID, RequestID, TraceParent    string
	Function, Namespace, Revision, Instance string
	call                                    *call
}

// Remaining is the time left until the deadline.
func (c Context) Remaining() time.Duration {
	deadline, ok := c.Deadline()
	if !ok {
		return time.Duration(1<<63 - 1)
	}
	return time.Until(deadline)
}

// Log writes lines that belong to this call.
func (c Context) Log(text string) { c.call.log("stdout", text) }

// Response is a reply with a status and headers; Body is whatever a handler may return.
type Response struct {
	Status int
	Header http.Header
	Body   any
}

func httpRequest(c *call) (*http.Request, error) {
	request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(append(bytes.Clone(c.head), '\r', '\n'))))
	if err != nil {
		return nil, err
	}
	request.Body = c
	request.ContentLength = -1
	if length, err := strconv.ParseInt(request.Header.Get("Content-Length"), 10, 64); err == nil {
		request.ContentLength = length
	} else if c.complete && len(c.chunks) == 0 {
		request.ContentLength = 0
		request.Body = http.NoBody
	}
	request.RemoteAddr = request.Header.Get("X-Forwarded-For")
	return request, nil
}

func contextOf(c *call, header http.Header) (Context, context.CancelFunc) {
	found := Context{
		Context:      c.context,
		InvocationID: header.Get("Septet-Invocation-Id"),
		RequestID:    header.Get("X-Request-Id"),
		TraceParent:  header.Get("Traceparent"),
		Function:     os.Getenv("SEPTET_FUNCTION"),
		Namespace:    os.Getenv("SEPTET_NAMESPACE"),
		Revision:     os.Getenv("SEPTET_REVISION"),
		Instance:     os.Getenv("SEPTET_INSTANCE"),
		call:         c,
	}
	milliseconds, err := strconv.ParseInt(header.Get("Septet-Deadline"), 10, 64)
	if err != nil {
		return found, func() {}
	}
	var cancel context.CancelFunc
	found.Context, cancel = context.WithDeadline(c.context, time.UnixMilli(milliseconds))
	return found, cancel
}
