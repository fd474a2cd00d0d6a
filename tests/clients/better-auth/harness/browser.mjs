// A browser: it keeps cookies, says where its requests come from, and runs the unmodified client.

import { request } from "node:http";

import { createAuthClient } from "better-auth/client";
import { multiSessionClient } from "better-auth/client/plugins";

import { BASE_PATH, note } from "./seen.mjs";

export class Browser {
  /** The better-auth client of an application that this browser shows. */
  client;
  /** The last answer: status, headers, and the cookies that it set. */
  last;
  #site;
  #headers;
  #cookies = new Map();

  /** `headers` go with every request of the application. */
  constructor(site, headers = {}) {
    this.#site = site;
    this.#headers = headers;
    this.client = createAuthClient({
      baseURL: site.url,
      fetchOptions: { customFetchImpl: (input, init) => this.fetch(input, init) },
      plugins: [multiSessionClient()],
    });
  }

  /** As the application's script fetches: same origin, cookies included. Redirects are shown, not followed. */
  async fetch(input, init = {}) {
    const url = new URL(input, this.#site.url);
    const method = (init.method ?? "GET").toUpperCase();
    const headers = new Headers(this.#headers);
    headers.set("sec-fetch-site", "same-origin");
    if (method !== "GET" && method !== "HEAD") headers.set("origin", this.#site.url);
    new Headers(init.headers).forEach((value, name) => headers.set(name, value));
    return this.#send(url, { ...init, method, headers, redirect: "manual" });
  }

  /** Follows a link, as a person does who clicks on it in a mail: up to the first redirect. */
  async open(link) {
    const url = new URL(link, this.#site.url);
    if (url.origin !== this.#site.url) throw new Error(`${link} leads away from ${this.#site.url}`);
    return this.#send(url, { method: "GET", headers: new Headers(this.#headers), redirect: "manual" });
  }

  /** POSTs a body as it is to a path below the base path, or, without one, gets it. */
  raw(path, { method, body, type = "application/json", headers = {} } = {}) {
    return this.fetch(`${BASE_PATH}${path}`, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      body,
      headers: { ...(body !== undefined && type && { "content-type": type }), ...headers },
    });
  }

  async #send(url, init) {
    if (this.#cookies.size > 0) init.headers.set("cookie", this.cookieHeader());
    const response = await fetch(url, init);
    const set = response.headers.getSetCookie().map(parseCookie);
    for (const cookie of set) this.#keep(cookie);
    this.last = { status: response.status, headers: response.headers, cookies: new Map(set.map((c) => [c.name, c])) };
    note(init.method, url, response.status, await response.clone().text());
    return response;
  }

  #keep({ name, value, attributes }) {
    if (attributes["max-age"] === "0") this.#cookies.delete(name);
    else this.#cookies.set(name, value);
  }

  /** The value of a cookie that it holds. */
  cookie(name) {
    return this.#cookies.get(name);
  }

  setCookie(name, value) {
    this.#cookies.set(name, value);
  }

  cookieNames() {
    return [...this.#cookies.keys()];
  }

  cookieHeader() {
    return [...this.#cookies].map(([name, value]) => `${name}=${value}`).join("; ");
  }

  /** The same cookies in another browser: as a copied or kept header. */
  copy(headers = this.#headers) {
    const copy = new Browser(this.#site, headers);
    copy.#cookies = new Map(this.#cookies);
    return copy;
  }
}

/**
 * A request with exactly these headers, cookies and origin not added: for what no script may say about itself
 * (`Sec-Fetch-*`), and for programs that are no browsers.
 */
export function bare(site, method, path, { headers = {}, body } = {}) {
  const url = new URL(`${BASE_PATH}${path}`, site.url);
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers, agent: false }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        note(method, url, response.statusCode, text);
        const json = () => JSON.parse(text);
        resolve({ status: response.statusCode, headers: response.headers, text, json });
      });
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

function parseCookie(line) {
  const [pair, ...rest] = line.split(";").map((part) => part.trim());
  const [name, value] = cut(pair, "=");
  const attributes = Object.fromEntries(
    rest.map((part) => cut(part, "=")).map(([key, v]) => [key.toLowerCase(), v ?? true]),
  );
  return { name, value, attributes };
}

function cut(text, separator) {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + separator.length)];
}
