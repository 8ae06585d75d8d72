"use strict";
// (req, res) handlers, http.Server objects and Express-like applications: they get the real IncomingMessage and
// ServerResponse classes, over a duplex stream that stands for a connection.

const http = require("node:http");
const { Duplex } = require("node:stream");

// One call as the connection of one HTTP request. The head is written out as HTTP/1.1 for Node's own parser, with the
// body chunked; what comes back is read as HTTP/1.1 again.
class Connection extends Duplex {
  constructor(call, request) {
    super();
    this.call = call;
    this.request = request;
    this.reading = false;
    this.bodyEnded = false;
    this.replies = new ReplyParser(call, request);
    this.remoteAddress = (request.headers["x-forwarded-for"] || "127.0.0.1").split(",")[0].trim();
    this.done = new Promise((resolve, reject) => {
      this.finishOk = resolve;
      this.finishBad = reject;
    });
    this.upgrade = Boolean(request.headers.upgrade);
    this.chunked = !this.upgrade && !call.complete && !("content-length" in request.headers);
    this.push(this.head());
  }

  head() {
    const { request } = this;
    let framing = "";
    if (this.upgrade) framing = "Connection: Upgrade\r\n";
    else if (this.chunked) framing = "Transfer-Encoding: chunked\r\nConnection: close\r\n";
    else framing = "Connection: close\r\n";
    return Buffer.from(
      `${request.method} ${request.target} HTTP/1.1\r\n${request.rawLines.map((line) => line + "\r\n").join("")}${framing}\r\n`,
      "latin1",
    );
  }

  setTimeout() { return this; }
  setNoDelay() { return this; }
  setKeepAlive() { return this; }
  ref() { return this; }
  unref() { return this; }
  cork() {}
  uncork() {}

  _read() {
    if (this.reading || this.bodyEnded) return;
    this.reading = true;
    this.call.piece().then(
      (chunk) => {
        this.reading = false;
        if (chunk === null) {
          this.bodyEnded = true;
          if (this.chunked) this.push("0\r\n\r\n");
          if (this.upgrade) this.push(null);
        } else if (this.chunked) {
          this.push(Buffer.concat([Buffer.from(chunk.length.toString(16) + "\r\n"), chunk, Buffer.from("\r\n")]));
        } else {
          this.push(chunk);
        }
      },
      (error) => this.destroy(error),
    );
  }

  _write(chunk, encoding, callback) {
    this.replies.feed(Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk, encoding)).then(
      () => {
        if (this.replies.over) this.finishOk();
        callback();
      },
      (error) => {
        this.finishBad(error);
        callback(error);
      },
    );
  }

  _final(callback) {
    this.replies.end().then(
      () => {
        this.finishOk();
        callback();
      },
      (error) => {
        this.finishBad(error);
        callback(error);
      },
    );
  }

  _destroy(error, callback) {
    if (this.replies.over) this.finishOk();
    else this.finishBad(error || new Error("the handler closed the connection before its reply was complete"));
    callback(null);
  }
}

// Node's serialised reply -> the call's frames.
class ReplyParser {
  constructor(call, request) {
    this.call = call;
    this.method = request.method;
    this.held = Buffer.alloc(0);
    this.state = "head";
    this.left = 0;
    this.over = false;
  }

  async feed(data) {
    this.held = this.held.length ? Buffer.concat([this.held, data]) : data;
    while (!this.over && (await this.step()));
  }

  async end() {
    if (this.over) return;
    if (this.state === "head") throw new Error("the handler closed the connection without a reply");
    this.finish();
  }

  finish() {
    this.over = true;
    this.call.end();
  }

  async step() {
    if (this.state === "head") return this.head();
    if (this.state === "size") return this.size();
    if (this.state === "until-close") return this.pass(this.held.length);
    if (this.left === 0) {
      if (this.state === "length") {
        this.finish();
        return false;
      }
      if (this.held.length < 2) return false;
      this.held = this.held.subarray(2);
      this.state = "size";
      return true;
    }
    const size = Math.min(this.left, this.held.length);
    this.left -= size;
    return this.pass(size);
  }

  async pass(size) {
    if (size === 0) return false;
    const data = this.held.subarray(0, size);
    this.held = this.held.subarray(size);
    await this.call.send(data);
    return true;
  }

  head() {
    const end = this.held.indexOf("\r\n\r\n");
    if (end < 0) return false;
    const [line, ...lines] = this.held.subarray(0, end).toString("latin1").split("\r\n");
    this.held = this.held.subarray(end + 4);
    const status = Number(line.split(" ")[1]);
    const value = (name) => lines.find((one) => one.toLowerCase().startsWith(name + ":"))?.slice(name.length + 1).trim();
    const kept = status === 101 ? lines : lines.filter((one) => !/^(connection|keep-alive|transfer-encoding):/i.test(one));
    if (status === 100) return true;
    this.call.sendHead(Buffer.from([line, ...kept, ""].join("\r\n"), "latin1"));
    if (status < 200 && status !== 101) {
      this.call.headSent = false;
      return true;
    }
    const bodiless = this.method === "HEAD" || status === 204 || status === 304;
    this.left = Number(value("content-length") ?? 0);
    if (status === 101) this.state = "until-close";
    else if (bodiless) [this.state, this.left] = ["length", 0];
    else if ((value("transfer-encoding") || "").toLowerCase() === "chunked") this.state = "size";
    else this.state = value("content-length") === undefined ? "until-close" : "length";
    return true;
  }

  size() {
    const end = this.held.indexOf("\r\n");
    if (end < 0) return false;
    this.left = parseInt(this.held.subarray(0, end).toString("latin1"), 16);
    this.held = this.held.subarray(end + 2);
    if (this.left === 0) {
      this.finish();
      return false;
    }
    this.state = "chunk";
    return true;
  }
}

// A function that throws, or whose promise is rejected, fails its own call. In a server of the user's own it ends
// the process, as it does in Node itself.
function listenerOf(target) {
  return (req, res) => {
    const fail = (error) => req.socket.destroy(error instanceof Error ? error : new Error(String(error)));
    try {
      const working = target(req, res);
      if (typeof working?.then === "function") working.then(null, fail);
    } catch (error) {
      fail(error);
    }
  };
}

function serverAnswer(target) {
  const server = target instanceof http.Server ? target : http.createServer(listenerOf(target));
  server.timeout = server.requestTimeout = server.headersTimeout = server.keepAliveTimeout = 0;
  return async (call, request) => {
    const connection = new Connection(call, request);
    call.onCancel.push(() => connection.destroy());
    server.emit("connection", connection);
    await connection.done;
  };
}

module.exports = { serverAnswer };
