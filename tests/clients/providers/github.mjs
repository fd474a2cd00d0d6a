// GitHub: OAuth without id_tokens, its API at `/user` and, as GitHub Enterprise has it, at `/api/v3/user`. Refusals of the
// token endpoint are 200.
//
// People are {"sub": "583231", "email", "email_verified", "name", …}: the subject is the number. What the API says of them
// can be given as it is: `login`, `avatar_url`, `public_email` (else null), `emails`.
//
// Options beside those of `dialects.mjs`:
//   expiring   false  access tokens expire, and refresh tokens come with them
//   rotation   true   a refresh token works once

import { Dialect } from "./dialects.mjs";
import { send, sendJson } from "./http.mjs";

const HALF_A_YEAR_S = 15_897_600;

export class GitHub extends Dialect {
  constructor(options) {
    super({ expiring: false, rotation: true, ...options });
  }

  words = {
    client: ["incorrect_client_credentials", "The client_id and/or client_secret passed are incorrect."],
    code: ["bad_verification_code", "The code passed is incorrect or expired."],
    redirectUri: [
      "redirect_uri_mismatch",
      "The redirect_uri MUST match the registered callback URL for this application.",
    ],
    refreshToken: ["bad_refresh_token", "The refresh token passed is incorrect or expired."],
  };

  route(method, path) {
    return {
      "GET /login/oauth/authorize": ["authorize", this.authorize],
      "POST /login/oauth/access_token": ["token", this.token],
      "GET /user": ["userinfo", this.#user],
      "GET /user/emails": ["emails", this.#emails],
    }[`${method} ${path.replace(/^\/api\/v3/, "")}`];
  }

  tokensFor(grant) {
    const tokens = {
      access_token: this.newAccessToken(grant, "gho_"),
      scope: scopesOf(grant).join(","),
      token_type: "bearer",
    };
    if (!this.options.expiring) return tokens;
    return {
      ...tokens,
      expires_in: this.options.access_token_seconds,
      refresh_token: this.newRefreshToken(grant, "ghr_"),
      refresh_token_expires_in: HALF_A_YEAR_S,
    };
  }

  sendTokens(request, response, fields) {
    if (request.headers.accept?.includes("json")) return sendJson(response, 200, fields);
    const body = new URLSearchParams(fields).toString();
    return send(response, 200, { "content-type": "application/x-www-form-urlencoded; charset=utf-8" }, body);
  }

  sendRefusal(request, response, { code, message }) {
    const error_uri =
      "https://docs.github.com/apps/managing-oauth-apps/troubleshooting-oauth-app-access-token-request-errors/";
    return this.sendTokens(request, response, { error: code, error_description: message, error_uri });
  }

  #user({ request, response, fault }) {
    const grant = this.#allowed(request, response);
    if (!grant) return;
    const { sub, name = null, login = `user-${sub}`, public_email = null, avatar_url } = this.claimsOf(grant.sub);
    const image = avatar_url ?? `https://avatars.example.test/u/${sub}`;
    this.json(response, { login, id: Number(sub), avatar_url: image, type: "User", name, email: public_email }, fault);
  }

  #emails({ request, response, fault }) {
    const grant = this.#allowed(request, response);
    if (!grant) return;
    if (!scopesOf(grant).some((scope) => scope === "user" || scope === "user:email")) {
      return sendJson(response, 404, { message: "Not Found", status: "404" });
    }
    const { email, email_verified = false, emails } = this.claimsOf(grant.sub);
    const primary = email ? [{ email, primary: true, verified: email_verified, visibility: "private" }] : [];
    this.json(response, emails ?? primary, fault);
  }

  #allowed(request, response) {
    const { "user-agent": agent } = request.headers;
    if (!agent) {
      sendJson(response, 403, { message: "Request forbidden by administrative rules." });
      return undefined;
    }
    const grant = this.bearer(request);
    if (!grant) sendJson(response, 401, { message: "Bad credentials", status: "401" });
    return grant;
  }
}

const scopesOf = ({ query }) => (query.scope ?? "").split(/[ ,]+/).filter(Boolean);
