// The providers of a scenario: those of `tests/clients/providers`, and what both targets are told of them.

import { createPrivateKey, sign } from "node:crypto";

import { startProviders } from "../../providers/start.mjs";

/** What each kind speaks. Google is the certified provider, which a target takes for Google. */
const SPEAKS = { oidc: "oidc", google: "oidc", github: "github", apple: "apple" };

let running;

/**
 * Starts what `scenarios.mjs` has under `providers`. `register` enters a site there, and gives what it must know, as JSON;
 * `byName` has the providers themselves.
 */
export async function providersOf(wanted = {}) {
  const entries = Object.entries(wanted);
  if (entries.length > 0) running ??= startProviders();
  const byName = new Map();
  for (const [name, { kind, options }] of entries) {
    byName.set(name, await (await running).provider({ kind: SPEAKS[kind], ...options }));
  }
  return {
    byName,
    register: (url) =>
      Promise.all(
        entries.map(async ([name, { kind, signUp = "allowed" }]) => {
          const provider = byName.get(name);
          const client = await provider.register({ redirect_uris: [`${url}/api/auth/callback/${name}`] });
          return { name, kind, signUp, url: provider.url, issuer: provider.issuer, client };
        }),
      ),
  };
}

export async function stopProviders() {
  await (await running)?.stop();
}

/** Keys of `gateway.toml`. */
export function gatewayKeys({ name, kind, signUp, url, client }) {
  const { client_id, client_secret, team_id, key_id, private_key } = client;
  const secret = { client_secret };
  const own = {
    oidc: { ...secret, issuer: url },
    google: {
      ...secret,
      issuer: url,
      authorization_endpoint: `${url}/auth`,
      token_endpoint: `${url}/token`,
      userinfo_endpoint: `${url}/me`,
      jwks_uri: `${url}/jwks`,
    },
    github: { ...secret, base_url: url },
    apple: {
      team_id,
      key_id,
      private_key,
      authorization_endpoint: `${url}/auth/authorize`,
      token_endpoint: `${url}/auth/token`,
      jwks_uri: `${url}/auth/keys`,
    },
  }[kind];
  const keys = { kind, client_id, sign_up: signUp, ...own };
  return Object.fromEntries(Object.entries(keys).map(([key, value]) => [`auth.oauth.${name}.${key}`, value]));
}

/** As Apple's developers make it: the original takes it ready-made. */
export function appleClientSecret({ client_id, team_id, key_id, private_key }, issuer) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: team_id, sub: client_id, aud: issuer, iat: now, exp: now + 3600 };
  const signed = `${part({ alg: "ES256", kid: key_id })}.${part(claims)}`;
  const key = { key: createPrivateKey(private_key), dsaEncoding: "ieee-p1363" };
  return `${signed}.${sign("sha256", Buffer.from(signed), key).toString("base64url")}`;
}
