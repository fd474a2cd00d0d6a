// People with addresses of their own, so that tests share a server and nothing else.

import assert from "node:assert/strict";

import { Browser } from "./browser.mjs";

export const PASSWORD = "correct horse battery staple";
export const SESSION_COOKIE = "better-auth.session_token";
export const MARK_COOKIE = "better-auth.dont_remember";

let next = 1;

/** An address that nobody else in this run has. */
export function address(name = "ada") {
  next += 1;
  return `${name}.${next}@example.test`;
}

/** What the client was given, which must be no error. */
export function ok({ data, error }) {
  assert.equal(error, null, `refused: ${JSON.stringify(error)}`);
  return data;
}

/** The client must have been refused like this; `code` is undefined where the contract has none. */
export function refused({ data, error }, status, code, message) {
  assert.equal(data, null, `not refused: ${JSON.stringify(data)}`);
  assert.deepEqual({ status: error.status, code: error.code }, { status, code }, JSON.stringify(error));
  if (message !== undefined) assert.equal(error.message, message);
}

/** A `Response` must be that refusal. */
export async function refusedRaw(response, status, code, message) {
  const body = await response.json();
  assert.deepEqual({ status: response.status, code: body.code }, { status, code }, JSON.stringify(body));
  if (message !== undefined) assert.equal(body.message, message);
}

/** Signs up in a browser; nothing is verified yet. */
export async function signUp(site, { email = address(), name = "Ada", password = PASSWORD, browser, ...more } = {}) {
  browser ??= new Browser(site);
  const answer = ok(await browser.client.signUp.email({ email, name, password, ...more }));
  return { site, email, name, password, browser, answer };
}

/** Signed up, verified by the mailed link, and signed in by it in the same browser. */
export async function person(site, options) {
  const person = await signUp(site, options);
  const { link } = await site.mailbox.next(person.email);
  const response = await person.browser.open(link);
  assert.equal(response.status, 302, await response.text());
  const { session, user } = await whoIs(person.browser);
  return { ...person, session, user };
}

/** Another browser, where a person signs in with the password. */
export async function signIn({ site, email, password }, { browser = new Browser(site), ...more } = {}) {
  const answer = ok(await browser.client.signIn.email({ email, password, ...more }));
  return Object.assign(browser, { answer });
}

/** `{session, user}` of whom a browser is signed in as; fails if nobody is. */
export async function whoIs(browser) {
  const found = ok(await browser.client.getSession());
  assert.ok(found, "nobody is signed in");
  return found;
}

export async function assertSignedOut(browser) {
  assert.equal(ok(await browser.client.getSession()), null);
}

/**
 * No mail has been sent to an address: another one, asked for later, has come, and it is not there. Mails leave in the
 * order in which they were written.
 */
export async function assertNoMail(site, to) {
  const witness = await signUp(site, { email: address("witness") });
  ok(await witness.browser.client.requestPasswordReset({ email: witness.email }));
  let mail;
  do mail = await site.mailbox.next(witness.email);
  while (!mail.link.includes("/reset-password/"));
  assert.equal(site.mailbox.unread(to), 0, `a mail to ${to} has come`);
}

/** Where a response leads to. */
export function target(response) {
  assert.equal(response.status, 302);
  return response.headers.get("location");
}
