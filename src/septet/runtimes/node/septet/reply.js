"use strict";
// From what a handler returned to a reply.

const TEXT = "text/plain; charset=utf-8";
const BYTES = "application/octet-stream";
const JSON_TYPE = "application/json";

function encodeHead(status, pairs) {
  if (!Number.isInteger(status) || status < 100 || status > 599) throw new RangeError(`${status} is not an HTTP status`);
  let head = `HTTP/1.1 ${status} \r\n`;
  for (const [name, value] of pairs) {
    if (!name || /[\r\n\0:]/.test(name) || /[\r\n\0]/.test(String(value))) {
      throw new TypeError(`not a header: ${JSON.stringify(name)}`);
    }
    head += `${name}: ${value}\r\n`;
  }
  return Buffer.from(head, "latin1");
}

function mayHaveBody(method, status) {
  return method !== "HEAD" && status >= 200 && status !== 204 && status !== 304;
}

function pairsOf(headers) {
  const pairs = [];
  if (!headers) return pairs;
  const entries = typeof headers.entries === "function" ? headers.entries() : Object.entries(headers);
  for (const [name, value] of entries) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (String(name).toLowerCase() !== "content-length") pairs.push([String(name), String(one)]);
    }
  }
  return pairs;
}

function isStream(value) {
  return value !== null && typeof value === "object" && (Symbol.asyncIterator in value || typeof value.next === "function");
}

function isResponse(value) {
  return (
    value !== null && typeof value === "object" && !Array.isArray(value) && !Buffer.isBuffer(value) &&
    (Number.isInteger(value.status) || Number.isInteger(value.statusCode)) && ("body" in value || "headers" in value)
  );
}

// A piece of a body and the type of a reply that names none. A JSON value in a stream is a line.
function toBytes(value, streaming) {
  if (typeof value === "string") return [Buffer.from(value), TEXT];
  if (value instanceof Uint8Array) return [Buffer.from(value.buffer, value.byteOffset, value.byteLength), BYTES];
  if (value instanceof ArrayBuffer) return [Buffer.from(value), BYTES];
  const text = JSON.stringify(value);
  if (text === undefined) throw new TypeError(`a handler cannot return a ${typeof value}`);
  return streaming ? [Buffer.from(text + "\n"), "application/x-ndjson"] : [Buffer.from(text), JSON_TYPE];
}

async function reply(call, request, result) {
  let status = null;
  let pairs = [];
  let body = result;
  if (isResponse(result)) {
    status = result.status ?? result.statusCode;
    pairs = pairsOf(result.headers);
    body = result.body;
  }
  const typed = () => pairs.some(([name]) => name.toLowerCase() === "content-type");
  if (isStream(body)) {
    await stream(call, request, status ?? 200, pairs, typed, body);
    return;
  }
  let data = Buffer.alloc(0);
  if (body === undefined || body === null) {
    status ??= 204;
  } else {
    let type;
    [data, type] = toBytes(body, false);
    if (!typed()) pairs.push(["content-type", type]);
  }
  status ??= 200;
  const withBody = mayHaveBody(request.method, status);
  if (withBody || request.method === "HEAD") pairs.push(["content-length", String(data.length)]);
  const head = encodeHead(status, pairs);
  if (!withBody) data = Buffer.alloc(0);
  if (data.length <= 65536) {
    call.sendHead(head, data, true);
    return;
  }
  call.sendHead(head);
  await call.send(data);
  call.end();
}

async function stream(call, request, status, pairs, typed, body) {
  const withBody = mayHaveBody(request.method, status);
  for await (const value of body) {
    const [data, type] = toBytes(value, true);
    if (!call.headSent) {
      if (!typed()) pairs.push(["content-type", type]);
      call.sendHead(encodeHead(status, pairs));
    }
    if (!withBody) break;
    await call.send(data);
    // An iterator that never waits would keep the link from being read.
    await new Promise(setImmediate);
    call.check();
  }
  if (!call.headSent) call.sendHead(encodeHead(status, pairs));
  call.end();
}

module.exports = { reply, encodeHead, mayHaveBody };
