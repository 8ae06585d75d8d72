"""WebSocket (RFC 6455) for ASGI applications, over a stream that was switched with status 101."""

import base64
import hashlib
import struct

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MESSAGE_MAX = 16 * 1024 * 1024


class Broken(Exception):
    """The client broke the protocol; `code` closes the connection."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


def frame(opcode, data):
    """One whole message from the server: not masked."""
    size = len(data)
    if size < 126:
        return bytes((0x80 | opcode, size)) + data
    if size < 65536:
        return bytes((0x80 | opcode, 126)) + struct.pack(">H", size) + data
    return bytes((0x80 | opcode, 127)) + struct.pack(">Q", size) + data


class Messages:
    """Whole messages from a client's bytes."""

    def __init__(self, call):
        self._call = call
        self._buffer = b""

    async def _take(self, count):
        while len(self._buffer) < count:
            chunk = await self._call.piece()
            if not chunk:
                raise Broken(1006)
            self._buffer += chunk
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    async def _frame(self):
        first, second = await self._take(2)
        if first & 0x70 or not second & 0x80:
            raise Broken(1002)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", await self._take(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", await self._take(8))
        opcode = first & 15
        if size > MESSAGE_MAX:
            raise Broken(1009)
        if opcode >= 8 and (size > 125 or not first & 0x80):
            raise Broken(1002)
        mask = await self._take(4)
        data = await self._take(size)
        repeated = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        data = (int.from_bytes(data, "big") ^ repeated).to_bytes(size, "big")
        return bool(first & 0x80), opcode, data

    async def next(self):
        """(opcode, data): a text, binary or close message; pings are answered on the way."""
        parts, kind = [], 0
        while True:
            final, opcode, data = await self._frame()
            if opcode == PING:
                await self._call.write(frame(PONG, data))
            elif opcode == CLOSE:
                return CLOSE, data
            elif opcode in (TEXT, BINARY, 0):
                if bool(opcode) == bool(kind):
                    raise Broken(1002)
                kind = kind or opcode
                parts.append(data)
                if sum(map(len, parts)) > MESSAGE_MAX:
                    raise Broken(1009)
                if final:
                    return kind, b"".join(parts)
            elif opcode != PONG:
                raise Broken(1002)


async def serve(call, app, scope):
    """One connection, as an ASGI `websocket` scope."""
    headers = call.head.headers
    key = headers.get("sec-websocket-key", "")
    offered = [p.strip() for p in headers.get("sec-websocket-protocol", "").split(",") if p.strip()]
    scope["subprotocols"] = offered
    messages = Messages(call)
    state = {"phase": "connecting"}

    async def receive():
        if state["phase"] == "connecting":
            state["phase"] = "asked"
            return {"type": "websocket.connect"}
        if state["phase"] == "closed":
            return {"type": "websocket.disconnect", "code": 1006}
        try:
            opcode, data = await messages.next()
            if opcode == TEXT:
                return {"type": "websocket.receive", "text": data.decode("utf-8"), "bytes": None}
            if opcode == BINARY:
                return {"type": "websocket.receive", "bytes": data, "text": None}
            code = struct.unpack(">H", data[:2])[0] if len(data) >= 2 else 1005
            await _close(1000 if code == 1005 else code)
        except UnicodeDecodeError:
            code = 1007
            await _close(code)
        except Broken as error:
            code = error.code
            await _close(code)
        return {"type": "websocket.disconnect", "code": code}

    async def _close(code):
        if state["phase"] == "open":
            state["phase"] = "closed"
            body = b"" if code == 1006 else frame(CLOSE, struct.pack(">H", code))
            await call.write(body, end=True)

    async def send(message):
        kind = message["type"]
        if kind == "websocket.accept" and state["phase"] in ("connecting", "asked"):
            accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()
            lines = [b"HTTP/1.1 101 Switching Protocols\r\n"]
            pairs = [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-accept", accept)]
            if message.get("subprotocol"):
                pairs.append(("sec-websocket-protocol", message["subprotocol"]))
            pairs += [(n.decode("latin-1"), v.decode("latin-1")) for n, v in message.get("headers", ())]
            lines += [b"%b: %b\r\n" % (n.encode("latin-1"), v.encode("latin-1")) for n, v in pairs]
            state["phase"] = "open"
            await call.reply(b"".join(lines), end=False)
        elif kind == "websocket.send" and state["phase"] == "open":
            if message.get("text") is not None:
                await call.write(frame(TEXT, message["text"].encode("utf-8")))
            else:
                await call.write(frame(BINARY, bytes(message["bytes"])))
        elif kind == "websocket.close":
            if state["phase"] in ("connecting", "asked"):
                state["phase"] = "closed"
                await call.reply(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n")
            else:
                await _close(message.get("code", 1000))

    await app(scope, receive, send)
    await _close(1000)
    if state["phase"] in ("connecting", "asked"):
        await call.reply(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n")
