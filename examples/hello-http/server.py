"""Any HTTP server that listens on $PORT; this one needs only the standard library."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def greeting(body: bytes) -> bytes:
    return b"Hello, " + (body.strip() or b"world") + b", from an HTTP server\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        answer = greeting(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
