const fs = require("node:fs");
const sleep = (s) => new Promise((resolve) => setTimeout(resolve, s * 1000));

async function* flood(n) {
  const piece = Buffer.alloc(65536, "x");
  for (let i = 0; i < n; i++) yield piece;
}

async function* ticks(n) {
  for (let i = 0; i < n; i++) {
    yield `tick ${i}\n`;
    await sleep(0.05);
  }
}

exports.handle = async (request, context) => {
  const query = request.query;
  switch (request.path) {
    case "/echo":
      return request.stream();
    case "/count": {
      let size = 0;
      for await (const chunk of request) size += chunk.length;
      return String(size);
    }
    case "/slow":
      await sleep(Number(query.s));
      return "slow";
    case "/mark":
      fs.writeFileSync(query.file, "ran");
      return "marked";
    case "/flood":
      return flood(Number(query.mib) * 16);
    case "/ticks":
      return ticks(Number(query.n));
    case "/raise":
      throw new Error("a planned error");
    case "/exit":
      process.exit(3);
      break;
    case "/print":
      console.log("printed by", query.who);
      return "ok";
    case "/header":
      return { status: 418, headers: { "X-Answer": "tea" }, body: request.headers["x-test"] };
    default:
      return `hello ${request.method}`;
  }
};
