"use strict";
// Finding the handler, and what kind it is.

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const { pathToFileURL } = require("node:url");

const FILES = ["main", "index", "handler", "app", "server", "function"];
const ENDINGS = [".js", ".mjs", ".cjs"];
const NAMES = ["handle", "handler", "default", "main", "server", "app"];

class HandlerNotFound extends Error {
  constructor(message) {
    super(message);
    this.name = "HandlerNotFound";
  }
}

async function load(name, code) {
  const at = name.lastIndexOf(":");
  const place = at < 0 ? name : name.slice(0, at);
  const attribute = at < 0 ? "" : name.slice(at + 1);
  const file = findFile(place, code);
  const module = await importFile(file);
  const named = attribute ? attribute.split(".").reduce((found, part) => found?.[part] ?? found?.default?.[part], module) : null;
  if (attribute && named === undefined) throw new HandlerNotFound(`${path.basename(file)} has no ${attribute}`);
  const target = named ?? pick(module);
  if (target === undefined) {
    throw new HandlerNotFound(`${path.basename(file)} exports neither a function nor one of ${NAMES.join(", ")}`);
  }
  return target;
}

function findFile(place, code) {
  const candidates = place ? [place] : [...mainOf(code), ...FILES];
  for (const candidate of candidates) {
    for (const ending of ["", ...ENDINGS]) {
      const file = path.join(code, candidate + ending);
      if (fs.statSync(file, { throwIfNoEntry: false })?.isFile()) return file;
    }
  }
  if (place) throw new HandlerNotFound(`there is no file ${place}`);
  const scripts = fs.readdirSync(code).filter((one) => ENDINGS.includes(path.extname(one)) && !one.includes(".test."));
  if (scripts.length === 1) return path.join(code, scripts[0]);
  throw new HandlerNotFound(`the source has none of ${FILES.join(", ")}.js nor exactly one script: set handler`);
}

function mainOf(code) {
  try {
    const main = JSON.parse(fs.readFileSync(path.join(code, "package.json"), "utf8")).main;
    return main ? [main] : [];
  } catch {
    return [];
  }
}

async function importFile(file) {
  if (file.endsWith(".mjs")) return import(pathToFileURL(file).href);
  try {
    return require(file);
  } catch (error) {
    const esm = ["ERR_REQUIRE_ESM", "ERR_REQUIRE_ASYNC_MODULE"].includes(error.code);
    const syntax = error instanceof SyntaxError && /import statement|Unexpected token 'export'|await is only valid/.test(error.message);
    if (!esm && !(syntax && file.endsWith(".js"))) throw error;
    if (esm) return import(pathToFileURL(file).href);
    throw new SyntaxError(`${error.message}: name the file .mjs, or set "type": "module" in package.json`);
  }
}

function pick(module) {
  if (usable(module)) return module;
  for (const name of NAMES) {
    if (usable(module?.[name])) return module[name];
  }
  return module?.default && module.default !== module ? pick(module.default) : undefined;
}

function usable(target) {
  return typeof target === "function" || target instanceof http.Server;
}

// "server" for what takes (req, res), else "handler". A function of two parameters is told by their names.
function kindOf(target) {
  if (target instanceof http.Server) return "server";
  if (typeof target.listen === "function" && typeof target.handle === "function") return "server";
  const source = Function.prototype.toString.call(target);
  const names = /^(?:async\s+)?(?:function\s*\*?\s*[\w$]*\s*|[\w$]+\s*)?\(\s*([\w$]+)\s*,\s*([\w$]+)/.exec(source);
  return names && /^(res|response|reply)$/.test(names[2]) ? "server" : "handler";
}

module.exports = { load, kindOf, HandlerNotFound };
