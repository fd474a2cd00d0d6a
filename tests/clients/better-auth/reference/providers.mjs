// Providers in better-auth's words.

import { genericOAuth } from "better-auth/plugins/generic-oauth";

import { appleClientSecret } from "../harness/providers.mjs";

/** Where the original asks these kinds, which can't be configured, and where that is instead. */
const ELSEWHERE = {
  google: (url) => ({
    "https://oauth2.googleapis.com/token": `${url}/token`,
    "https://www.googleapis.com/oauth2/v3/certs": `${url}/jwks`,
  }),
  github: (url) => ({ "https://github.com/": `${url}/`, "https://api.github.com/": `${url}/` }),
  apple: (url) => ({ "https://appleid.apple.com/": `${url}/` }),
  oidc: () => ({}),
};

const AUTHORIZE = { google: "/auth", github: "/login/oauth/authorize", apple: "/auth/authorize" };

/** Options for better-auth, and its plugin for providers that it does not know by name. */
export function providerOptions(providers) {
  const socialProviders = {};
  const config = [];
  for (const { name, kind, signUp, url, issuer, client } of providers) {
    const common = {
      clientId: client.client_id,
      clientSecret: kind === "apple" ? appleClientSecret(client, issuer) : client.client_secret,
      disableSignUp: signUp === "off",
      disableImplicitSignUp: signUp === "on-request",
      // As the gateway does wherever addresses must be verified.
      requireEmailVerification: true,
    };
    if (kind === "oidc") {
      const discoveryUrl = `${url}/.well-known/openid-configuration`;
      config.push({ providerId: name, discoveryUrl, scopes: ["openid", "email", "profile"], ...common });
    } else {
      socialProviders[name] = { ...common, authorizationEndpoint: `${url}${AUTHORIZE[kind]}` };
    }
  }
  return { socialProviders, plugins: config.length > 0 ? [genericOAuth({ config })] : [] };
}

/** From now on this process finds the providers where they are. */
export function redirectFetch(providers) {
  const elsewhere = Object.assign({}, ...providers.map(({ kind, url }) => ELSEWHERE[kind](url)));
  const original = globalThis.fetch;
  globalThis.fetch = (input, init) => {
    const url = String(input?.url ?? input);
    const prefix = Object.keys(elsewhere).find((prefix) => url.startsWith(prefix));
    return prefix ? original(`${elsewhere[prefix]}${url.slice(prefix.length)}`, init) : original(input, init);
  };
}
