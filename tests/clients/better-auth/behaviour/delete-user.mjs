import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Browser } from "../harness/browser.mjs";
import { DAY, ageSession, expired, removePassword } from "../harness/database.mjs";
import {
  SESSION_COOKIE,
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

const DELETED = { success: true, message: "User deleted" };

/** Lets so much time pass that the session is no longer fresh. */
const age = ({ site, session }) => ageSession(site, session, { age: 2 * DAY, left: 6 * DAY });

async function assertGone({ site, email, password }) {
  const result = await new Browser(site).client.signIn.email({ email, password });
  refused(result, 401, "INVALID_EMAIL_OR_PASSWORD");
}

describe("delete-user", { concurrency: 8 }, () => {
  test("with the password the user is gone at once, with every session", async () => {
    const ada = await person(await site());
    const phone = await signIn(ada);
    assert.deepEqual(ok(await ada.browser.client.deleteUser({ password: ada.password })), DELETED);
    assert.equal(ada.browser.last.cookies.get(SESSION_COOKIE).attributes["max-age"], "0");
    for (const browser of [ada.browser, phone]) await assertSignedOut(browser);
    await assertGone(ada);
  });

  test("a fresh session needs no password", async () => {
    const ada = await person(await site());
    assert.deepEqual(ok(await ada.browser.client.deleteUser()), DELETED);
    await assertGone(ada);
  });

  test("one that is not fresh does", async () => {
    const ada = await person(await site());
    await age(ada);
    const message = "Session expired. Re-authenticate to perform this action.";
    refused(await ada.browser.client.deleteUser(), 400, "SESSION_EXPIRED", message);
    assert.deepEqual(ok(await ada.browser.client.deleteUser({ password: ada.password })), DELETED);
  });

  test("the password must be right", async () => {
    const ada = await person(await site());
    refused(await ada.browser.client.deleteUser({ password: "not hers" }), 400, "INVALID_PASSWORD", "Invalid password");
    await whoIs(ada.browser);
  });

  test("who has no password can't give one", async () => {
    const ada = await person(await site());
    await removePassword(ada.site, ada.user.id);
    refused(await ada.browser.client.deleteUser({ password: ada.password }), 400, "CREDENTIAL_ACCOUNT_NOT_FOUND");
    await whoIs(ada.browser);
  });

  test("an unknown token is refused", async () => {
    const ada = await person(await site());
    refused(await ada.browser.client.deleteUser({ token: "unknown" }), 404, "INVALID_TOKEN", "Invalid token");
    await whoIs(ada.browser);
  });

  test("the address is free again", async () => {
    const ada = await person(await site());
    ok(await ada.browser.client.deleteUser({ password: ada.password }));
    const again = await signUp(ada.site, { email: ada.email });
    const { link } = await ada.site.mailbox.next(ada.email);
    await again.browser.open(link);
    assert.notEqual((await whoIs(again.browser)).user.id, ada.user.id);
  });

  test("it needs a session", async () => {
    refused(await new Browser(await site()).client.deleteUser(), 401, "UNAUTHORIZED", "Unauthorized");
  });

  test("switched off, there is no such thing", async () => {
    const ada = await person(await site("off"));
    await ada.browser.client.deleteUser({ password: ada.password });
    const response = await ada.browser.raw("/delete-user", { body: "{}" });
    assert.deepEqual([response.status, await response.text()], [404, ""]);
    const link = await ada.browser.open("/api/auth/delete-user/callback?token=unknown");
    await refusedRaw(link, 404, "NOT_FOUND");
    await whoIs(ada.browser);
  });
});

describe("delete-user by mail", { concurrency: 8 }, () => {
  /** Somebody who has asked to be deleted, with the link that came. */
  async function leaving({ callbackURL = "/goodbye", ...fields } = {}) {
    const ada = await person(await site("mail-delete"));
    const answer = await ada.browser.client.deleteUser({ callbackURL, ...fields });
    assert.deepEqual(ok(answer), { success: true, message: "Verification email sent" });
    const { link } = await ada.site.mailbox.next(ada.email);
    return { ...ada, link, token: new URL(link).searchParams.get("token") };
  }

  test("the link deletes the user and leads on", async () => {
    const ada = await leaving();
    assert.ok(ada.link.startsWith(`${ada.site.url}/api/auth/delete-user/callback?token=`), ada.link);
    await whoIs(ada.browser);
    assert.equal(target(await ada.browser.open(ada.link)), "/goodbye");
    assert.equal(ada.browser.last.cookies.get(SESSION_COOKIE).attributes["max-age"], "0");
    await assertGone(ada);
  });

  test("without a callbackURL it answers with JSON", async () => {
    const ada = await leaving();
    const response = await ada.browser.open(`/api/auth/delete-user/callback?token=${ada.token}`);
    assert.deepEqual([response.status, await response.json()], [200, DELETED]);
  });

  test("the client may hand in the token", async () => {
    const ada = await leaving();
    assert.deepEqual(ok(await ada.browser.client.deleteUser({ token: ada.token })), DELETED);
    await assertGone(ada);
  });

  test("any session of the user will do", async () => {
    const ada = await leaving();
    const phone = await signIn(ada);
    assert.equal(target(await phone.open(ada.link)), "/goodbye");
    await assertSignedOut(ada.browser);
  });

  test("without a session the link does nothing", async () => {
    const ada = await leaving();
    const response = await new Browser(ada.site).open(ada.link);
    await refusedRaw(response, 404, "FAILED_TO_GET_USER_INFO", "Failed to get user info");
    await whoIs(ada.browser);
    assert.equal(target(await ada.browser.open(ada.link)), "/goodbye", "it can still be used");
  });

  test("in another user's session it is refused", async () => {
    const ada = await leaving();
    const eve = await person(ada.site);
    await refusedRaw(await eve.browser.open(ada.link), 404, "INVALID_TOKEN");
    for (const { browser } of [ada, eve]) await whoIs(browser);
  });

  test("unknown and expired tokens are refused", async () => {
    const ada = await leaving();
    await refusedRaw(await ada.browser.open("/api/auth/delete-user/callback?token=unknown"), 404, "INVALID_TOKEN");
    const link = await expired(ada.site, ada.link, ada.email);
    await refusedRaw(await ada.browser.open(link), 404, "INVALID_TOKEN", "Invalid token");
    await whoIs(ada.browser);
  });

  test("a token must be given", async () => {
    const ada = await person(await site("mail-delete"));
    await refusedRaw(await ada.browser.open("/api/auth/delete-user/callback"), 400, "VALIDATION_ERROR");
  });

  test("it must not lead elsewhere", async () => {
    const ada = await leaving();
    const link = new URL(ada.link);
    link.searchParams.set("callbackURL", "https://evil.test/");
    await refusedRaw(await ada.browser.open(link.href), 403, "INVALID_CALLBACK_URL");
    await whoIs(ada.browser);
  });

  test("a wrong password is refused before any mail is sent", async () => {
    const ada = await person(await site("mail-delete"));
    refused(await ada.browser.client.deleteUser({ password: "not hers" }), 400, "INVALID_PASSWORD");
  });

  test("also the right password only sends the link, and so does a session that is not fresh", async () => {
    const ada = await person(await site("mail-delete"));
    await age(ada);
    const { message } = ok(await ada.browser.client.deleteUser({ password: ada.password }));
    assert.equal(message, "Verification email sent");
    await whoIs(ada.browser);
  });
});
