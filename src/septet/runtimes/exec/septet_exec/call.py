"""One call: a process, its pipes, and its answer."""

import os
import select
import signal
import time

from septet_exec import frames
from septet_exec.cgi import environment, parse_head

HOLD = 0.05
"""Seconds that the first output is held, so that a process that fails at once gets a clean error."""
TAIL = 4096
LINE_MAX = 60_000
HEADERS_MAX = 32 * 1024


class Reply:
    """Sends output as a reply: held for a moment, then as it comes."""

    with_headers = False

    def __init__(self, call, method):
        self._call = call
        self._method = method
        self._held = b""
        self._bodiless = method == b"HEAD"
        self.begun = False

    def add(self, data):
        if self.begun:
            self._data(data)
        else:
            self._held += data

    @property
    def held(self):
        return len(self._held)

    @property
    def full(self):
        return len(self._held) >= frames.PIECE

    def begin(self, whole=False):
        """Sends the head; `whole`: all output is here, so its length is known. ValueError for bad header lines."""
        status, lines, body = parse_head(self._held, self.with_headers, whole, HEADERS_MAX)
        if status is None:
            return
        self.begun, self._held = True, b""
        self._bodiless = self._bodiless or status in (204, 304)
        if whole and status not in (204, 304):
            lines += b"content-length: %d\r\n" % len(body)
        head = b"HTTP/1.1 %d \r\n%b" % (status, lines)
        self._call.loop.send(frames.encode(frames.REPLY, self._call.number, head))
        self._data(body)

    def _data(self, data):
        if self._bodiless:
            return
        self._call.took(len(data))
        for at in range(0, len(data), frames.PIECE):
            piece = data[at : at + frames.PIECE]
            self._call.loop.send(frames.encode(frames.DATA, self._call.number, b"", piece))


class Call:
    def __init__(self, loop, number, head, body, ended):
        self.loop = loop
        self.number = number
        self.started = False
        self.due = None
        self._head = head
        self._reply = Reply(self, head[: head.find(b" ")])
        self._body = [body] if body else []
        self._body_ended = ended
        self._owed = 0
        self._window = frames.WINDOW_SIZE
        self._cancelled = False
        self._pid = 0
        self._status = None
        self._stdin = self._stdout = self._stderr = -1
        self._line = b""
        self._tail = b""

    # -- from the loop

    def start(self):
        self.started = True
        self.loop.send(frames.encode(frames.STARTED, self.number))
        theirs_in, self._stdin = os.pipe()
        self._stdout, theirs_out = os.pipe()
        self._stderr, theirs_err = os.pipe()
        for fd in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(fd, False)
        command = self.loop.command
        try:
            self._pid = os.posix_spawn(
                command[0],
                command,
                environment(self._head),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs_in, 0),
                    (os.POSIX_SPAWN_DUP2, theirs_out, 1),
                    (os.POSIX_SPAWN_DUP2, theirs_err, 2),
                ],
                setpgroup=0,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGCHLD),
            )
        except OSError as error:
            self._tail = str(error).encode()
            self._status = 127 << 8
        for fd in (theirs_in, theirs_out, theirs_err):
            os.close(fd)
        self._watch_in()
        self._watch_out()
        self.loop.watch(self._stderr, select.POLLIN, self._read_err)

    def feed(self, body, ended):
        if body:
            self._body.append(body)
        self._body_ended = self._body_ended or ended
        if self.started:
            self._watch_in()

    def took(self, size):
        """So much of the reply's window is used."""
        self._window -= size

    def give(self, credit):
        self._window += credit
        self._watch_out()

    def cancel(self):
        self._cancelled = True
        self.kill()

    def kill(self):
        """The process and all it started."""
        if self._pid:
            try:
                os.killpg(self._pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass

    def reap(self):
        if self._pid and self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._status = status
                self._drain()

    def tick(self, now):
        """What is due by time, and the end when all has come."""
        if self.due is not None and now >= self.due:
            self.due = None
            self._begin_reply()
        if self._status is not None and self._stdout < 0:
            self._finish()

    # -- pipes

    def _watch_in(self):
        if self._stdin < 0:
            return
        if self._body:
            self.loop.watch(self._stdin, select.POLLOUT, self._write_in)
        elif self._body_ended:
            self._stdin = self._close(self._stdin)
        else:
            # Only the hang-up is of interest: that nobody reads any more.
            self.loop.watch(self._stdin, select.POLLERR, self._write_in)

    def _write_in(self, events):
        while self._body:
            chunk = self._body[0]
            try:
                size = os.write(self._stdin, chunk[: frames.PIECE])
            except BlockingIOError:
                return
            except OSError:
                break
            self._body[0] = chunk[size:]
            if not self._body[0]:
                self._body.pop(0)
            self._credit(size)
        else:
            if not events & select.POLLERR:
                self._watch_in()
                return
        # The process reads no more: the rest of the body is of no use to anybody.
        self._body.clear()
        self._stdin = self._close(self._stdin)

    def _credit(self, size):
        self._owed += size
        if self._owed >= frames.CREDIT_STEP and not self._body_ended:
            self.loop.send(frames.window(self.number, self._owed))
            self._owed = 0

    def _watch_out(self):
        if self._stdout >= 0:
            room = self._window - self._reply.held > 0
            self.loop.watch(self._stdout, select.POLLIN if room else 0, self._read_out)

    def _read_out(self, events):
        data = self._read(self._stdout, min(self._window - self._reply.held, frames.PIECE))
        if data is None:
            return
        if not data:
            self._stdout = self._close(self._stdout)
            return
        self._reply.add(data)
        if not self._reply.begun:
            if self._reply.full:
                self._begin_reply()
            elif self.due is None:
                self.due = time.monotonic() + HOLD
        self._watch_out()

    def _read_err(self, events):
        data = self._read(self._stderr, frames.PIECE)
        if data is None:
            return
        if not data:
            self._stderr = self._close(self._stderr)
            return
        self._tail = (self._tail + data)[-TAIL:]
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._log(line)
        if len(self._line) > LINE_MAX:
            self._log(self._line)
            self._line = b""

    def _log(self, line):
        for at in range(0, max(1, len(line)), LINE_MAX):
            self.loop.send(frames.encode(frames.LOG, self.number, b"stderr", line[at : at + LINE_MAX]))

    def _read(self, fd, size):
        try:
            return os.read(fd, size)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _drain(self):
        """The process has ended: what it left in the pipes is the last of it, even when a child holds them open."""
        self.kill()
        while self._stderr >= 0:
            before = self._stderr
            data = self._peek(before)
            if data:
                self._read_err(select.POLLIN)
            else:
                self._stderr = self._close(before)
        if self._line:
            self._log(self._line)
            self._line = b""

    def _peek(self, fd):
        return bool(select.select([fd], [], [], 0)[0]) and self._pending(fd)

    @staticmethod
    def _pending(fd):
        from array import array
        from fcntl import ioctl
        from termios import FIONREAD

        size = array("i", [0])
        ioctl(fd, FIONREAD, size)
        return size[0] > 0

    def _close(self, fd):
        self.loop.watch(fd, 0, None)
        os.close(fd)
        return -1

    # -- the answer

    def _begin_reply(self):
        if self._cancelled or self._reply.begun:
            return
        try:
            self._reply.begin()
        except ValueError as error:
            self._tail = str(error).encode()
            self._cancelled = False
            self._fail("BadHeaders", str(error))

    def _finish(self):
        if self._cancelled:
            self._over(frames.encode(frames.GONE, self.number))
            return
        if self._status:
            self._fail("ProcessFailed", _how_it_ended(self._status))
            return
        try:
            if not self._reply.begun:
                self._reply.begin(whole=True)
        except ValueError as error:
            self._fail("BadHeaders", str(error))
            return
        self._over(frames.encode(frames.DATA, self.number, flags=frames.END))

    def _fail(self, kind, message):
        tail = self._tail.decode("utf-8", "replace")
        last = tail.strip().rpartition("\n")[2]
        if kind == "ProcessFailed" and last:
            message = f"{message}: {last[:500]}"
        self._over(
            frames.encode(frames.ERROR, self.number, b"", frames.json_of(type=kind, message=message, trace=tail))
        )

    def _over(self, last):
        self.kill()
        for fd in (self._stdin, self._stdout, self._stderr):
            if fd >= 0:
                self._close(fd)
        self._stdin = self._stdout = self._stderr = -1
        self.due = None
        if self._pid and self._status is None:
            os.waitpid(self._pid, 0)
        self.loop.forget(self)
        self.loop.send(last)


def _how_it_ended(status):
    if os.WIFSIGNALED(status):
        return f"the process was ended by signal {os.WTERMSIG(status)}"
    return f"the process ended with exit code {os.WEXITSTATUS(status)}"
