"use strict";
// The link to the platform, and the calls on it.

const net = require("node:net");
const { TYPE, END, NEVER_STARTED, WINDOW_SIZE, PIECE, NOTHING, encode, encodeWindow, Decoder } = require("./frames.js");

class Cancelled extends Error {
  constructor() {
    super("nobody waits for this call any more");
    this.name = "Cancelled";
  }
}

// One call: the pieces of its body that are here, and how much of its reply may be sent.
class Call {
  constructor(link, stream, head, body, complete) {
    this.link = link;
    this.stream = stream;
    this.head = head;
    this.chunks = body.length ? [body] : [];
    this.complete = complete;
    this.window = WINDOW_SIZE;
    this.owed = 0;
    this.started = false;
    this.cancelled = false;
    this.finished = false;
    this.headSent = false;
    this.onCancel = [];
    this.waiters = [];
    this.lines = { stdout: "", stderr: "" };
  }

  wait() {
    return new Promise((resolve) => this.waiters.push(resolve));
  }

  wake() {
    const waiters = this.waiters;
    this.waiters = [];
    for (const resolve of waiters) resolve();
  }

  check() {
    if (this.cancelled) throw new Cancelled();
  }

  // The next piece of the body; null at its end.
  async piece() {
    for (;;) {
      this.check();
      if (this.chunks.length) break;
      if (this.complete) return null;
      await this.wait();
    }
    const chunk = this.chunks.shift();
    this.owed += chunk.length;
    if (this.owed >= WINDOW_SIZE / 4 && !this.complete) {
      this.link.write(encodeWindow(this.stream, this.owed));
      this.owed = 0;
    }
    return chunk;
  }

  // `body` is at most a piece.
  sendHead(head, body = NOTHING, end = false) {
    this.check();
    this.headSent = true;
    this.window -= body.length;
    const frame = encode(TYPE.REPLY, this.stream, head, body, end ? END : 0);
    if (end) this.finish(frame);
    else this.link.write(frame);
  }

  async send(data) {
    let at = 0;
    while (at < data.length) {
      while (this.window <= 0 || this.link.full) {
        this.check();
        await (this.window <= 0 ? this.wait() : this.link.drained());
      }
      this.check();
      const size = Math.min(data.length - at, this.window, PIECE);
      this.window -= size;
      this.link.write(encode(TYPE.DATA, this.stream, NOTHING, data.subarray(at, at + size)));
      at += size;
    }
  }

  end() {
    this.check();
    this.finish(encode(TYPE.DATA, this.stream, NOTHING, NOTHING, END));
  }

  fail(described) {
    this.finish(encode(TYPE.ERROR, this.stream, NOTHING, Buffer.from(JSON.stringify(described))));
  }

  gone() {
    this.finish(encode(TYPE.GONE, this.stream, NOTHING, NOTHING, this.started ? 0 : NEVER_STARTED));
  }

  finish(frame) {
    if (this.finished) return;
    this.flushLines();
    this.finished = true;
    this.link.forget(this);
    this.link.write(frame);
  }

  log(name, text) {
    const lines = (this.lines[name] + text).split("\n");
    this.lines[name] = lines.pop();
    for (const line of lines) this.sendLine(name, line);
    if (this.lines[name].length > PIECE) {
      this.sendLine(name, this.lines[name]);
      this.lines[name] = "";
    }
  }

  flushLines() {
    for (const name of ["stdout", "stderr"]) {
      if (this.lines[name]) this.sendLine(name, this.lines[name]);
      this.lines[name] = "";
    }
  }

  sendLine(name, line) {
    const data = Buffer.from(line);
    const head = Buffer.from(name);
    for (let at = 0; at === 0 || at < data.length; at += PIECE) {
      this.link.write(encode(TYPE.LOG, this.stream, head, data.subarray(at, at + PIECE)));
    }
  }
}

// `answer(call)` is started for each call, for at most `concurrency` at a time.
class Link {
  constructor(fd, concurrency) {
    this.concurrency = concurrency;
    this.answer = null;
    this.calls = new Map();
    this.waiting = [];
    this.running = 0;
    this.draining = false;
    this.full = false;
    this.whenDrained = [];
    this.onEnd = () => {};
    this.decoder = new Decoder();
    this.socket = new net.Socket({ fd, readable: true, writable: true });
    this.socket.on("drain", () => {
      this.full = false;
      const waiting = this.whenDrained;
      this.whenDrained = [];
      for (const resolve of waiting) resolve();
    });
    this.socket.on("error", () => process.exit(0));
    this.socket.on("close", () => process.exit(0));
  }

  begin(answer) {
    this.answer = answer;
    this.socket.on("data", (data) => {
      for (const frame of this.decoder.feed(data)) this.receive(frame);
      // Only now, so that a call whose cancellation came along is not begun.
      this.takeUp();
    });
  }

  write(data) {
    if (!this.socket.write(data)) this.full = true;
  }

  drained() {
    return new Promise((resolve) => this.whenDrained.push(resolve));
  }

  forget(call) {
    this.calls.delete(call.stream);
  }

  receive({ type, flags, stream, head, body }) {
    if (type === TYPE.REQUEST) {
      const call = new Call(this, stream, head, body, Boolean(flags & END));
      this.calls.set(stream, call);
      this.waiting.push(call);
    } else if (type === TYPE.DRAIN) {
      this.draining = true;
    } else if (this.calls.has(stream)) {
      this.toCall(this.calls.get(stream), type, flags, body);
    }
  }

  toCall(call, type, flags, body) {
    if (type === TYPE.DATA) {
      if (body.length) call.chunks.push(body);
      if (flags & END) call.complete = true;
    } else if (type === TYPE.WINDOW) {
      call.window += body.readUInt32BE(0);
    } else if (type === TYPE.CANCEL) {
      call.cancelled = true;
      if (!call.started) {
        this.waiting = this.waiting.filter((other) => other !== call);
        call.gone();
        return;
      }
      for (const told of call.onCancel) told();
    }
    call.wake();
  }

  takeUp() {
    while (this.waiting.length && this.running < this.concurrency) {
      const call = this.waiting.shift();
      this.running += 1;
      call.started = true;
      this.write(encode(TYPE.STARTED, call.stream));
      this.answer(call).finally(() => {
        this.running -= 1;
        this.takeUp();
      });
    }
    if (this.draining && !this.running && !this.waiting.length) {
      this.draining = false;
      this.onEnd();
    }
  }
}

module.exports = { Link, Cancelled };
