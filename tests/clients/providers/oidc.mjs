// A provider of OpenID Connect: the certified `oidc-provider`, with people who sign in and agree by forms.
//
// Options, all changeable while it runs:
//   access_token_seconds  3600   how long access tokens last
//   claims_in_id_token    true   what scopes ask for is in the id_token too, as at Google
//   pkce                  true   no code without S256
//   refresh_tokens        "always", "offline_access" (only with that scope, and consent asked for), or "never"
//   rotation              true   a refresh token works once

import { Provider as OidcProvider } from "oidc-provider";

import { altered, sendAnswer } from "./faults.mjs";
import { listen, readForm, readText } from "./http.mjs";
import { rsaKey } from "./keys.mjs";
import { consentPage, loginPage } from "./pages.mjs";
import { Provider, random } from "./provider.mjs";

const DEFAULTS = {
  access_token_seconds: 3600,
  claims_in_id_token: true,
  pkce: true,
  refresh_tokens: "always",
  rotation: true,
};

const PLACES = {
  "/.well-known/openid-configuration": "discovery",
  "/jwks": "jwks",
  "/auth": "authorize",
  "/token": "token",
  "/me": "userinfo",
};

export class Oidc extends Provider {
  /** What oidc-provider stores: it lives on when that is made anew. */
  #stored = new Map();
  #cookieKey = random(32);
  #answer;

  static async start(options) {
    const provider = new Oidc({ ...DEFAULTS, ...options });
    const { url } = await listen((request, response) => provider.#answer(request, response));
    provider.url = url;
    provider.issuer = url;
    await provider.rotate({});
    return provider;
  }

  about() {
    return { url: this.url, issuer: this.issuer };
  }

  change(options) {
    super.change(options);
    this.#make();
  }

  async rotate({ keep = false }) {
    this.keys = [await rsaKey(), ...(keep ? this.keys : [])];
    this.#make();
  }

  #make() {
    const { options } = this;
    const oidc = new OidcProvider(this.issuer, {
      adapter: (model) => new Adapter(model, this.#stored, this.clients),
      jwks: { keys: this.keys.map(({ privateJwk }) => privateJwk) },
      cookies: { keys: [this.#cookieKey] },
      claims: {
        email: ["email", "email_verified"],
        profile: ["name", "picture", "given_name", "family_name", "locale"],
      },
      conformIdTokenClaims: !options.claims_in_id_token,
      findAccount: (_, sub) =>
        this.accounts.has(sub) ? { accountId: sub, claims: () => this.claimsOf(sub) } : undefined,
      features: { devInteractions: { enabled: false } },
      interactions: { url: (_, { uid }) => `/interaction/${uid}` },
      pkce: { required: () => options.pkce },
      issueRefreshToken: (_, client, { scopes }) =>
        options.refresh_tokens === "always" ||
        (options.refresh_tokens === "offline_access" && scopes.has("offline_access")),
      expiresWithSession: () => false,
      rotateRefreshToken: () => options.rotation,
      ttl: { AccessToken: () => options.access_token_seconds },
      renderError: (ctx, out) => {
        ctx.type = "text";
        ctx.body = `${out.error}: ${out.error_description}`;
      },
    });
    oidc.use((ctx, next) => this.#around(ctx, next));
    oidc.use((ctx, next) => this.#interact(ctx, next, oidc));
    this.#answer = oidc.callback();
  }

  /** Remembers the request, and has its fault, if there is one, done. */
  async #around(ctx, next) {
    // An authorisation that was interrupted by forms goes on below the same path.
    const isResumed = ctx.path.startsWith("/auth/");
    const place = isResumed ? "callback" : PLACES[ctx.path];
    if (!place) return next();
    const entry = isResumed ? undefined : this.note(place, ctx.req);
    const fault = isResumed ? {} : await this.faults.meet(place);
    if (fault.answer) {
      entry.form = Object.fromEntries(new URLSearchParams(await readText(ctx.req)));
      ctx.respond = false;
      return sendAnswer(ctx.res, fault.answer);
    }
    await next();
    if (entry) entry.form = ctx.oidc?.body ?? {};
    if (place === "token" && ctx.status === 200) {
      ctx.body = await this.alteredTokens(ctx.body, fault, this.clients.get(ctx.oidc.client.clientId));
    } else if (ctx.body?.constructor === Object) {
      ctx.body = altered(ctx.body, fault);
    } else {
      await this.#alterCallback(ctx);
    }
  }

  async #alterCallback(ctx) {
    const location = ctx.response.get("location");
    const leadsBack = [...this.clients.values()].some(({ redirect_uris }) =>
      redirect_uris.some((uri) => location.startsWith(`${uri}?`)),
    );
    if (!leadsBack) return;
    const url = new URL(location);
    url.search = new URLSearchParams(altered(Object.fromEntries(url.searchParams), await this.faults.meet("callback")));
    ctx.set("location", url.href);
  }

  /** The forms. */
  async #interact(ctx, next, oidc) {
    const [, what, , step] = ctx.path.split("/");
    if (what !== "interaction") return next();
    const { uid, prompt, params, session } = await oidc.interactionDetails(ctx.req, ctx.res);
    ctx.type = "html";
    if (ctx.method === "GET") {
      ctx.body =
        prompt.name === "login"
          ? loginPage({ action: `/interaction/${uid}/login`, hint: params.login_hint })
          : consentPage({ action: `/interaction/${uid}/consent`, client: params.client_id, scopes: params.scope });
      return;
    }
    const form = await readForm(ctx.req);
    const finish = async (result) => {
      const location = await oidc.interactionResult(ctx.req, ctx.res, result);
      ctx.status = 303;
      ctx.set("location", location);
      ctx.body = "";
    };
    if (step === "login") {
      const account = this.signedIn(form.login, form.password);
      if (account) return finish({ login: { accountId: account.sub } });
      ctx.status = 401;
      ctx.body = loginPage({ action: ctx.path, hint: form.login, error: "Nobody has this name and password." });
      return;
    }
    if (form.decision !== "allow") {
      return finish({ error: "access_denied", error_description: "The resource owner denied the request" });
    }
    const grant = new oidc.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    return finish({ consent: { grantId: await grant.save() } });
  }
}

/** In memory, for one provider; clients are those that the test registered. */
class Adapter {
  #model;
  #stored;
  #clients;

  constructor(model, stored, clients) {
    this.#model = model;
    this.#stored = stored;
    this.#clients = clients;
  }

  #key(id) {
    return `${this.#model}:${id}`;
  }

  async find(id) {
    return this.#model === "Client" ? this.#clients.get(id) : this.#stored.get(this.#key(id));
  }

  async findByUid(uid) {
    return this.#all().find((payload) => payload.uid === uid);
  }

  async upsert(id, payload) {
    this.#stored.set(this.#key(id), payload);
  }

  async consume(id) {
    this.#stored.get(this.#key(id)).consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    this.#stored.delete(this.#key(id));
  }

  async revokeByGrantId(grantId) {
    for (const [key, payload] of this.#stored) if (payload.grantId === grantId) this.#stored.delete(key);
  }

  #all() {
    const ours = [...this.#stored].filter(([key]) => key.startsWith(`${this.#model}:`));
    return ours.map(([, payload]) => payload);
  }
}
