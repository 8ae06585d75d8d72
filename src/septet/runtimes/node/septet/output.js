"use strict";
// Printed text, attributed to the call that prints it; outside of calls it goes to the descriptor as ever.

const { AsyncLocalStorage } = require("node:async_hooks");

const current = new AsyncLocalStorage();

function attributeOutput() {
  for (const name of ["stdout", "stderr"]) {
    const stream = process[name];
    const plain = stream.write.bind(stream);
    stream.write = (chunk, encoding, callback) => {
      const call = current.getStore();
      if (!call || call.finished) return plain(chunk, encoding, callback);
      call.log(name, typeof chunk === "string" ? chunk : Buffer.from(chunk).toString());
      const told = typeof encoding === "function" ? encoding : callback;
      if (told) process.nextTick(told);
      return true;
    };
  }
}

module.exports = { current, attributeOutput };
