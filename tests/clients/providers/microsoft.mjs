// Microsoft's identity platform: one set of endpoints for all tenants, and an issuer for each.
//
// People are {"sub", "oid", "tid", "email", "xms_edov", "name", …}. `tid` is the tenant that they belong to; without one they
// are consumers.
//
// Options beside those of `dialects.mjs`:
//   issuer    https://login.microsoftonline.com/{tenantid}/v2.0   `{tenantid}` becomes the person's tenant
//   rotation  true   a refresh token works once

import { Dialect } from "./dialects.mjs";
import { sendJson } from "./http.mjs";
import { rsaKey, sign } from "./keys.mjs";
import { nowSeconds } from "./provider.mjs";

/** The tenant of personal accounts. */
const CONSUMERS = "9188040d-6c67-4c5b-b112-36a304b66dad";

export class Microsoft extends Dialect {
  constructor(options) {
    super({ issuer: "https://login.microsoftonline.com/{tenantid}/v2.0", rotation: true, ...options });
  }

  words = {
    client: ["invalid_client", "AADSTS7000215: Invalid client secret provided."],
    code: ["invalid_grant", "AADSTS70008: The provided authorization code has expired or is not valid."],
    redirectUri: ["invalid_grant", "AADSTS50011: The redirect URI does not match."],
    refreshToken: ["invalid_grant", "AADSTS700082: The refresh token has expired."],
  };

  async rotate({ keep = false }) {
    this.keys = [await rsaKey(), ...(keep ? this.keys : [])];
  }

  route(method, path) {
    const [, tenant, ...rest] = path.split("/");
    if (`${method} ${path}` === "GET /oidc/userinfo") return ["userinfo", this.#userinfo];
    return {
      "GET oauth2/v2.0/authorize": ["authorize", this.authorize],
      "POST oauth2/v2.0/token": ["token", this.token],
      "GET discovery/v2.0/keys": ["jwks", ({ response, fault }) => this.json(response, this.#keySet(), fault)],
      "GET v2.0/.well-known/openid-configuration": [
        "discovery",
        ({ response, fault }) => this.json(response, this.#discovery(tenant), fault),
      ],
    }[`${method} ${rest.join("/")}`];
  }

  tokensFor(grant) {
    const { client, query, sub } = grant;
    const scopes = (query.scope ?? "").split(" ");
    return {
      token_type: "Bearer",
      scope: scopes.filter((scope) => scope !== "offline_access").join(" "),
      expires_in: this.options.access_token_seconds,
      access_token: this.newAccessToken(grant),
      ...(scopes.includes("offline_access") && { refresh_token: this.newRefreshToken(grant) }),
      ...(scopes.includes("openid") && {
        id_token: sign(this.idTokenClaims({ client, sub, nonce: query.nonce }), this.keys[0]),
      }),
    };
  }

  idTokenClaims({ client, sub, nonce }) {
    const now = nowSeconds();
    const { tid = CONSUMERS, oid = sub, ...claims } = this.claimsOf(sub);
    const iss = this.#issuer(tid);
    return { iss, aud: client.client_id, iat: now, nbf: now, exp: now + 3600, nonce, ver: "2.0", tid, oid, ...claims };
  }

  #userinfo({ request, response, fault }) {
    const grant = this.bearer(request);
    if (!grant) return sendJson(response, 401, { error: { code: "InvalidAuthenticationToken" } });
    const { sub, name, email, picture } = this.claimsOf(grant.sub);
    return this.json(response, { sub, name, email, picture }, fault);
  }

  #issuer(tenant) {
    return this.options.issuer.replace("{tenantid}", tenant);
  }

  #keySet() {
    // Microsoft says whose keys they are.
    return { keys: this.keys.map(({ jwk: { alg: _, ...jwk } }) => ({ ...jwk, issuer: this.options.issuer })) };
  }

  #discovery(tenant) {
    const isOne = !["common", "organizations", "consumers"].includes(tenant);
    const base = `${this.url}/${tenant}`;
    return {
      issuer: isOne ? this.#issuer(tenant) : this.options.issuer,
      authorization_endpoint: `${base}/oauth2/v2.0/authorize`,
      token_endpoint: `${base}/oauth2/v2.0/token`,
      jwks_uri: `${base}/discovery/v2.0/keys`,
      userinfo_endpoint: `${this.url}/oidc/userinfo`,
      response_types_supported: ["code", "id_token", "code id_token", "id_token token"],
      response_modes_supported: ["query", "fragment", "form_post"],
      subject_types_supported: ["pairwise"],
      id_token_signing_alg_values_supported: ["RS256"],
      scopes_supported: ["openid", "profile", "email", "offline_access"],
      token_endpoint_auth_methods_supported: ["client_secret_post", "private_key_jwt", "client_secret_basic"],
    };
  }
}
