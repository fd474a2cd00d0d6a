// HTTP as far as providers need it, on ports of the system's choice on the loopback interface.

import { createServer } from "node:http";

export async function listen(answer) {
  const server = createServer(async (request, response) => {
    try {
      await answer(request, response);
    } catch (error) {
      // Whoever asks may go away meanwhile, and most of all from what hangs.
      if (request.errored || response.destroyed || response.headersSent) return response.destroy();
      send(response, 500, {}, error.stack);
    }
  });
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  return { server, url: `http://127.0.0.1:${server.address().port}` };
}

export async function readText(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

export async function readJson(request) {
  const text = await readText(request);
  return text ? JSON.parse(text) : {};
}

export async function readForm(request) {
  return Object.fromEntries(new URLSearchParams(await readText(request)));
}

export function send(response, status, headers, body = "") {
  response.writeHead(status, { "cache-control": "no-store", ...headers, "content-length": Buffer.byteLength(body) });
  response.end(body);
}

export function sendJson(response, status, value, headers = {}) {
  send(response, status, { "content-type": "application/json; charset=utf-8", ...headers }, JSON.stringify(value));
}

export function cookiesOf(request) {
  const pairs = (request.headers.cookie ?? "").split("; ").map((pair) => pair.split("="));
  return Object.fromEntries(pairs);
}

/** A URL with these parameters in its query; `undefined` ones are left out. */
export function withQuery(url, params) {
  const result = new URL(url);
  for (const [name, value] of Object.entries(params)) {
    if (value !== undefined) result.searchParams.set(name, value);
  }
  return result.href;
}
