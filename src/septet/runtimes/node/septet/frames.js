"use strict";
// The frame codec (docs/frames.md).

const TYPE = {
  REQUEST: 1, DATA: 2, REPLY: 3, CANCEL: 4, WINDOW: 5, LOG: 6, READY: 7, ERROR: 8, STARTED: 9, GONE: 10, DRAIN: 11,
};
const END = 1;
const NEVER_STARTED = 2;
const WINDOW_SIZE = 256 * 1024;
const PIECE = 64 * 1024;
const FRAME_MAX = 1024 * 1024;
const HEADER = 12;
const NOTHING = Buffer.alloc(0);

function encode(type, stream, head = NOTHING, body = NOTHING, flags = 0) {
  const frame = Buffer.allocUnsafe(HEADER + head.length + body.length);
  frame.writeUInt32BE(head.length + body.length, 0);
  frame.writeUInt32BE(stream, 4);
  frame[8] = type;
  frame[9] = flags;
  frame.writeUInt16BE(head.length, 10);
  head.copy(frame, HEADER);
  body.copy(frame, HEADER + head.length);
  return frame;
}

function encodeWindow(stream, credit) {
  const body = Buffer.allocUnsafe(4);
  body.writeUInt32BE(credit);
  return encode(TYPE.WINDOW, stream, NOTHING, body);
}

// Bytes in any pieces -> frames.
class Decoder {
  constructor() {
    this.held = NOTHING;
  }

  feed(data) {
    const buffer = this.held.length ? Buffer.concat([this.held, data]) : data;
    const frames = [];
    let at = 0;
    while (buffer.length - at >= HEADER) {
      const length = buffer.readUInt32BE(at);
      const type = buffer[at + 8];
      const head = buffer.readUInt16BE(at + 10);
      if (length > FRAME_MAX || head > length || type < 1 || type > 12) {
        throw new Error("the platform broke the frame protocol");
      }
      const begin = at + HEADER;
      if (buffer.length - begin < length) break;
      frames.push({
        type,
        flags: buffer[at + 9],
        stream: buffer.readUInt32BE(at + 4),
        head: buffer.subarray(begin, begin + head),
        body: buffer.subarray(begin + head, begin + length),
      });
      at = begin + length;
    }
    this.held = buffer.subarray(at);
    return frames;
  }
}

module.exports = { TYPE, END, NEVER_STARTED, WINDOW_SIZE, PIECE, NOTHING, encode, encodeWindow, Decoder };
