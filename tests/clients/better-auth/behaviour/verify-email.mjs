import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { differs } from "../differs.mjs";
import { Browser } from "../harness/browser.mjs";
import { expired, removeUser } from "../harness/database.mjs";
import {
  SESSION_COOKIE,
  address,
  assertNoMail,
  assertSignedOut,
  ok,
  person,
  refused,
  refusedRaw,
  signIn,
  signUp,
  target,
  whoIs,
} from "../harness/people.mjs";
import { site } from "../harness/site.mjs";

/** Somebody who has signed up, and the link that came. */
async function invited(options) {
  const ada = await signUp(await site(), options);
  const { link } = await ada.site.mailbox.next(ada.email);
  return { ...ada, link };
}

/** The link with another token, or without a target. */
function altered(link, { token, callbackURL } = {}) {
  const url = new URL(link);
  if (token !== undefined) url.searchParams.set("token", token);
  if (callbackURL === null) url.searchParams.delete("callbackURL");
  else if (callbackURL !== undefined) url.searchParams.set("callbackURL", callbackURL);
  return url.href;
}

describe("verify-email", { concurrency: 8 }, () => {
  test("the link verifies the address, signs in who asked for it, and leads on", async () => {
    const ada = await invited({ callbackURL: "/welcome?x=1" });
    assert.equal(target(await ada.browser.open(ada.link)), "/welcome?x=1");
    assert.ok(ada.browser.last.cookies.has(SESSION_COOKIE));
    const { user } = await whoIs(ada.browser);
    assert.equal(user.email, ada.email);
    assert.equal(user.emailVerified, true);
  });

  test("without a callbackURL the answer is JSON", async () => {
    const ada = await invited();
    const response = await ada.browser.open(altered(ada.link, { callbackURL: null }));
    assert.deepEqual([response.status, await response.json()], [200, { status: true, user: null }]);
  });

  test("the client may hand in the token itself", async () => {
    const ada = await invited();
    const token = new URL(ada.link).searchParams.get("token");
    assert.deepEqual(ok(await ada.browser.client.verifyEmail({ query: { token } })), { status: true, user: null });
    await signIn(ada);
  });

  test("a second visit leads on without an error", async () => {
    const ada = await invited({ callbackURL: "/welcome" });
    await ada.browser.open(ada.link);
    assert.equal(target(await new Browser(ada.site).open(ada.link)), "/welcome");
    const response = await new Browser(ada.site).open(altered(ada.link, { callbackURL: null }));
    assert.deepEqual([response.status, await response.json()], [200, { status: true, user: null }]);
  });

  test("a second visit signs nobody in", async () => {
    const ada = await invited();
    await ada.browser.open(ada.link);
    ok(await ada.browser.client.signOut());
    await ada.browser.open(ada.link);
    await assertSignedOut(ada.browser);
  });

  test("opened in another browser it verifies the address", async () => {
    const ada = await invited();
    const elsewhere = new Browser(ada.site);
    assert.equal(target(await elsewhere.open(ada.link)), "/");
    const signedIn = ok(await elsewhere.client.getSession()) !== null;
    assert.equal(signedIn, differs("a verification link signs in a browser that did not ask for it"));
    assert.equal((await whoIs(await signIn(ada))).user.emailVerified, true);
  });

  test("who comes after a mail scanner still succeeds", async () => {
    const ada = await invited({ callbackURL: "/welcome" });
    await new Browser(ada.site).open(ada.link);
    assert.equal(target(await ada.browser.open(ada.link)), "/welcome");
    const signedIn = ok(await ada.browser.client.getSession()) !== null;
    assert.equal(
      signedIn,
      differs("a verification link opened elsewhere first still signs in the browser that signed up"),
    );
    await signIn(ada);
  });

  test("a bad token leads on with an error after the query that is there", async () => {
    const link = "/api/auth/verify-email?token=abc&callbackURL=%2Fwelcome%3Fx%3D1";
    assert.equal(target(await new Browser(await site()).open(link)), "/welcome?x=1&error=INVALID_TOKEN");
  });

  test("an error comes before a fragment", async () => {
    const link = "/api/auth/verify-email?token=abc&callbackURL=%2Fw%3Fa%3D1%23top";
    assert.equal(target(await new Browser(await site()).open(link)), "/w?a=1&error=INVALID_TOKEN#top");
  });

  test("a bad token without a callbackURL is an error of the client's", async () => {
    const result = await new Browser(await site()).client.verifyEmail({ query: { token: "abc" } });
    refused(result, 401, "INVALID_TOKEN", "Invalid token");
  });

  test("a token that was tampered with is bad", async () => {
    const ada = await invited();
    const token = new URL(ada.link).searchParams.get("token");
    const other = token.slice(0, -1) + (token.endsWith("A") ? "E" : "A");
    refused(await ada.browser.client.verifyEmail({ query: { token: other } }), 401, "INVALID_TOKEN");
  });

  test("without a token it is not valid", async () => {
    const response = await new Browser(await site()).open("/api/auth/verify-email?callbackURL=%2F");
    await refusedRaw(response, 400, "VALIDATION_ERROR");
  });

  test("an expired link leads on with an error, and says so to the client", async () => {
    const ada = await invited();
    const link = await expired(ada.site, ada.link, ada.email);
    assert.equal(target(await ada.browser.open(link)), "/?error=TOKEN_EXPIRED");
    const token = new URL(link).searchParams.get("token");
    refused(await ada.browser.client.verifyEmail({ query: { token } }), 401, "TOKEN_EXPIRED", "Token expired");
    await assertSignedOut(ada.browser);
  });

  test("the link of a user who is gone says so", async () => {
    const ada = await invited();
    await removeUser(ada.site, ada.answer.user.id);
    assert.equal(target(await ada.browser.open(ada.link)), "/?error=USER_NOT_FOUND");
    const token = new URL(ada.link).searchParams.get("token");
    refused(await ada.browser.client.verifyEmail({ query: { token } }), 401, "USER_NOT_FOUND", "User not found");
  });

  test("a link that would lead elsewhere is refused before its token is used", async () => {
    const ada = await invited();
    const response = await ada.browser.open(altered(ada.link, { callbackURL: "https://evil.test/" }));
    await refusedRaw(response, 403, "INVALID_CALLBACK_URL");
    const result = await ada.browser.client.signIn.email({ email: ada.email, password: ada.password });
    refused(result, 403, "EMAIL_NOT_VERIFIED");
  });
});

describe("send-verification-email", { concurrency: 8 }, () => {
  test("an unverified user is sent a new link", async () => {
    const ada = await invited();
    const again = await ada.browser.client.sendVerificationEmail({ email: ada.email, callbackURL: "/welcome" });
    assert.deepEqual(ok(again), { status: true });
    const { link } = await ada.site.mailbox.next(ada.email);
    assert.equal(target(await ada.browser.open(link)), "/welcome");
    assert.equal((await whoIs(ada.browser)).user.emailVerified, true);
  });

  test("unknown and verified addresses are answered alike, and sent nothing", async () => {
    const here = await site();
    const ada = await person(here);
    const unknown = address("nobody");
    for (const email of [ada.email, unknown]) {
      assert.deepEqual(ok(await new Browser(here).client.sendVerificationEmail({ email })), { status: true });
    }
    await assertNoMail(here, ada.email);
    assert.equal(here.mailbox.unread(unknown), 0);
  });

  test("who is signed in can't ask for another address", async () => {
    const ada = await person(await site());
    const result = await ada.browser.client.sendVerificationEmail({ email: address("bob") });
    refused(result, 400, "EMAIL_MISMATCH", "Email mismatch");
  });

  test("who is signed in and verified is told so", async () => {
    const ada = await person(await site());
    const result = await ada.browser.client.sendVerificationEmail({ email: ada.email });
    refused(result, 400, "EMAIL_ALREADY_VERIFIED", "Email is already verified");
  });

  test("who is signed in and not verified is sent a link", async () => {
    const ada = await signUp(await site("open"));
    ok(await ada.browser.client.sendVerificationEmail({ email: ada.email }));
    const { link } = await ada.site.mailbox.next(ada.email);
    await ada.browser.open(link);
    assert.equal((await whoIs(ada.browser)).user.emailVerified, true);
  });

  test("what is no address is not valid", async () => {
    const { error } = await new Browser(await site()).client.sendVerificationEmail({ email: "ada" });
    assert.deepEqual([error.status, error.code], [400, "VALIDATION_ERROR"]);
    assert.match(error.message, /\[body\.email\]/);
  });
});
