// Providers that speak dialects of OAuth 2, small ones of our own: what they have in common. `github.mjs`, `apple.mjs` and
// `microsoft.mjs` say what each says otherwise.
//
// Options, all changeable while they run:
//   access_token_seconds  how long access tokens last
//   pkce                  "enforced": a challenge that came must be met; "required": one must come; "ignored"

import { createHash } from "node:crypto";

import { altered, sendAnswer } from "./faults.mjs";
import { cookiesOf, listen, readForm, send, sendJson, withQuery } from "./http.mjs";
import { consentPage, formPost, loginPage, sendPage } from "./pages.mjs";
import { Provider, nowSeconds, random } from "./provider.mjs";

/** Who signed in at the provider in this browser. */
const SESSION_COOKIE = "provider_session";

/** A token endpoint's refusal; each dialect has its own way to say it. */
export class Refusal extends Error {
  constructor(code, description) {
    super(description);
    this.code = code;
  }
}

export class Dialect extends Provider {
  /** By cookie: subjects. */
  #sessions = new Map();
  /** By id: authorisations that wait for somebody to fill in a form. */
  #waiting = new Map();
  #codes = new Map();
  #refreshTokens = new Map();
  #accessTokens = new Map();
  /** "CLIENT SUBJECT": scopes that somebody agreed to. */
  #agreed = new Map();

  static async start(options) {
    const provider = new this({ access_token_seconds: 3600, pkce: "enforced", ...options });
    const { url } = await listen((request, response) => provider.#answer(request, response));
    provider.url = url;
    await provider.rotate({});
    return provider;
  }

  /** Dialects without id_tokens have no keys. */
  async rotate() {}

  async #answer(request, response) {
    const { pathname, searchParams } = new URL(request.url, this.url);
    const [place, handle] = this.route(request.method, pathname) ?? this.#form(request.method, pathname) ?? [];
    if (!handle) return send(response, 404, {});
    const entry = place ? this.note(place, request) : {};
    const fault = place ? await this.faults.meet(place) : {};
    entry.form = request.method === "POST" ? await readForm(request) : {};
    if (fault.answer) return sendAnswer(response, fault.answer);
    const query = Object.fromEntries(searchParams);
    return handle.call(this, { request, response, query, form: entry.form, fault });
  }

  #form(method, path) {
    if (method !== "POST") return undefined;
    return { "/provider/login": [undefined, this.#login], "/provider/consent": [undefined, this.#consent] }[path];
  }

  /** `[place, handler]` of what the dialect answers. */
  route() {
    throw new Error("a dialect has routes");
  }

  // The way there.

  async authorize({ request, response, query }) {
    const client = this.clients.get(query.client_id);
    const problem = client ? this.problemWith(query, client) : "unknown client_id";
    if (problem) return sendPage(response, 400, problem);
    const id = random();
    const sub = this.#sessions.get(cookiesOf(request)[SESSION_COOKIE]);
    this.#waiting.set(id, { client, query, sub });
    if (!sub) return sendPage(response, 200, this.#loginPage(id));
    return this.#askOrFinish(id, response);
  }

  /** What is wrong with an authorisation request, so that nobody is sent back. */
  problemWith({ redirect_uri, code_challenge, code_challenge_method }, client) {
    if (!client.redirect_uris.includes(redirect_uri)) return "redirect_uri is not registered";
    if (this.options.pkce === "required" && !code_challenge) return "code_challenge is missing";
    if (this.options.pkce !== "ignored" && code_challenge && code_challenge_method !== "S256")
      return "code_challenge_method must be S256";
    return undefined;
  }

  #loginPage(id, more) {
    const { query } = this.#waiting.get(id);
    const hint = query.login_hint ?? query.login;
    return loginPage({ action: "/provider/login", fields: { waiting: id }, hint, ...more });
  }

  async #login({ response, form }) {
    const account = this.signedIn(form.login, form.password);
    if (!account) {
      return sendPage(response, 401, this.#loginPage(form.waiting, { error: "Nobody has this name and password." }));
    }
    this.#waiting.get(form.waiting).sub = account.sub;
    const session = random();
    this.#sessions.set(session, account.sub);
    return this.#askOrFinish(form.waiting, response, {
      "set-cookie": `${SESSION_COOKIE}=${session}; path=/; httponly`,
    });
  }

  #askOrFinish(id, response, headers = {}) {
    const { client, query, sub } = this.#waiting.get(id);
    const scopes = query.scope ?? "";
    if (this.#agreed.get(`${client.client_id} ${sub}`) === scopes) return this.#finish(id, response, { headers });
    const html = consentPage({
      action: "/provider/consent",
      fields: { waiting: id },
      client: client.client_id,
      scopes,
    });
    return sendPage(response, 200, html, headers);
  }

  async #consent({ response, form }) {
    const { client, query, sub } = this.#waiting.get(form.waiting);
    if (form.decision !== "allow") {
      this.#waiting.delete(form.waiting);
      return this.#back(response, query, this.denied());
    }
    const isFirst = !this.#agreed.has(`${client.client_id} ${sub}`);
    this.#agreed.set(`${client.client_id} ${sub}`, query.scope ?? "");
    return this.#finish(form.waiting, response, { isFirst });
  }

  #finish(id, response, { headers, isFirst = false }) {
    const { client, query, sub } = this.#waiting.get(id);
    this.#waiting.delete(id);
    const code = random();
    this.#codes.set(code, { client, query, sub });
    return this.#back(response, query, { code, ...this.alongWithCode({ client, query, sub, isFirst }) }, headers);
  }

  /** Sent back beside the code. */
  alongWithCode() {
    return {};
  }

  denied() {
    return { error: "access_denied", error_description: "The user has denied your application access." };
  }

  async #back(response, { redirect_uri, response_mode, state }, params, headers = {}) {
    const fields = altered({ ...params, ...(state !== undefined && { state }) }, await this.faults.meet("callback"));
    if (response_mode === "form_post") return sendPage(response, 200, formPost(redirect_uri, fields), headers);
    return send(response, 302, { ...headers, location: withQuery(redirect_uri, fields) });
  }

  // The token endpoint.

  async token({ request, response, form, fault }) {
    try {
      const client = this.clientOf(request, form);
      const tokens = await this.#granted(client, form);
      return this.sendTokens(request, response, await this.alteredTokens(tokens, fault, client));
    } catch (refusal) {
      if (!(refusal instanceof Refusal)) throw refusal;
      return this.sendRefusal(request, response, refusal);
    }
  }

  /** The client that asks, if it shows who it is. */
  clientOf(request, form) {
    const [, basic] = request.headers.authorization?.match(/^Basic (.+)$/) ?? [];
    const [id, secret] = basic
      ? Buffer.from(basic, "base64").toString().split(":").map(decodeURIComponent)
      : [form.client_id, form.client_secret];
    const client = this.clients.get(id);
    if (!client || client.client_secret !== secret) throw new Refusal(...this.words.client);
    return client;
  }

  async #granted(client, form) {
    switch (form.grant_type ?? "authorization_code") {
      case "authorization_code":
        return this.#redeemed(client, form);
      case "refresh_token": {
        const grant = this.#refreshTokens.get(form.refresh_token);
        if (grant?.client !== client) throw new Refusal(...this.words.refreshToken);
        if (this.options.rotation) this.#refreshTokens.delete(form.refresh_token);
        return this.tokensFor(grant, { isRefresh: true });
      }
      default:
        throw new Refusal("unsupported_grant_type", "The grant type is not supported.");
    }
  }

  #redeemed(client, { code, redirect_uri, code_verifier }) {
    const grant = this.#codes.get(code);
    this.#codes.delete(code);
    if (grant?.client !== client) throw new Refusal(...this.words.code);
    if (redirect_uri !== grant.query.redirect_uri) throw new Refusal(...this.words.redirectUri);
    if (this.options.pkce !== "ignored" && !isMet(grant.query.code_challenge, code_verifier))
      throw new Refusal(...this.words.code);
    return this.tokensFor(grant, { isRefresh: false });
  }

  /** What a grant is worth. */
  tokensFor() {
    throw new Error("a dialect gives tokens");
  }

  newAccessToken(grant, prefix = "") {
    const token = `${prefix}${random(27)}`;
    this.#accessTokens.set(token, { ...grant, until: nowSeconds() + this.options.access_token_seconds });
    return token;
  }

  newRefreshToken(grant, prefix = "") {
    const token = `${prefix}${random(27)}`;
    this.#refreshTokens.set(token, grant);
    return token;
  }

  sendTokens(_, response, tokens) {
    sendJson(response, 200, tokens);
  }

  sendRefusal(_, response, { code, message }) {
    sendJson(response, code === "invalid_client" ? 401 : 400, { error: code, error_description: message });
  }

  // What an access token opens.

  /** The grant behind a request's access token. */
  bearer({ headers: { authorization = "" } }) {
    const grant = this.#accessTokens.get(authorization.replace(/^(Bearer|token) /i, ""));
    return grant && grant.until > nowSeconds() ? grant : undefined;
  }

  json(response, value, fault) {
    sendJson(response, 200, Array.isArray(value) ? value : altered(value, fault));
  }
}

function isMet(challenge, verifier) {
  if (!challenge) return !verifier;
  return (
    createHash("sha256")
      .update(verifier ?? "")
      .digest("base64url") === challenge
  );
}
