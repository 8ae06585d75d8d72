"use strict";
// Starts a Node.js function: loads its handler and serves calls on the frame link (docs/frames.md).

const Module = require("node:module");
const path = require("node:path");
const { TYPE, NOTHING, encode } = require("./septet/frames.js");
const { Link, Cancelled } = require("./septet/link.js");
const { Request, Context } = require("./septet/request.js");
const { reply } = require("./septet/reply.js");
const { load, kindOf } = require("./septet/loading.js");
const { current, attributeOutput } = require("./septet/output.js");
const { describe, traceOf } = require("./septet/raised.js");

const MOST_CALLS = 1000;

function answerOf(target) {
  let answer;
  if (kindOf(target) === "server") {
    answer = require("./septet/server.js").serverAnswer(target);
  } else {
    answer = async (call, request) => reply(call, request, await target(request, new Context(call, request)));
  }
  return (call) => current.run(call, run, call, answer);
}

async function run(call, answer) {
  try {
    const working = answer(call, new Request(call));
    // A handler that never looks at its signal is left behind; what it still returns is dropped.
    const cancelled = new Promise((_, reject) => call.onCancel.push(() => reject(new Cancelled())));
    cancelled.catch(() => {});
    working.catch(() => {});
    await Promise.race([working, cancelled]);
  } catch (error) {
    if (call.cancelled || error instanceof Cancelled) {
      call.gone();
      return;
    }
    call.log("stderr", traceOf(error) + "\n");
    call.fail(describe(error));
  }
}

function useDependencies(deps) {
  process.env.NODE_PATH = path.join(deps, "node_modules") + (process.env.NODE_PATH ? `:${process.env.NODE_PATH}` : "");
  Module._initPaths();
}

// Waits, in an instance without a function yet, until it is told which one it has (docs/add-a-runtime.md).
function park(descriptor) {
  const told = require("node:fs").readFileSync(descriptor, "utf8");
  require("node:fs").closeSync(descriptor);
  if (!told) process.exit(0);
  const [folder, ...variables] = told.slice(0, -1).split("\0");
  for (const name of Object.keys(process.env)) delete process.env[name];
  for (const variable of variables) {
    const at = variable.indexOf("=");
    process.env[variable.slice(0, at)] = variable.slice(at + 1);
  }
  process.chdir(folder);
}

async function main() {
  if (process.env.SEPTET_PARK_FD) park(Number(process.env.SEPTET_PARK_FD));
  const concurrency = Number(process.env.SEPTET_CONCURRENCY || 1);
  const most = concurrency < 0 ? MOST_CALLS : concurrency;
  const link = new Link(Number(process.env.SEPTET_LINK_FD || 3), most);
  delete process.env.SEPTET_LINK_FD;
  const ready = (said) => link.write(encode(TYPE.READY, 0, NOTHING, Buffer.from(JSON.stringify(said))));
  useDependencies(process.env.SEPTET_DEPS || "/function/deps");
  attributeOutput();
  let answer;
  try {
    answer = answerOf(await load(process.env.SEPTET_HANDLER || "", process.env.SEPTET_CODE || "/function/code"));
  } catch (error) {
    console.error(traceOf(error));
    ready({ ok: false, ...describe(error) });
    link.socket.end(() => process.exit(1));
    return;
  }
  process.on("unhandledRejection", (error) => console.error(traceOf(error)));
  link.onEnd = () => link.socket.end(() => process.exit(0));
  link.begin(answer);
  ready({ ok: true, concurrency: most, version: 1 });
}

main();
