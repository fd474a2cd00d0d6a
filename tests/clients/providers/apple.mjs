// Sign in with Apple: the answer comes as a posted form, with the name at the first time only; the client secret is a token
// that the client signs with its own key.
//
// A client is registered with `team_id` and `key_id` made up, and the private key as Apple gives it out: `private_key`.
//
// Options beside those of `dialects.mjs`:
//   issuer                  https://appleid.apple.com
//   email_verified_as_text  true   `email_verified` is "true" rather than true, as it long was

import { randomBytes } from "node:crypto";

import { Dialect, Refusal } from "./dialects.mjs";
import { ecKey, rsaKey, sign, verifyEs256 } from "./keys.mjs";
import { nowSeconds } from "./provider.mjs";

const HALF_A_YEAR_S = 15_777_000;
const DAY_S = 24 * 60 * 60;

/** As Apple makes them: ten digits and capitals. */
const id = () => randomBytes(5).toString("hex").toUpperCase();

export class Apple extends Dialect {
  #publicKeys = new Map();

  constructor(options) {
    super({ issuer: "https://appleid.apple.com", email_verified_as_text: true, ...options });
  }

  get issuer() {
    return this.options.issuer;
  }

  words = {
    client: ["invalid_client", "The client secret is not one of this client's."],
    code: ["invalid_grant", "The code has expired or has been revoked."],
    redirectUri: ["invalid_grant", "The redirect_uri does not match."],
    refreshToken: ["invalid_grant", "The refresh token is not valid."],
  };

  about() {
    return { url: this.url, issuer: this.issuer };
  }

  async rotate({ keep = false }) {
    this.keys = [await rsaKey(), ...(keep ? this.keys : [])];
  }

  async register(client) {
    const { privatePem, publicKey } = await ecKey();
    const ids = { team_id: id(), key_id: id(), private_key: privatePem };
    const registered = super.register({ ...ids, ...client, token_endpoint_auth_method: "none" });
    this.#publicKeys.set(registered.client_id, publicKey);
    return registered;
  }

  route(method, path) {
    return {
      "GET /auth/authorize": ["authorize", this.authorize],
      "POST /auth/token": ["token", this.token],
      "GET /auth/keys": ["jwks", ({ response, fault }) => this.json(response, this.#keySet(), fault)],
      "GET /.well-known/openid-configuration": [
        "discovery",
        ({ response, fault }) => this.json(response, this.#discovery(), fault),
      ],
    }[`${method} ${path}`];
  }

  problemWith(query, client) {
    if (query.scope && query.response_mode !== "form_post")
      return "response_mode must be form_post when scopes are asked for";
    return super.problemWith(query, client);
  }

  denied() {
    return { error: "user_cancelled_authorize" };
  }

  alongWithCode({ client, query, sub, isFirst }) {
    const { email, given_name: firstName = "", family_name: lastName = "" } = this.accounts.get(sub);
    const withIdToken = query.response_type?.split(" ").includes("id_token");
    return {
      ...(withIdToken && { id_token: this.#idToken({ client, query, sub }) }),
      ...(isFirst && query.scope && { user: JSON.stringify({ name: { firstName, lastName }, email }) }),
    };
  }

  clientOf(_, { client_id, client_secret }) {
    const client = this.clients.get(client_id);
    if (!client) throw new Refusal("invalid_client", "unknown client_id");
    try {
      const claims = verifyEs256(client_secret, this.#publicKeys.get(client_id), client.key_id);
      const now = nowSeconds();
      const right = { iss: client.team_id, sub: client_id, aud: this.issuer };
      for (const [name, value] of Object.entries(right)) {
        if (claims[name] !== value) throw new Error(`${name} is ${claims[name]}`);
      }
      if (!(claims.iat <= now + 60)) throw new Error(`iat is ${claims.iat}, now is ${now}`);
      if (!(claims.exp > now && claims.exp <= now + HALF_A_YEAR_S))
        throw new Error(`exp is ${claims.exp}, now is ${now}`);
    } catch (error) {
      throw new Refusal("invalid_client", error.message);
    }
    return client;
  }

  tokensFor(grant, { isRefresh }) {
    return {
      access_token: this.newAccessToken(grant),
      token_type: "Bearer",
      expires_in: this.options.access_token_seconds,
      // Apple's refresh tokens don't change.
      ...(!isRefresh && { refresh_token: this.newRefreshToken(grant) }),
      id_token: this.#idToken(grant),
    };
  }

  #idToken({ client, query: { nonce }, sub }) {
    return sign(this.idTokenClaims({ client, sub, nonce }), this.keys[0]);
  }

  idTokenClaims({ client, sub, nonce }) {
    const { email, email_verified, is_private_email } = this.accounts.get(sub);
    const { email_verified_as_text: asText } = this.options;
    const now = nowSeconds();
    return {
      iss: this.issuer,
      aud: client.client_id,
      exp: now + DAY_S,
      iat: now,
      sub,
      nonce,
      email,
      email_verified: asText && email_verified !== undefined ? String(email_verified) : email_verified,
      is_private_email,
      auth_time: now,
      nonce_supported: true,
    };
  }

  #keySet() {
    return { keys: this.keys.map(({ jwk }) => jwk) };
  }

  #discovery() {
    return {
      issuer: this.issuer,
      authorization_endpoint: `${this.url}/auth/authorize`,
      token_endpoint: `${this.url}/auth/token`,
      jwks_uri: `${this.url}/auth/keys`,
      response_types_supported: ["code"],
      response_modes_supported: ["query", "fragment", "form_post"],
      subject_types_supported: ["pairwise"],
      id_token_signing_alg_values_supported: ["RS256"],
      scopes_supported: ["openid", "email", "name"],
      token_endpoint_auth_methods_supported: ["client_secret_post"],
    };
  }
}
