// The providers themselves, by a client of the tests' own: what the gateway's tests rely on is so.

import assert from "node:assert/strict";
import { createHash, createPublicKey, createPrivateKey, createHmac, randomBytes, sign, verify } from "node:crypto";
import { after, before, describe, test } from "node:test";

import { ProviderBrowser } from "./browser.mjs";
import { startProviders } from "./start.mjs";

const CALLBACK = "http://app.example.test/callback";

let providers;
before(async () => {
  providers = await startProviders();
});
after(() => providers.stop());

const random = () => randomBytes(32).toString("base64url");
const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const claimsOf = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
const headerOf = (token) => JSON.parse(Buffer.from(token.split(".")[0], "base64url"));

/** A client of a provider, as the gateway is one. */
class App {
  constructor(provider, client, endpoints, params = {}) {
    Object.assign(this, { provider, client, endpoints, params });
    this.verifier = random();
    this.nonce = random();
    this.state = random();
  }

  authorizationUrl(more = {}) {
    const url = new URL(this.endpoints.authorization_endpoint);
    const params = {
      client_id: this.client.client_id,
      redirect_uri: CALLBACK,
      response_type: "code",
      scope: "openid email profile",
      state: this.state,
      nonce: this.nonce,
      code_challenge: createHash("sha256").update(this.verifier).digest("base64url"),
      code_challenge_method: "S256",
      ...this.params,
      ...more,
    };
    for (const [name, value] of Object.entries(params)) if (value !== undefined) url.searchParams.set(name, value);
    return url.href;
  }

  /** Through the forms; what comes back to the app. */
  async back({ browser = new ProviderBrowser(), login = "ada", decision, more } = {}) {
    const { url, form } = await browser.visit(this.authorizationUrl(more), CALLBACK, { login, decision });
    return form ?? Object.fromEntries(new URL(url).searchParams);
  }

  token(form, headers = {}) {
    const { client_id, client_secret } = this.client;
    const body = new URLSearchParams({ client_id, ...(client_secret && { client_secret }), ...form });
    return fetch(this.endpoints.token_endpoint, { method: "POST", body, headers, redirect: "manual" });
  }

  redeem(code, { headers, ...more } = {}) {
    const form = {
      grant_type: "authorization_code",
      code,
      redirect_uri: CALLBACK,
      code_verifier: this.verifier,
      ...more,
    };
    return this.token(form, headers);
  }

  async tokens(options) {
    const { code } = await this.back(options);
    const response = await this.redeem(code, options);
    assert.equal(response.status, 200, await response.clone().text());
    return response.json();
  }
}

async function isSignedBy(token, jwksUri) {
  const { keys } = await (await fetch(jwksUri)).json();
  const jwk = keys.find(({ kid }) => kid === headerOf(token).kid);
  const [header, payload, signature] = token.split(".");
  const key = jwk && createPublicKey({ key: jwk, format: "jwk" });
  return (
    Boolean(key) && verify("sha256", Buffer.from(`${header}.${payload}`), key, Buffer.from(signature, "base64url"))
  );
}

describe("oidc", { concurrency: 4 }, () => {
  async function app(options, client) {
    const provider = await providers.provider({ kind: "oidc", ...options });
    await provider.admit({
      sub: "ada",
      email: "ada@example.test",
      email_verified: true,
      name: "Ada",
      picture: "https://x.test/a.png",
    });
    const registered = await provider.register({ redirect_uris: [CALLBACK], ...client });
    const endpoints = await (await fetch(`${provider.issuer}/.well-known/openid-configuration`)).json();
    return new App(provider, registered, endpoints);
  }

  test("somebody signs in by forms and the code is worth tokens", async () => {
    const one = await app();
    const back = await one.back();
    assert.equal(back.state, one.state);
    assert.equal(back.iss, one.provider.issuer);
    assert.equal(one.endpoints.authorization_response_iss_parameter_supported, true);
    const tokens = await (await one.redeem(back.code)).json();
    const { sub, email, email_verified, name, nonce, aud, iss } = claimsOf(tokens.id_token);
    assert.deepEqual(
      { sub, email, email_verified, name, nonce, aud, iss },
      {
        sub: "ada",
        email: "ada@example.test",
        email_verified: true,
        name: "Ada",
        nonce: one.nonce,
        aud: one.client.client_id,
        iss: one.provider.issuer,
      },
    );
    assert.ok(await isSignedBy(tokens.id_token, one.endpoints.jwks_uri));
    const info = await fetch(one.endpoints.userinfo_endpoint, {
      headers: { authorization: `Bearer ${tokens.access_token}` },
    });
    assert.equal((await info.json()).email, "ada@example.test");
  });

  test("claims may be at userinfo alone", async () => {
    const one = await app({ claims_in_id_token: false });
    assert.equal(claimsOf((await one.tokens()).id_token).email, undefined);
  });

  test("a password is needed", async () => {
    const one = await app();
    const wrong = new ProviderBrowser().visit(one.authorizationUrl(), CALLBACK, { login: "ada", password: "wrong" });
    await assert.rejects(wrong, /401/);
  });

  test("a second time in the same browser no form is shown, and others are asked", async () => {
    const [one, browser] = [await app(), new ProviderBrowser()];
    await one.back({ browser });
    assert.ok((await one.back({ browser, login: "nobody" })).code);
    await assert.rejects(one.back({ login: "nobody" }), /401/);
  });

  test("who denies comes back with an error", async () => {
    const one = await app();
    const { error, error_description, state, iss } = await one.back({ decision: "deny" });
    assert.deepEqual([error, state, iss], ["access_denied", one.state, one.provider.issuer]);
    assert.ok(error_description);
  });

  test("PKCE is demanded, S256 alone, and checked", async () => {
    const one = await app();
    const without = await one.back({ more: { code_challenge: undefined, code_challenge_method: undefined } });
    assert.equal(without.error, "invalid_request");
    const plain = await one.back({ more: { code_challenge: one.verifier, code_challenge_method: "plain" } });
    assert.equal(plain.error, "invalid_request");
    const { code } = await one.back();
    assert.equal((await one.redeem(code, { code_verifier: random() })).status, 400);
  });

  test("a code works once", async () => {
    const one = await app();
    const { code } = await one.back();
    assert.equal((await one.redeem(code)).status, 200);
    assert.equal((await (await one.redeem(code)).json()).error, "invalid_grant");
  });

  test("refresh tokens rotate, and an old one ends the grant", async () => {
    const one = await app();
    const first = await one.tokens();
    const refresh = (token) => one.token({ grant_type: "refresh_token", refresh_token: token });
    const second = await (await refresh(first.refresh_token)).json();
    assert.notEqual(second.refresh_token, first.refresh_token);
    assert.equal((await refresh(first.refresh_token)).status, 400);
    assert.equal((await refresh(second.refresh_token)).status, 400);
  });

  test("access tokens may be short, refresh tokens only for offline_access", async () => {
    const one = await app({ access_token_seconds: 7, refresh_tokens: "offline_access" });
    const tokens = await one.tokens();
    assert.deepEqual([tokens.expires_in, tokens.refresh_token], [7, undefined]);
    const offline = await one.tokens({ more: { scope: "openid offline_access", prompt: "consent" } });
    assert.ok(offline.refresh_token);
    await one.provider.change({ access_token_seconds: 9 });
    assert.equal((await one.tokens()).expires_in, 9);
  });

  test("a client may show itself by the header", async () => {
    const one = await app({}, { token_endpoint_auth_method: "client_secret_basic" });
    const { client_id, client_secret } = one.client;
    const { code } = await one.back();
    one.client = { client_id };
    const authorization = `Basic ${Buffer.from(`${client_id}:${client_secret}`).toString("base64")}`;
    assert.equal((await one.redeem(code, { headers: { authorization } })).status, 200);
  });

  test("its keys rotate while it runs", async () => {
    const one = await app();
    const before = await one.tokens();
    await one.provider.rotate({});
    const later = await one.tokens();
    assert.notEqual(headerOf(later.id_token).kid, headerOf(before.id_token).kid);
    assert.ok(await isSignedBy(later.id_token, one.endpoints.jwks_uri));
    assert.ok(!(await isSignedBy(before.id_token, one.endpoints.jwks_uri)));
    await one.provider.rotate({ keep: true });
    assert.ok(await isSignedBy(later.id_token, one.endpoints.jwks_uri));
  });

  test("requests are remembered", async () => {
    const one = await app();
    const { code } = await one.back();
    await one.redeem(code);
    const [authorize] = await one.provider.requests("authorize");
    assert.equal(authorize.query.code_challenge_method, "S256");
    const [token] = await one.provider.requests("token");
    assert.deepEqual([token.form.code_verifier, token.form.code], [one.verifier, code]);
  });

  test("any answer may be another one, so many times", async () => {
    const one = await app();
    for (const [answer, times] of [
      [{ status: 500 }, 1],
      [{ status: 429, headers: { "retry-after": "7" } }, 1],
      [{ status: 200, body: "<html>" }, 1],
      [{ status: 200, filler: 1 << 20 }, 1],
      [{ status: 302, headers: { location: "http://127.0.0.1:1/" } }, 2],
    ]) {
      await one.provider.fault({ token: { answer, times } });
      for (let n = 0; n < times; n += 1) {
        const response = await one.redeem("unknown");
        assert.equal(response.status, answer.status);
        assert.equal((await response.text()).length, (answer.body?.length ?? 0) + (answer.filler ?? 0));
      }
    }
    assert.equal((await one.redeem("unknown")).status, 400, "well again");
    assert.equal((await one.provider.requests("token")).at(0).form.code, "unknown");
    for (const place of ["discovery", "jwks", "userinfo"]) {
      await one.provider.fault({ [place]: { answer: { status: 500 } } });
    }
    for (const url of [
      `${one.provider.issuer}/.well-known/openid-configuration`,
      one.endpoints.jwks_uri,
      one.endpoints.userinfo_endpoint,
    ]) {
      assert.equal((await fetch(url)).status, 500);
    }
  });

  test("an answer may hang until the fault is lifted", async () => {
    const one = await app();
    const { code } = await one.back();
    await one.provider.fault({ token: { hang: true } });
    const answer = one.redeem(code);
    while ((await one.provider.requests("token")).length === 0);
    assert.equal(await Promise.race([answer, one.provider.requests()]).then((first) => first.status), undefined);
    await one.provider.fault({ token: null });
    assert.equal((await answer).status, 200);
  });

  test("answers' fields may be others", async () => {
    const one = await app();
    await one.provider.fault({
      token: { set: { token_type: "mac" }, remove: ["refresh_token"] },
      userinfo: { set: { sub: "eve" } },
      discovery: { set: { issuer: "https://other.test" } },
      callback: { set: { iss: "https://other.test" } },
    });
    assert.equal((await one.back()).iss, "https://other.test");
    const { token_type, refresh_token, access_token } = await one.tokens();
    assert.deepEqual([token_type, refresh_token], ["mac", undefined]);
    const headers = { authorization: `Bearer ${access_token}` };
    assert.equal((await (await fetch(one.endpoints.userinfo_endpoint, { headers })).json()).sub, "eve");
    await one.provider.fault({ callback: { remove: ["iss"] } });
    assert.equal((await one.back()).iss, undefined);
  });

  test("id_tokens may be wrong in every way", async () => {
    const one = await app();
    const altered = async (id_token) => {
      await one.provider.fault({ token: { id_token } });
      return (await one.tokens()).id_token;
    };
    const now = Math.floor(Date.now() / 1000);
    const is = (token) => isSignedBy(token, one.endpoints.jwks_uri);

    const changed = await altered({ set: { nonce: "another", aud: "x" }, remove: ["email"] });
    assert.deepEqual(
      [claimsOf(changed).nonce, claimsOf(changed).email, await is(changed)],
      ["another", undefined, true],
    );

    const late = claimsOf(await altered({ shift: -600 }));
    assert.ok(Math.abs(late.iat - now + 600) < 30);
    const lasted = await altered({ shift: 600, set: { exp: 1 } });
    assert.equal(claimsOf(lasted).exp, 1);

    const none = await altered({ sign: "none" });
    assert.deepEqual([headerOf(none).alg, none.split(".")[2]], ["none", ""]);

    const mac = (token, secret) =>
      createHmac("sha256", secret).update(token.split(".").slice(0, 2).join(".")).digest("base64url");
    const bySecret = await altered({ sign: "hs256-secret" });
    assert.equal(bySecret.split(".")[2], mac(bySecret, one.client.client_secret));

    const byPublic = await altered({ sign: "hs256-public" });
    const { keys } = await (await fetch(one.endpoints.jwks_uri)).json();
    const pem = createPublicKey({ key: keys[0], format: "jwk" }).export({ type: "spki", format: "pem" });
    assert.equal(byPublic.split(".")[2], mac(byPublic, pem));

    const unknown = await altered({ sign: "unknown-key" });
    assert.deepEqual([keys.some(({ kid }) => kid === headerOf(unknown).kid), await is(unknown)], [false, false]);
    const stolen = await altered({ sign: "stolen-kid" });
    assert.deepEqual([headerOf(stolen).kid, await is(stolen)], [keys[0].kid, false]);
    assert.equal(headerOf(await altered({ sign: "no-kid" })).kid, undefined);
    assert.equal(await is(await altered({ sign: "broken" })), false);
  });

  test("an app may get an id_token by itself", async () => {
    const one = await app();
    const { id_token } = await one.provider.idToken({ client_id: one.client.client_id, sub: "ada", nonce: "n" });
    assert.ok(await isSignedBy(id_token, one.endpoints.jwks_uri));
    assert.deepEqual([claimsOf(id_token).nonce, claimsOf(id_token).email], ["n", "ada@example.test"]);
  });

  test("people change", async () => {
    const one = await app();
    await one.provider.admit({ sub: "ada", name: "x".repeat(1 << 20) });
    const claims = claimsOf((await one.tokens()).id_token);
    assert.deepEqual([claims.name.length, claims.email], [1 << 20, undefined]);
  });
});

describe("github", { concurrency: 4 }, () => {
  async function app(options) {
    const provider = await providers.provider({ kind: "github", ...options });
    await provider.admit({ sub: "583231", login: "ada", email: "ada@example.test", email_verified: true, name: "Ada" });
    const client = await provider.register({ redirect_uris: [CALLBACK] });
    const endpoints = {
      authorization_endpoint: `${provider.url}/login/oauth/authorize`,
      token_endpoint: `${provider.url}/login/oauth/access_token`,
    };
    return new App(provider, client, endpoints, { scope: "read:user user:email", nonce: undefined });
  }
  const json = { headers: { accept: "application/json" }, login: "583231" };

  test("somebody signs in, and the API says who it is", async () => {
    const one = await app();
    const tokens = await one.tokens(json);
    assert.deepEqual(
      [tokens.scope, tokens.token_type, tokens.expires_in],
      ["read:user,user:email", "bearer", undefined],
    );
    const headers = { authorization: `Bearer ${tokens.access_token}`, "user-agent": "test" };
    for (const base of [one.provider.url, `${one.provider.url}/api/v3`]) {
      const { id, login, email } = await (await fetch(`${base}/user`, { headers })).json();
      assert.deepEqual([id, login, email], [583231, "ada", null]);
      const [{ email: address, primary, verified }] = await (await fetch(`${base}/user/emails`, { headers })).json();
      assert.deepEqual([address, primary, verified], ["ada@example.test", true, true]);
    }
    assert.equal((await fetch(`${one.provider.url}/user`, { headers: { "user-agent": "test" } })).status, 401);
  });

  test("without an Accept the answer is a form, and refusals are 200", async () => {
    const one = await app();
    const { code } = await one.back(json);
    const form = new URLSearchParams(await (await one.redeem(code)).text());
    assert.match(form.get("access_token"), /^gho_/);
    const again = await one.redeem(code, json);
    assert.deepEqual([again.status, (await again.json()).error], [200, "bad_verification_code"]);
  });

  test("PKCE is enforced, or ignored", async () => {
    for (const [pkce, error] of [
      ["enforced", "bad_verification_code"],
      ["ignored", undefined],
    ]) {
      const one = await app({ pkce });
      const { code } = await one.back(json);
      assert.equal((await (await one.redeem(code, { ...json, code_verifier: random() })).json()).error, error);
    }
  });

  test("tokens expire, and refresh tokens rotate", async () => {
    const one = await app({ expiring: true, access_token_seconds: 28_800 });
    const first = await one.tokens(json);
    assert.equal(first.expires_in, 28_800);
    const refresh = () => one.token({ grant_type: "refresh_token", refresh_token: first.refresh_token }, json.headers);
    assert.match((await (await refresh()).json()).refresh_token, /^ghr_/);
    assert.equal((await (await refresh()).json()).error, "bad_refresh_token");
  });

  test("who denies comes back with an error", async () => {
    const { error, code } = await (await app()).back({ ...json, decision: "deny" });
    assert.deepEqual([error, code], ["access_denied", undefined]);
  });
});

describe("apple", { concurrency: 4 }, () => {
  async function app(options) {
    const provider = await providers.provider({ kind: "apple", ...options });
    await provider.admit({
      sub: "ada",
      email: "ada@example.test",
      email_verified: true,
      given_name: "Ada",
      family_name: "Lovelace",
    });
    const client = await provider.register({ redirect_uris: [CALLBACK] });
    const endpoints = {
      authorization_endpoint: `${provider.url}/auth/authorize`,
      token_endpoint: `${provider.url}/auth/token`,
      jwks_uri: `${provider.url}/auth/keys`,
    };
    const params = { scope: "email name", response_mode: "form_post", response_type: "code id_token" };
    const one = new App(provider, client, endpoints, params);
    one.client.client_secret = secret(provider, client);
    return one;
  }

  function secret({ issuer }, { client_id, team_id, key_id, private_key }, more = {}) {
    const now = Math.floor(Date.now() / 1000);
    const claims = { iss: team_id, sub: client_id, aud: issuer, iat: now, exp: now + 300, ...more };
    const signed = `${part({ alg: "ES256", kid: key_id })}.${part(claims)}`;
    const key = { key: createPrivateKey(private_key), dsaEncoding: "ieee-p1363" };
    return `${signed}.${sign("sha256", Buffer.from(signed), key).toString("base64url")}`;
  }

  test("the answer is a posted form, with the name the first time alone", async () => {
    const [one, browser] = [await app(), new ProviderBrowser()];
    const back = await one.back({ browser });
    assert.deepEqual(JSON.parse(back.user), {
      name: { firstName: "Ada", lastName: "Lovelace" },
      email: "ada@example.test",
    });
    assert.ok(await isSignedBy(back.id_token, one.endpoints.jwks_uri));
    const { id_token } = await (await one.redeem(back.code)).json();
    const { email, email_verified, nonce, iss, name } = claimsOf(id_token);
    assert.deepEqual(
      [email, email_verified, nonce, iss, name],
      ["ada@example.test", "true", one.nonce, "https://appleid.apple.com", undefined],
    );
    assert.equal((await one.back({ browser })).user, undefined);
  });

  test("the client secret must be signed by the client, for Apple, and for not too long", async () => {
    const one = await app();
    const { client, provider } = one;
    for (const more of [
      { aud: "x" },
      { iss: "x" },
      { sub: "x" },
      { exp: 1 },
      { exp: Date.now() },
      { iat: undefined },
    ]) {
      client.client_secret = secret(provider, client, more);
      const answer = await one.redeem("code");
      assert.deepEqual([answer.status, (await answer.json()).error], [401, "invalid_client"], JSON.stringify(more));
    }
    client.client_secret = secret(provider, {
      ...client,
      ...(await provider.register({ redirect_uris: [] })),
      client_id: client.client_id,
    });
    assert.equal((await one.redeem("code")).status, 401);
    client.client_secret = secret(provider, client);
    assert.equal((await (await one.redeem("code")).json()).error, "invalid_grant");
  });

  test("scopes need form_post; who cancels comes back with an error", async () => {
    const one = await app();
    await assert.rejects(one.back({ more: { response_mode: "query" } }), /response_mode/);
    assert.equal((await one.back({ decision: "deny" })).error, "user_cancelled_authorize");
  });
});

describe("microsoft", () => {
  test("each tenant has an issuer of its own", async () => {
    const provider = await providers.provider({ kind: "microsoft" });
    const endpoints = await (await fetch(`${provider.url}/common/v2.0/.well-known/openid-configuration`)).json();
    assert.equal(endpoints.issuer, "https://login.microsoftonline.com/{tenantid}/v2.0");
    const client = await provider.register({ redirect_uris: [CALLBACK] });
    await provider.admit({ sub: "ada", tid: "tenant-1", oid: "object-1", email: "ada@example.test", xms_edov: true });
    const one = new App(provider, client, endpoints);
    const { id_token } = await one.tokens();
    const { iss, tid, oid, nonce, xms_edov } = claimsOf(id_token);
    assert.deepEqual(
      [iss, tid, oid, nonce, xms_edov],
      ["https://login.microsoftonline.com/tenant-1/v2.0", "tenant-1", "object-1", one.nonce, true],
    );
    assert.ok(await isSignedBy(id_token, endpoints.jwks_uri));
  });
});
