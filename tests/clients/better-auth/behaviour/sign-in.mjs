import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { differs } from "../differs.mjs";
import { Browser } from "../harness/browser.mjs";
import { ban } from "../harness/database.mjs";
import {
  MARK_COOKIE,
  PASSWORD,
  SESSION_COOKIE,
  address,
  assertSignedOut,
  ok,
  person,
  refused,
  signIn,
  signUp,
  whoIs,
} from "../harness/people.mjs";
import { site } from "../harness/site.mjs";

const WEEK_S = 7 * 24 * 60 * 60;

describe("sign-in", { concurrency: 8 }, () => {
  test("the right password signs in", async () => {
    const ada = await person(await site());
    const browser = await signIn(ada);
    const { session, user } = await whoIs(browser);
    assert.equal(browser.answer.redirect, false);
    assert.equal(browser.answer.token, session.token);
    assert.equal(browser.answer.user.id, ada.user.id);
    assert.deepEqual(user, browser.answer.user);
    assert.ok(!("url" in browser.answer) || browser.answer.url === undefined);
  });

  test("the cookie is as the contract has it", async () => {
    const browser = await signIn(await person(await site()));
    const { value, attributes } = browser.last.cookies.get(SESSION_COOKIE);
    assert.deepEqual(attributes, { "max-age": String(WEEK_S), path: "/", httponly: true, samesite: "Lax" });
    const [token, signature] = decodeURIComponent(value).split(".");
    assert.equal(token, browser.answer.token);
    assert.match(signature, /^[A-Za-z0-9+/]{43}=$/);
  });

  test("an address is found whatever its case", async () => {
    const ada = await person(await site());
    const browser = await signIn({ ...ada, email: ada.email.toUpperCase() });
    assert.equal(browser.answer.user.email, ada.email);
  });

  test("a callbackURL is where the client is sent", async () => {
    const browser = await signIn(await person(await site()), { callbackURL: "/dash?tab=1" });
    assert.equal(browser.answer.redirect, true);
    assert.equal(browser.answer.url, "/dash?tab=1");
    assert.equal(browser.last.status, 200);
    assert.equal(browser.last.headers.get("location"), "/dash?tab=1");
  });

  test("each sign-in is a session of its own", async () => {
    const ada = await person(await site());
    const [one, other] = [await signIn(ada), await signIn(ada)];
    assert.notEqual((await whoIs(one)).session.id, (await whoIs(other)).session.id);
    await whoIs(ada.browser);
  });

  test("without rememberMe the cookie ends with the browser, and the session within a day", async () => {
    const browser = await signIn(await person(await site()), { rememberMe: false });
    const cookies = browser.last.cookies;
    assert.equal(cookies.get(SESSION_COOKIE).attributes["max-age"], undefined);
    assert.equal(cookies.get(MARK_COOKIE).attributes["max-age"], undefined);
    assert.match(decodeURIComponent(cookies.get(MARK_COOKIE).value), /^true\.[A-Za-z0-9+/]{43}=$/);
    const { session } = await whoIs(browser);
    const hours = (session.expiresAt - session.createdAt) / 3_600_000;
    assert.ok(Math.abs(hours - 24) < 0.1, `${hours} hours`);
  });

  test("a remembered session lasts seven days", async () => {
    const { session } = await whoIs(await signIn(await person(await site())));
    const days = (session.expiresAt - session.createdAt) / 86_400_000;
    assert.ok(Math.abs(days - 7) < 0.01, `${days} days`);
  });

  test("a later remembered sign-in in the same browser", async () => {
    const ada = await person(await site());
    const browser = await signIn(ada, { rememberMe: false });
    await signIn(ada, { browser });
    const cleared = browser.cookie(MARK_COOKIE) === undefined;
    assert.equal(cleared, differs("a remembered sign-in clears the mark of one that was not remembered"));
  });

  test("address and user agent of the browser are in the session", async () => {
    const ada = await person(await site());
    const browser = new Browser(ada.site, { "user-agent": "a browser/1.0" });
    const { session } = await whoIs(await signIn(ada, { browser }));
    assert.equal(session.userAgent, "a browser/1.0");
    assert.equal(session.ipAddress, "127.0.0.1");
  });

  test("a form may be posted as well", async () => {
    const ada = await person(await site());
    const body = new URLSearchParams({ email: ada.email, password: ada.password }).toString();
    const response = await new Browser(ada.site).raw("/sign-in/email", {
      body,
      type: "application/x-www-form-urlencoded",
    });
    assert.equal(response.status, 200);
    assert.equal((await response.json()).user.id, ada.user.id);
  });

  test("an unknown address and a wrong password are told alike", async () => {
    const ada = await person(await site());
    const { client } = new Browser(ada.site);
    const message = "Invalid email or password";
    const wrong = await client.signIn.email({ email: ada.email, password: "not her password" });
    refused(wrong, 401, "INVALID_EMAIL_OR_PASSWORD", message);
    const unknown = await client.signIn.email({ email: address("nobody"), password: ada.password });
    refused(unknown, 401, "INVALID_EMAIL_OR_PASSWORD", message);
  });

  test("a refused sign-in sets no session cookie and leaves an old one be", async () => {
    const ada = await person(await site());
    const browser = await signIn(ada);
    refused(
      await browser.client.signIn.email({ email: ada.email, password: "not her password" }),
      401,
      "INVALID_EMAIL_OR_PASSWORD",
    );
    assert.ok(!browser.last.cookies.has(SESSION_COOKIE));
    await whoIs(browser);
  });

  test("what is no address is told so", async () => {
    const result = await new Browser(await site()).client.signIn.email({ email: "ada", password: PASSWORD });
    refused(result, 400, "INVALID_EMAIL", "Invalid email");
  });

  test("a missing field is not valid", async () => {
    const { error } = await new Browser(await site()).client.signIn.email({ email: address() });
    assert.deepEqual([error.status, error.code], [400, "VALIDATION_ERROR"]);
    assert.match(error.message, /\[body\.password\]/);
  });

  test("rememberMe must be a boolean", async () => {
    const fields = { email: address(), password: PASSWORD, rememberMe: "yes" };
    const { error } = await new Browser(await site()).client.signIn.email(fields);
    assert.deepEqual([error.status, error.code], [400, "VALIDATION_ERROR"]);
    assert.match(error.message, /\[body\.rememberMe\]/);
  });

  test("an over-long password is refused before it is hashed", async () => {
    const ada = await person(await site());
    const result = await new Browser(ada.site).client.signIn.email({ email: ada.email, password: "x".repeat(129) });
    refused(result, 400, "PASSWORD_TOO_LONG");
  });

  test("an unverified user with the right password is told so, and sent a new link", async () => {
    const ada = await signUp(await site());
    const first = await ada.site.mailbox.next(ada.email);
    const { client } = ada.browser;
    const result = await client.signIn.email({ email: ada.email, password: ada.password, callbackURL: "/after" });
    refused(result, 403, "EMAIL_NOT_VERIFIED", "Email not verified");
    await assertSignedOut(ada.browser);
    const second = await ada.site.mailbox.next(ada.email);
    assert.equal(new URL(second.link).searchParams.get("callbackURL"), "/after");
    assert.equal((await ada.browser.open(first.link)).status, 302);
    await whoIs(ada.browser);
  });

  test("an unverified user with a wrong password is not told that there is such a user", async () => {
    const ada = await signUp(await site());
    const result = await ada.browser.client.signIn.email({ email: ada.email, password: "not her password" });
    refused(result, 401, "INVALID_EMAIL_OR_PASSWORD");
  });

  test("where no verification is required an unverified user signs in", async () => {
    const browser = await signIn(await signUp(await site("open")));
    assert.equal((await whoIs(browser)).user.emailVerified, false);
  });

  test("a banned user with the right password is told so", async () => {
    const ada = await person(await site());
    await ban(ada.site, ada.email);
    const result = await new Browser(ada.site).client.signIn.email({ email: ada.email, password: ada.password });
    refused(result, 403, "BANNED_USER");
    const wrong = await new Browser(ada.site).client.signIn.email({ email: ada.email, password: "not her password" });
    refused(wrong, 401, "INVALID_EMAIL_OR_PASSWORD");
  });
});

describe("sign-out", { concurrency: 8 }, () => {
  test("it ends the session and clears its cookies", async () => {
    const ada = await person(await site());
    const browser = await signIn(ada, { rememberMe: false });
    const stolen = browser.copy();
    assert.deepEqual(ok(await browser.client.signOut()), { success: true });
    for (const name of [SESSION_COOKIE, MARK_COOKIE]) {
      const { value, attributes } = browser.last.cookies.get(name);
      assert.deepEqual([value, attributes["max-age"], attributes.path, attributes.httponly], ["", "0", "/", true]);
    }
    await assertSignedOut(browser);
    await assertSignedOut(stolen);
  });

  test("other sessions of the user go on", async () => {
    const ada = await person(await site());
    const browser = await signIn(ada);
    ok(await browser.client.signOut());
    await whoIs(ada.browser);
  });

  test("it succeeds without a session", async () => {
    assert.deepEqual(ok(await new Browser(await site()).client.signOut()), { success: true });
  });

  test("it needs no body", async () => {
    const ada = await person(await site());
    const response = await ada.browser.raw("/sign-out", { method: "POST" });
    assert.equal(response.status, 200);
    await assertSignedOut(ada.browser);
  });
});
