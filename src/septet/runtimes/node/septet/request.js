"use strict";
// What a handler is given.

const { AsyncResource } = require("node:async_hooks");

// Header lines as an object with lower-case names; repeated ones joined, as Node's own http does.
function parseHeaders(lines) {
  const headers = {};
  for (const line of lines) {
    const colon = line.indexOf(":");
    if (colon < 1) continue;
    const name = line.slice(0, colon).toLowerCase();
    const value = line.slice(colon + 1).trim();
    if (Object.hasOwn(headers, name)) headers[name] += (name === "cookie" ? "; " : ", ") + value;
    else headers[name] = value;
  }
  return headers;
}

// The body is read when it is asked for: `for await (const chunk of request)` takes it piece by piece, and
// `text()`, `json()`, `bytes()` all of it.
class Request {
  constructor(call) {
    const [line, ...lines] = call.head.toString("latin1").split("\r\n");
    const [method, target] = line.split(" ");
    this.method = method;
    this.target = target;
    this.rawLines = lines.filter((one) => one);
    this.headers = parseHeaders(this.rawLines);
    this.call = call;
    this.whole = null;
    Object.defineProperty(this, "call", { enumerable: false });
  }

  get path() {
    const path = this.target.split("?", 1)[0];
    try {
      return decodeURIComponent(path);
    } catch {
      return path;
    }
  }

  get queryString() {
    const at = this.target.indexOf("?");
    return at < 0 ? "" : this.target.slice(at + 1);
  }

  // Name -> last value.
  get query() {
    return Object.fromEntries(this.searchParams);
  }

  get searchParams() {
    return new URLSearchParams(this.queryString);
  }

  async *[Symbol.asyncIterator]() {
    let chunk;
    while ((chunk = await this.call.piece()) !== null) yield chunk;
  }

  stream() {
    return this[Symbol.asyncIterator]();
  }

  async bytes() {
    if (this.whole === null) {
      const chunks = [];
      for await (const chunk of this) chunks.push(chunk);
      this.whole = Buffer.concat(chunks);
    }
    return this.whole;
  }

  async text() {
    return (await this.bytes()).toString();
  }

  // The body as JSON; an empty one is an empty object.
  async json() {
    const text = await this.text();
    return text ? JSON.parse(text) : {};
  }
}

class Context {
  constructor(call, request) {
    this.invocationId = request.headers["septet-invocation-id"] || "";
    this.requestId = request.headers["x-request-id"] || "";
    this.traceparent = request.headers.traceparent || "";
    // Milliseconds since the epoch, as Date.now() has it.
    this.deadline = Number(request.headers["septet-deadline"] || Infinity);
    this.function = process.env.SEPTET_FUNCTION || "";
    this.namespace = process.env.SEPTET_NAMESPACE || "";
    this.revision = process.env.SEPTET_REVISION || "";
    this.instance = process.env.SEPTET_INSTANCE || "";
    const controller = new AbortController();
    // Bound, so that what a listener prints belongs to this call.
    call.onCancel.push(AsyncResource.bind(() => controller.abort()));
    this.signal = controller.signal;
    this.logger = console;
  }

  // Milliseconds from now.
  remaining() {
    return Math.max(0, this.deadline - Date.now());
  }
}

module.exports = { Request, Context };
