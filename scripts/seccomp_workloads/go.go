// What Go functions do: run under the tracer to learn, and under the filter to prove, which calls they need.
package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func files() {
	root, err := os.MkdirTemp("", "w")
	must(err)
	defer os.RemoveAll(root)
	name := filepath.Join(root, "a.txt")
	must(os.WriteFile(name, make([]byte, 5000), 0o600))
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	must(err)
	must(file.Sync())
	must(file.Truncate(100))
	_, err = file.ReadAt(make([]byte, 10), 0)
	must(err)
	_, err = file.WriteAt([]byte("x"), 0)
	must(err)
	_, err = file.Seek(5, io.SeekStart)
	must(err)
	must(syscall.Flock(int(file.Fd()), syscall.LOCK_EX))
	must(file.Close())
	must(os.Symlink(name, name+".link"))
	_, err = os.Readlink(name + ".link")
	must(err)
	must(os.Link(name, name+".hard"))
	must(os.Rename(name+".hard", name+".moved"))
	must(os.Chmod(name, 0o600))
	must(os.Chtimes(name, time.Now(), time.Now()))
	must(os.MkdirAll(filepath.Join(root, "d/e"), 0o700))
	must(filepath.Walk(root, func(string, os.FileInfo, error) error { return nil }))
	source, err := os.Open(name)
	must(err)
	target, err := os.Create(name + ".copy")
	must(err)
	_, err = io.Copy(target, source)
	must(err)
	must(os.Chdir(root))
	_, err = os.Getwd()
	must(err)
}

func network() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }))
	response, err := http.Get("http://" + listener.Addr().String())
	must(err)
	body, err := io.ReadAll(response.Body)
	must(err)
	if string(body) != "ok" {
		panic(string(body))
	}
	packet, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(err)
	_, err = packet.WriteTo([]byte("x"), packet.LocalAddr())
	must(err)
	_, _, err = packet.ReadFrom(make([]byte, 10))
	must(err)
	path := filepath.Join(os.TempDir(), fmt.Sprintf("w-%d.sock", os.Getpid()))
	unix, err := net.Listen("unix", path)
	must(err)
	go func() { peer, _ := unix.Accept(); peer.Close() }()
	peer, err := net.Dial("unix", path)
	must(err)
	io.ReadAll(peer)
	unix.Close()
	net.LookupHost("localhost")
}

func main() {
	files()
	network()
	out, err := exec.Command("/bin/sh", "-c", "echo 1 | cat; ls -l / >/dev/null").Output()
	must(err)
	if string(out) != "1\n" {
		panic(string(out))
	}
	sleeper := exec.Command("/bin/sleep", "60")
	sleeper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(sleeper.Start())
	must(sleeper.Process.Kill())
	sleeper.Wait()
	var group sync.WaitGroup
	for range 50 {
		group.Add(1)
		go func() { defer group.Done(); runtime.LockOSThread(); time.Sleep(time.Millisecond) }()
	}
	group.Wait()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	must(syscall.Kill(os.Getpid(), syscall.SIGUSR1))
	<-signals
	rand.Read(make([]byte, 16))
	runtime.GC()
	os.Hostname()
	fmt.Println("done")
}
