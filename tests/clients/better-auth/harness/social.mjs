// People at providers, and their ways from the site there and back.

import assert from "node:assert/strict";

import { ProviderBrowser } from "../../providers/browser.mjs";
import { bare } from "./browser.mjs";
import { address, ok } from "./people.mjs";
import { BASE_PATH } from "./seen.mjs";
import { isGateway } from "./site.mjs";

/** GitHub's are numbers. */
let next = 1000;

/** Somebody who has an account at a provider of a site. `email: null`: without one; `verified: null`: nobody says. */
export async function known(site, name, { email = address(), verified = true, ...claims } = {}) {
  next += 1;
  const who = {
    sub: String(next),
    name: "Ada Lovelace",
    given_name: "Ada",
    family_name: "Lovelace",
    ...(email !== null && { email }),
    ...(verified !== null && { email_verified: verified }),
    ...claims,
  };
  await site.providers.get(name).admit(who);
  return who;
}

/** What each browser is at the providers. */
const hands = new WeakMap();

/** Opens an authorisation URL, signs in there and agrees; what the provider has the browser take back. */
export async function visit(browser, url, who, decision = "allow") {
  if (!hands.has(browser)) hands.set(browser, new ProviderBrowser());
  const redirectUri = new URL(url).searchParams.get("redirect_uri");
  return hands.get(browser).visit(url, redirectUri, { login: who.sub, decision });
}

/** Takes it back. A form is posted by a page of another site: without cookies. */
export async function land(browser, site, { url, form }) {
  if (!form) return browser.open(url);
  const response = await bare(site, "POST", new URL(url).pathname.slice(BASE_PATH.length), {
    headers: {
      "content-type": "application/x-www-form-urlencoded",
      origin: "https://appleid.apple.com",
      "sec-fetch-site": "cross-site",
    },
    body: new URLSearchParams(form).toString(),
  });
  assert.equal(response.status, 302, response.text);
  return browser.open(response.headers.location);
}

/** The URL at which the client is told to sign in. */
export async function ask(browser, provider, fields = {}) {
  return ok(
    await browser.client.signIn.social({ provider, callbackURL: "/home", errorCallbackURL: "/sorry", ...fields }),
  ).url;
}

/** The whole way; the site's last answer. */
export async function signInAt(browser, site, provider, who, { decision, ...fields } = {}) {
  return land(browser, site, await visit(browser, await ask(browser, provider, fields), who, decision));
}

/** The whole way to another account for whoever is signed in. */
export async function linkAt(browser, site, provider, who, fields = {}) {
  const asked = { provider, callbackURL: "/linked", errorCallbackURL: "/sorry", ...fields };
  const { url } = ok(await browser.client.linkSocial(asked));
  return land(browser, site, await visit(browser, url, who));
}

/** Where a response leads, without the query, and the `error` in it. */
export function led(response) {
  assert.equal(response.status, 302);
  const location = response.headers.get("location");
  const { pathname, searchParams } = new URL(location, "http://app.test");
  return { to: pathname, error: searchParams.get("error"), description: searchParams.get("error_description") };
}

/** An id_token as the app on somebody's phone gets it from Google. */
export async function googleIdToken(site, who, { nonce, ...more } = {}) {
  const client_id = site.clients.get("google").client_id;
  // The original knows where Google is, and can't be told that this one is it.
  const set = { ...(!isGateway && { iss: "https://accounts.google.com" }), ...more.set };
  const { id_token } = await site.providers.get("google").idToken({ client_id, sub: who.sub, nonce, ...more, set });
  return id_token;
}
