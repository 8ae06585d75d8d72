package septet

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

const mostCalls = 1000

// Start serves calls with a handler until the platform ends the process. The handler is one of
//
//	func(septet.Context, *septet.Request) (any, error)
//	func(http.ResponseWriter, *http.Request)
//	an http.Handler
//
// The first may return a string, []byte, an io.Reader that is streamed, a septet.Response, nil, or a value for JSON.
func Start(handler any) {
	descriptor := number("SEPTET_LINK_FD", 3)
	concurrency := number("SEPTET_CONCURRENCY", 1)
	if concurrency < 1 {
		concurrency = mostCalls
	}
	l := &link{
		file:  os.NewFile(uintptr(descriptor), "link"),
		slots: make(chan struct{}, concurrency),
		calls: map[uint32]*call{},
	}
	l.answer = answerOf(handler)
	if l.answer == nil {
		message := fmt.Sprintf("a handler is a function or an http.Handler, not %T", handler)
		l.ready(map[string]any{"ok": false, "type": "HandlerNotFound", "message": message, "trace": message})
		os.Exit(1)
	}
	l.ready(map[string]any{"ok": true, "concurrency": concurrency, "version": 1})
	l.serve()
}

func number(name string, otherwise int) int {
	if found, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return found
	}
	return otherwise
}

func (l *link) ready(said map[string]any) {
	body, _ := json.Marshal(said)
	l.write(encode(typeReady, 0, nil, body, 0))
}

func answerOf(handler any) func(*call) {
	switch found := handler.(type) {
	case func(Context, *Request) (any, error):
		return guarded(func(c *call) error { return answer(c, found) })
	case http.Handler:
		return guarded(func(c *call) error { return answerHTTP(c, found) })
	case func(http.ResponseWriter, *http.Request):
		return guarded(func(c *call) error { return answerHTTP(c, http.HandlerFunc(found)) })
	}
	return nil
}

// guarded turns errors and panics into ERROR frames.
func guarded(run func(*call) error) func(*call) {
	return func(c *call) {
		defer func() {
			if raised := recover(); raised != nil {
				c.fail("panic", fmt.Sprint(raised), string(debug.Stack()))
			}
		}()
		if err := run(c); err != nil {
			c.fail(strings.TrimPrefix(fmt.Sprintf("%T", err), "*"), err.Error(), err.Error())
		}
	}
}

func (c *call) fail(kind, message, trace string) {
	if !c.cancelled {
		c.log("stderr", kind+": "+message+"\n"+trace)
	}
	body, _ := json.Marshal(map[string]string{"type": kind, "message": cut(message, 4096), "trace": cut(trace, 32768)})
	c.finish(encode(typeError, c.number, nil, body, 0))
}

func cut(text string, most int) string {
	if len(text) > most {
		return text[:most]
	}
	return text
}

func answer(c *call, handler func(Context, *Request) (any, error)) error {
	parsed, err := httpRequest(c)
	if err != nil {
		return err
	}
	ctx, cancel := contextOf(c, parsed.Header)
	defer cancel()
	request := &Request{
		Method: parsed.Method, Path: parsed.URL.Path, Target: parsed.RequestURI,
		Header: parsed.Header, Body: parsed.Body, url: parsed.URL,
	}
	result, err := handler(ctx, request)
	if err != nil {
		return err
	}
	response, whole := result.(Response)
	if !whole {
		if pointed, ok := result.(*Response); ok && pointed != nil {
			response = *pointed
		} else {
			response = Response{Body: result}
		}
	}
	return reply(c, parsed.Method, response)
}

func reply(c *call, method string, response Response) error {
	header := response.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	status, kind := response.Status, ""
	var data []byte
	switch body := response.Body.(type) {
	case nil:
		if status == 0 {
			status = http.StatusNoContent
		}
	case string:
		data, kind = []byte(body), "text/plain; charset=utf-8"
	case []byte:
		data, kind = body, "application/octet-stream"
	case io.Reader:
		return replyStream(c, method, status, header, body)
	default:
		var err error
		if data, err = json.Marshal(body); err != nil {
			return err
		}
		kind = "application/json"
	}
	writer := &responseWriter{call: c, method: method, header: header}
	if kind != "" && header.Get("Content-Type") == "" {
		header.Set("Content-Type", kind)
	}
	if status != http.StatusNoContent && status != http.StatusNotModified {
		header.Set("Content-Length", strconv.Itoa(len(data)))
	}
	if status == 0 {
		status = http.StatusOK
	}
	if len(data) <= piece && status >= 200 {
		writer.status = status
		if writer.bodiless() {
			data = nil
		}
		return c.sendWhole(writer.head(status), data)
	}
	writer.WriteHeader(status)
	if _, err := writer.Write(data); err != nil {
		return err
	}
	return writer.finish()
}

func replyStream(c *call, method string, status int, header http.Header, body io.Reader) error {
	if closer, ok := body.(io.Closer); ok {
		defer closer.Close()
	}
	writer := &responseWriter{call: c, method: method, header: header}
	if header.Get("Content-Type") == "" {
		header.Set("Content-Type", "application/octet-stream")
	}
	writer.WriteHeader(status)
	if method != http.MethodHead {
		if _, err := io.CopyBuffer(struct{ io.Writer }{writer}, struct{ io.Reader }{body}, make([]byte, piece)); err != nil {
			return err
		}
	}
	return writer.finish()
}

func answerHTTP(c *call, handler http.Handler) error {
	request, err := httpRequest(c)
	if err != nil {
		return err
	}
	ctx, cancel := contextOf(c, request.Header)
	defer cancel()
	writer := &responseWriter{call: c, method: request.Method, header: http.Header{}}
	handler.ServeHTTP(writer, request.WithContext(ctx))
	return writer.finish()
}

// responseWriter is an http.ResponseWriter and http.Flusher over a call.
type responseWriter struct {
	call    *call
	method  string
	header  http.Header
	status  int
	written int
}

func (w *responseWriter) Header() http.Header { return w.header }

func (w *responseWriter) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	if status == 0 {
		status = http.StatusOK
	}
	informational := status >= 100 && status < 200 && status != http.StatusSwitchingProtocols
	if !informational {
		w.status = status
	}
	w.call.sendHead(w.head(status))
}

func (w *responseWriter) head(status int) []byte {
	var head strings.Builder
	fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	w.header.Del("Transfer-Encoding")
	w.header.Del("Connection")
	// Write leaves out what is no header name and makes one line of each value.
	w.header.Write(&head)
	return []byte(head.String())
}

func (w *responseWriter) bodiless() bool {
	return w.method == http.MethodHead || w.status == http.StatusNoContent || w.status == http.StatusNotModified
}

func (w *responseWriter) Write(data []byte) (int, error) {
	if w.status == 0 {
		if w.header.Get("Content-Type") == "" && len(data) > 0 {
			w.header.Set("Content-Type", http.DetectContentType(data))
		}
		w.WriteHeader(http.StatusOK)
	}
	if w.bodiless() {
		return len(data), nil
	}
	return w.call.Write(data)
}

// Flush has nothing to do: what is written goes out at once.
func (w *responseWriter) Flush() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
}

func (w *responseWriter) finish() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.call.end()
	return nil
}
