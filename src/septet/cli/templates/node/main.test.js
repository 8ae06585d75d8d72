// Run with: node --test
const assert = require("node:assert");
const test = require("node:test");
const { handle } = require("./main.js");

const request = (body) => ({ text: async () => body });

test("names whom it greets", async () => {
  assert.strictEqual(await handle(request("Ada"), {}), "Hello, Ada!\n");
});

test("greets the world by default", async () => {
  assert.strictEqual(await handle(request(""), {}), "Hello, world!\n");
});
