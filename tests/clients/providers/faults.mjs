// Faults on demand: what a provider does wrong, at which place, and how often.
//
// Places: `discovery`, `jwks`, `authorize`, `token`, `userinfo`, `emails` (GitHub's), and `callback`: what the browser
// takes back. A fault is an object of these:
//
//   "times": 2                 then it is well again; without it, until it is lifted
//   "hang": true               no answer until the fault is lifted; then the right one
//   "answer": {"status": 500, "headers": {…}, "body": "…", "filler": BYTES}
//                              this in place of the right one; `filler` appends so many `x`
//   "set": {…}, "remove": […]  fields of the right answer (JSON; at `callback`, parameters) that are others, or missing
//   "id_token": ALTERATION     at `token`; see `idToken` below

import { hmac, rsaKey, sign, unverified } from "./keys.mjs";
import { send } from "./http.mjs";

export class Faults {
  #at = new Map();

  /** `null` lifts a fault. */
  set(faults) {
    for (const [place, fault] of Object.entries(faults)) {
      this.#at.get(place)?.lift?.();
      this.#at.delete(place);
      if (fault !== null) this.#at.set(place, fault.hang ? { ...fault, ...held() } : { ...fault });
    }
  }

  /** What is wrong at a place, this time. Waits while it hangs. */
  async meet(place) {
    const fault = this.#at.get(place);
    // One that has been used up stays: whoever hangs on it goes on when it is lifted.
    if (!fault || fault.times === 0) return {};
    if (fault.times !== undefined) fault.times -= 1;
    await fault.lifted;
    return fault;
  }
}

function held() {
  let lift;
  const lifted = new Promise((resolve) => {
    lift = resolve;
  });
  return { lift, lifted };
}

/** Sends a fault's answer. */
export function sendAnswer(response, { status = 200, headers = {}, body = "", filler = 0 }) {
  send(response, status, { "content-type": "application/json", ...headers }, body + "x".repeat(filler));
}

/** An answer as a fault leaves it. */
export function altered(fields, { set = {}, remove = [] }) {
  const result = { ...fields, ...set };
  for (const name of remove) delete result[name];
  return result;
}

/**
 * An id_token as a fault leaves it. An alteration is an object of these:
 *
 *   "set": {…}, "remove": […]  claims
 *   "shift": SECONDS           moves its times: a clock that is wrong by so much
 *   "sign":  "none"            `alg: none`, no signature
 *            "hs256-secret"    HS256 with the client's secret
 *            "hs256-public"    HS256 with the provider's public key, in PEM, as the secret
 *            "unknown-key"     RS256 with a key that is in no key set, under a name of its own
 *            "stolen-kid"      RS256 with such a key, under the name of the right one
 *            "no-kid"          the right key, not named
 *            "broken"          the right signature, one bit of it flipped
 */
export async function idToken(token, alteration, { key, secret }) {
  const claims = altered(unverified(token), alteration);
  for (const name of ["iat", "exp", "nbf", "auth_time"]) {
    const isSet = alteration.set && name in alteration.set;
    if (typeof claims[name] === "number" && !isSet) claims[name] += alteration.shift ?? 0;
  }
  switch (alteration.sign) {
    case undefined:
      return sign(claims, key);
    case "none":
      return hmac(claims, { alg: "none" });
    case "hs256-secret":
      return hmac(claims, { alg: "HS256" }, secret);
    case "hs256-public":
      return hmac(claims, { alg: "HS256", kid: key.kid }, key.publicPem);
    case "unknown-key":
      return sign(claims, await rsaKey());
    case "stolen-kid":
      return sign(claims, { ...(await rsaKey()), kid: key.kid });
    case "no-kid":
      return sign(claims, { ...key, kid: undefined });
    case "broken":
      return flipped(sign(claims, key));
    default:
      throw new Error(`nothing is signed by "${alteration.sign}"`);
  }
}

function flipped(token) {
  const [header, payload, signature] = token.split(".");
  const bytes = Buffer.from(signature, "base64url");
  bytes[0] ^= 1;
  return `${header}.${payload}.${bytes.toString("base64url")}`;
}
