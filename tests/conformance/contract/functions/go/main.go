package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"septet"
)

type pieces struct {
	left  int
	each  []byte
	pause time.Duration
	count int
}

func (p *pieces) Read(into []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	p.left--
	if p.pause == 0 {
		return copy(into, p.each), nil
	}
	if p.count > 0 {
		time.Sleep(p.pause)
	}
	n := copy(into, fmt.Sprintf("tick %d\n", p.count))
	p.count++
	return n, nil
}

func Handle(ctx septet.Context, request *septet.Request) (any, error) {
	query := request.Query()
	switch request.Path {
	case "/echo":
		return request.Body, nil
	case "/count":
		size, err := io.Copy(io.Discard, request.Body)
		return strconv.FormatInt(size, 10), err
	case "/slow":
		seconds, _ := strconv.ParseFloat(query.Get("s"), 64)
		select {
		case <-time.After(time.Duration(seconds * float64(time.Second))):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return "slow", nil
	case "/mark":
		return "marked", os.WriteFile(query.Get("file"), []byte("ran"), 0o644)
	case "/flood":
		mib, _ := strconv.Atoi(query.Get("mib"))
		return &pieces{left: mib * 32, each: make([]byte, 32768)}, nil
	case "/ticks":
		n, _ := strconv.Atoi(query.Get("n"))
		return &pieces{left: n, pause: 50 * time.Millisecond}, nil
	case "/raise":
		return nil, fmt.Errorf("a planned error")
	case "/exit":
		os.Exit(3)
	case "/print":
		ctx.Log("printed by " + query.Get("who"))
		return "ok", nil
	case "/header":
		return septet.Response{Status: 418, Body: request.Header.Get("X-Test"), Header: map[string][]string{"X-Answer": {"tea"}}}, nil
	}
	return "hello " + request.Method, nil
}
