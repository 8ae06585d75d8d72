// What Node functions do: run under the tracer to learn, and under the filter to prove, which calls they need.
"use strict";
const assert = require("node:assert");
const child = require("node:child_process");
const crypto = require("node:crypto");
const fs = require("node:fs");
const http = require("node:http");
const net = require("node:net");
const os = require("node:os");
const path = require("node:path");
const dgram = require("node:dgram");
const zlib = require("node:zlib");
const { Worker } = require("node:worker_threads");

async function files() {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "w-"));
  const file = path.join(root, "a.txt");
  await fs.promises.writeFile(file, "x".repeat(5000));
  fs.appendFileSync(file, "y");
  fs.truncateSync(file, 100);
  fs.copyFileSync(file, file + ".copy");
  fs.renameSync(file + ".copy", file + ".moved");
  fs.symlinkSync(file, file + ".link");
  fs.readlinkSync(file + ".link");
  fs.linkSync(file, file + ".hard");
  fs.chmodSync(file, 0o600);
  fs.utimesSync(file, 1, 1);
  fs.accessSync(file);
  fs.readdirSync(root);
  fs.mkdirSync(path.join(root, "d/e"), { recursive: true });
  const watcher = fs.watch(root, () => {});
  const handle = await fs.promises.open(file, "r+");
  await handle.sync();
  await handle.datasync();
  await handle.read(Buffer.alloc(10), 0, 10, 0);
  await handle.close();
  await new Promise((done) => fs.createReadStream(file).pipe(fs.createWriteStream(file + ".s")).on("close", done));
  watcher.close();
  fs.rmSync(root, { recursive: true });
}

async function network() {
  const server = http.createServer((request, response) => response.end("ok"));
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const body = await (await fetch(`http://127.0.0.1:${server.address().port}/`)).text();
  assert.equal(body, "ok");
  server.closeAllConnections();
  server.close();
  const unix = path.join(os.tmpdir(), `w-${process.pid}.sock`);
  const local = net.createServer((socket) => socket.end("hi"));
  await new Promise((done) => local.listen(unix, done));
  await new Promise((done) => net.connect(unix).on("data", () => {}).on("close", done));
  local.close();
  const socket = dgram.createSocket("udp4");
  await new Promise((done) => socket.bind(0, "127.0.0.1", done));
  const got = new Promise((done) => socket.on("message", done));
  socket.send("x", socket.address().port, "127.0.0.1");
  await got;
  socket.close();
  await require("node:dns").promises.lookup("localhost").catch(() => {});
}

async function processes() {
  assert.equal(child.execFileSync("/bin/sh", ["-c", "echo 1 | cat; ls -l / >/dev/null"]).toString(), "1\n");
  const sleeper = child.spawn("/bin/sleep", ["60"], { detached: true });
  const ended = new Promise((done) => sleeper.on("exit", done));
  sleeper.kill();
  await ended;
  const worker = new Worker("require('node:worker_threads').parentPort.postMessage(7)", { eval: true });
  assert.equal(await new Promise((done) => worker.on("message", done)), 7);
  await worker.terminate();
}

async function main() {
  await files();
  await network();
  await processes();
  assert.equal(zlib.gunzipSync(zlib.gzipSync("a")).toString(), "a");
  crypto.scryptSync("a", "b", 16);
  await new Promise((done) => crypto.randomBytes(16, done));
  os.cpus();
  os.freemem();
  os.loadavg();
  os.hostname();
  process.resourceUsage();
  process.on("SIGUSR2", () => {});
  process.kill(process.pid, "SIGUSR2");
  await new Promise((done) => setTimeout(done, 20));
  console.log("done");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
