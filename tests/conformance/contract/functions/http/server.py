import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        target = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(target.query).items()}
        getattr(self, "on_" + target.path.strip("/"), self.hello)()

    do_POST = do_PUT = do_HEAD = do_GET

    def log_message(self, *args):
        pass

    def pieces(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            data = self.rfile.read1(min(left, 65536))
            left -= len(data)
            yield data

    def answer(self, body, status=200, headers=()):
        body = body.encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def stream(self, pieces):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.command == "HEAD":
            return
        for piece in pieces:
            if piece:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def hello(self):
        for _ in self.pieces():
            pass
        self.answer(f"hello {self.command}")

    def on_echo(self):
        self.stream(self.pieces())

    def on_count(self):
        self.answer(str(sum(len(piece) for piece in self.pieces())))

    def on_slow(self):
        time.sleep(float(self.query["s"]))
        self.answer("slow")

    def on_mark(self):
        with open(self.query["file"], "w") as file:
            file.write("ran")
        self.answer("marked")

    def on_flood(self):
        piece = b"x" * 65536
        self.stream(piece for _ in range(int(self.query["mib"]) * 16))

    def on_ticks(self):
        def ticks():
            for i in range(int(self.query["n"])):
                yield b"tick %d\n" % i
                time.sleep(0.05)

        self.stream(ticks())

    def on_exit(self):
        os._exit(3)

    def on_header(self):
        self.answer(self.headers["X-Test"], 418, [("X-Answer", "tea")])


class Server(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True


Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
