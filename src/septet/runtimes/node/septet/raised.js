"use strict";
// Errors for the platform: type, message and the user's part of the trace.

const HERE = __dirname;

function describe(error) {
  if (!(error instanceof Error)) return { type: typeof error, message: String(error), trace: String(error) };
  return { type: error.name || "Error", message: String(error.message).slice(0, 4096), trace: traceOf(error) };
}

function traceOf(error) {
  if (!(error instanceof Error)) return String(error);
  const lines = String(error.stack || error).split("\n");
  const shown = lines.filter((line) => !/^\s+at /.test(line) || !(line.includes(HERE) || line.includes("node:internal")));
  const cause = error.cause instanceof Error ? `\n[cause] ${traceOf(error.cause)}` : "";
  return (shown.join("\n").split("\nRequire stack:")[0] + cause).slice(-32768);
}

module.exports = { describe, traceOf };
