// What every provider has, whatever its language: clients, people, faults, and a memory of what it was asked.

import { randomBytes } from "node:crypto";

import { Faults, altered, idToken } from "./faults.mjs";
import { sign } from "./keys.mjs";

export const random = (bytes = 16) => randomBytes(bytes).toString("base64url");

export const nowSeconds = () => Math.floor(Date.now() / 1000);

/** Whoever has no other. */
const PASSWORD = "password";

export class Provider {
  clients = new Map();
  accounts = new Map();
  faults = new Faults();
  /** [{place, method, path, query, form, headers}] */
  requests = [];
  /** The newest first; only the newest signs. */
  keys = [];

  constructor(options) {
    this.options = options;
  }

  /** What whoever ordered it must know. */
  about() {
    return { url: this.url };
  }

  /** Field names are those of RFC 7591. */
  register(client) {
    const auth = client.token_endpoint_auth_method ?? "client_secret_post";
    const registered = {
      client_id: `client-${random(9)}`,
      ...(auth !== "none" && { client_secret: random(32) }),
      token_endpoint_auth_method: auth,
      grant_types: ["authorization_code", "refresh_token"],
      ...client,
    };
    this.clients.set(registered.client_id, registered);
    return registered;
  }

  admit(account) {
    this.accounts.set(account.sub, account);
  }

  change(options) {
    Object.assign(this.options, options);
  }

  fault(faults) {
    this.faults.set(faults);
  }

  /** Who this is, or `undefined`. People sign in by subject or by address. */
  signedIn(login, password) {
    const account =
      this.accounts.get(login) ??
      [...this.accounts.values()].find(({ email }) => email === login && email !== undefined);
    return account && password === (account.password ?? PASSWORD) ? account : undefined;
  }

  /** What is said of somebody; the password is not. */
  claimsOf(sub) {
    const { password: _, ...claims } = this.accounts.get(sub);
    return claims;
  }

  /** Keeps what a request says; its form is added when it has been read. */
  note(place, request) {
    const url = new URL(request.url, this.url);
    const { accept, authorization, "content-type": type, "user-agent": agent } = request.headers;
    const entry = {
      place,
      method: request.method,
      path: url.pathname,
      query: Object.fromEntries(url.searchParams),
      form: {},
      headers: { accept, authorization, "content-type": type, "user-agent": agent },
    };
    this.requests.push(entry);
    return entry;
  }

  /** An id_token that an app got by itself. */
  async idTokenFor({ client_id, sub, nonce, ...alteration }) {
    const client = this.clients.get(client_id);
    const token = sign(this.idTokenClaims({ client, sub, nonce }), this.keys[0]);
    return { id_token: await this.alteredIdToken(token, alteration, client) };
  }

  idTokenClaims({ client, sub, nonce }) {
    const now = nowSeconds();
    return { iss: this.issuer, aud: client.client_id, iat: now, exp: now + 3600, nonce, ...this.claimsOf(sub) };
  }

  alteredIdToken(token, alteration, client) {
    return idToken(token, alteration, { key: this.keys[0], secret: client.client_secret });
  }

  /** A token endpoint's answer as a fault leaves it. */
  async alteredTokens(tokens, fault, client) {
    const result = altered(tokens, fault);
    if (fault.id_token && tokens.id_token) {
      result.id_token = await this.alteredIdToken(tokens.id_token, fault.id_token, client);
    }
    return result;
  }
}
