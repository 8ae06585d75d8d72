"""WebSocket (RFC 6455) for ASGI: the handshake, and the framing over the call's two-way stream."""

import struct

from septet_runtime.asgi import http_scope
from septet_runtime.link import Cancelled
from septet_runtime.reply import encode_head
from septet_runtime.tasks import send_all

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MESSAGE_MAX = 16 * 1024 * 1024
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class ProtocolError(Exception):
    """The client broke RFC 6455; `code` is the close code."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def accept_key(key):
    import base64
    import hashlib

    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + _MAGIC).digest()).decode()


def encode_frame(opcode, data):
    """One whole, unmasked frame: servers do not mask."""
    size = len(data)
    if size < 126:
        head = struct.pack(">BB", 0x80 | opcode, size)
    elif size < 65536:
        head = struct.pack(">BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 127, size)
    return head + data


def unmask(data, mask):
    whole = mask * (len(data) // 4 + 1)
    size = len(data)
    return (int.from_bytes(data, "big") ^ int.from_bytes(whole[:size], "big")).to_bytes(size, "big")


class FrameReader:
    """Bytes in any pieces -> (opcode, final, data) of masked frames; ProtocolError."""

    def __init__(self):
        self._buffer = bytearray()

    def feed(self, data):
        self._buffer += data
        while (frame := self._next()) is not None:
            yield frame

    def _next(self):
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        opcode, final, size, at = buffer[0] & 15, bool(buffer[0] & 0x80), buffer[1] & 127, 2
        if buffer[0] & 0x70 or not buffer[1] & 0x80:
            raise ProtocolError(1002, "a reserved bit is set, or the frame is not masked")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG) or (opcode >= 8 and (size > 125 or not final)):
            raise ProtocolError(1002, "a frame of a kind that does not exist")
        extra = {126: 2, 127: 8}.get(size, 0)
        if len(buffer) < at + extra + 4:
            return None
        if extra:
            size = int.from_bytes(buffer[at : at + extra], "big")
            at += extra
        if size > MESSAGE_MAX:
            raise ProtocolError(1009, "the message is too large")
        if len(buffer) < at + 4 + size:
            return None
        data = unmask(bytes(buffer[at + 4 : at + 4 + size]), bytes(buffer[at : at + 4]))
        del buffer[: at + 4 + size]
        return opcode, final, data


class WebSocket:
    """One connection: `connecting`, then `open`, then `closed`."""

    def __init__(self, call, request):
        self._call = call
        self._request = request
        self._reader = FrameReader()
        self._messages = []
        self._parts = []
        self._kind = TEXT
        self._state = "connecting"
        self._told = False
        self._refusal = None

    async def run(self, application, state):
        scope = http_scope(self._call, self._request, "websocket", state)
        wanted = self._request.headers.get("sec-websocket-protocol", "")
        scope["subprotocols"] = [one.strip() for one in wanted.split(",") if one.strip()]
        scope["asgi"] = {**scope["asgi"], "spec_version": "2.3"}
        scope["extensions"] = {"websocket.http.response": {}}
        await application(scope, self.receive, self.send)
        if self._state == "connecting":
            self._refuse(403, [])
        elif self._state == "open":
            await self._close(1000, "")

    async def receive(self):
        if not self._told:
            self._told = True
            return {"type": "websocket.connect"}
        while not self._messages:
            if self._state == "closed":
                return {"type": "websocket.disconnect", "code": 1006}
            await self._read()
        return self._messages.pop(0)

    async def send(self, message):
        kind = message["type"]
        if kind == "websocket.accept" and self._state == "connecting":
            self._accept(message)
        elif kind == "websocket.send" and self._state == "open":
            text = message.get("text")
            data = (
                encode_frame(BINARY, message.get("bytes") or b"") if text is None else encode_frame(TEXT, text.encode())
            )
            await send_all(self._call, data)
        elif kind == "websocket.close":
            if self._state == "connecting":
                self._refuse(403, [])
            elif self._state == "open":
                await self._close(message.get("code", 1000), message.get("reason") or "")
        elif kind == "websocket.http.response.start" and self._state == "connecting":
            self._refusal = message
        elif kind == "websocket.http.response.body" and self._refusal is not None:
            await self._refusal_body(message)
        elif self._state != "closed":
            raise RuntimeError(f"{kind} while the connection is {self._state}")

    # -- inside

    def _accept(self, message):
        headers = [
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-accept", accept_key(self._request.headers.get("sec-websocket-key", ""))),
        ]
        if message.get("subprotocol"):
            headers.append(("sec-websocket-protocol", message["subprotocol"]))
        headers += [(bytes(n).decode("latin-1"), bytes(v).decode("latin-1")) for n, v in message.get("headers") or ()]
        self._state = "open"
        self._call.send_head(encode_head(101, headers))

    def _refuse(self, status, headers):
        self._state = "closed"
        self._call.send_head(encode_head(status, [*headers, ("content-length", "0")]), end=True)

    async def _refusal_body(self, message):
        pairs = [(bytes(n).decode("latin-1"), bytes(v).decode("latin-1")) for n, v in self._refusal.get("headers", ())]
        if not self._call.head_sent:
            self._call.send_head(encode_head(self._refusal["status"], pairs))
        await send_all(self._call, bytes(message.get("body", b"")))
        if not message.get("more_body", False):
            self._state = "closed"
            self._call.end()

    async def _close(self, code, reason):
        if self._state == "open":
            self._state = "closed"
            await send_all(self._call, encode_frame(CLOSE, struct.pack(">H", code) + reason.encode()[:123]))
            self._call.end()

    async def _read(self):
        await self._call.link.waits.until_async(self._call, self._call.has_body)
        try:
            data = self._call.take()
        except Cancelled:
            data = b""
        if not data:
            self._messages.append({"type": "websocket.disconnect", "code": 1006})
            await self._drop()
            return
        try:
            for opcode, final, piece in self._reader.feed(data):
                await self._frame(opcode, final, piece)
        except ProtocolError as error:
            self._messages.append({"type": "websocket.disconnect", "code": error.code})
            await self._close(error.code, str(error))

    async def _drop(self):
        """The client is gone without a closing handshake."""
        if self._state == "open":
            self._state = "closed"
            if not self._call.cancelled:
                self._call.end()

    async def _frame(self, opcode, final, data):
        if self._state != "open":
            return
        if opcode == PING:
            await send_all(self._call, encode_frame(PONG, data))
        elif opcode == CLOSE:
            code = struct.unpack(">H", data[:2])[0] if len(data) >= 2 else 1005
            self._messages.append({"type": "websocket.disconnect", "code": code})
            await self._close(1000 if code == 1005 else code, "")
        elif opcode != PONG:
            self._part(opcode, final, data)

    def _part(self, opcode, final, data):
        if (opcode == CONTINUATION) != bool(self._parts):
            raise ProtocolError(1002, "a continuation without a beginning, or the other way round")
        if opcode != CONTINUATION:
            self._kind = opcode
        self._parts.append(data)
        if sum(map(len, self._parts)) > MESSAGE_MAX or len(self._parts) > 65536:
            raise ProtocolError(1009, "the message is too large")
        if not final:
            return
        whole, self._parts = b"".join(self._parts), []
        if self._kind == BINARY:
            self._messages.append({"type": "websocket.receive", "bytes": whole})
            return
        try:
            self._messages.append({"type": "websocket.receive", "text": whole.decode()})
        except UnicodeDecodeError:
            raise ProtocolError(1007, "a text message that is no UTF-8") from None
