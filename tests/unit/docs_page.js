// The page of /docs in a browser that knows just what the page uses: node docs_page.js PAGE DESCRIPTION
"use strict";

const fs = require("fs");
const vm = require("vm");

class Element {
  constructor(name) {
    Object.assign(this, { name, children: [], attributes: {}, listeners: {}, value: "" });
  }
  addEventListener(kind, listener) { this.listeners[kind] = listener; }
  setAttribute(name, value) { this.attributes[name] = value; }
  append(...children) { this.children.push(...children); }
  replaceChildren(...children) { this.children = children; }
  set textContent(text) { this.children = [text]; }
  get textContent() { return this.children.map((each) => each.textContent ?? String(each)).join(""); }
  all(name) {
    const inside = this.children.flatMap((each) => (each instanceof Element ? each.all(name) : []));
    return this.name === name ? [this, ...inside] : inside;
  }
}

const [page, description] = process.argv.slice(2).map((path) => fs.readFileSync(path, "utf8"));
const ids = {};
const sent = [];

globalThis.document = {
  createElement: (name) => new Element(name),
  getElementById: (id) => (ids[id] ??= new Element(id)),
};
globalThis.location = { hash: "" };
globalThis.fetch = async (path, options) => {
  if (path === "openapi.json") return { json: async () => JSON.parse(description) };
  sent.push(`${options.method} ${path} ${options.headers.Authorization}`);
  return new Response('{"id":1.10,"list":["{",[]]}', { headers: { "content-type": "application/json" } });
};

async function until(isSo) {
  while (!isSo()) await new Promise(setImmediate);
}

async function report() {
  vm.runInThisContext(page.match(/<script>(.*?)<\/script>/s)[1]);
  await until(() => ids.main.all("section").length);
  document.getElementById("key").value = "tg-x";
  const shown = ids.main.all("details").filter((each) => each.attributes.class === "operation");
  const named = (id) => shown.find((each) => each.attributes.id === id);
  const rotate = named("rotate_key");
  const output = rotate.all("pre").find((each) => each.attributes["aria-live"]);
  rotate.all("input")[0].value = "a/b";
  rotate.all("button")[0].listeners.click();
  await until(() => output.textContent.includes("\n\n{\n"));
  console.log(JSON.stringify({
    operations: shown.length,
    body: named("create_chat_completion").all("textarea")[0].value,
    sent,
    output: output.textContent,
  }));
}

report();
