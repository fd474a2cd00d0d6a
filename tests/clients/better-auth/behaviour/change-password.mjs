import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Browser } from "../harness/browser.mjs";
import { liveSessions, removePassword } from "../harness/database.mjs";
import { SESSION_COOKIE, assertSignedOut, ok, person, refused, refusedRaw, signIn, whoIs } from "../harness/people.mjs";
import { site } from "../harness/site.mjs";

const NEW = "an entirely new password";

function change({ browser, password }, fields) {
  return browser.client.changePassword({ currentPassword: password, newPassword: NEW, ...fields });
}

describe("change-password", { concurrency: 8 }, () => {
  test("the new password is in force, the old one is not", async () => {
    const ada = await person(await site());
    ok(await change(ada));
    await signIn({ ...ada, password: NEW });
    const old = await new Browser(ada.site).client.signIn.email({ email: ada.email, password: ada.password });
    refused(old, 401, "INVALID_EMAIL_OR_PASSWORD");
  });

  test("the answer is the user, without a token, and all sessions stay", async () => {
    const ada = await person(await site());
    const phone = await signIn(ada);
    const { token, user } = ok(await change(ada));
    assert.equal(token, null);
    assert.equal(user.id, ada.user.id);
    assert.ok(user.createdAt instanceof Date);
    assert.deepEqual(Object.keys(user).sort(), Object.keys(ada.user).sort());
    for (const browser of [ada.browser, phone]) await whoIs(browser);
  });

  test("with revokeOtherSessions a new session takes the place of all", async () => {
    const ada = await person(await site());
    const phone = await signIn(ada);
    const stolen = ada.browser.copy();
    const { token } = ok(await change(ada, { revokeOtherSessions: true }));
    assert.ok(token && token !== ada.session.token);
    assert.ok(ada.browser.last.cookies.get(SESSION_COOKIE).value.startsWith(`${token}.`));
    assert.equal((await whoIs(ada.browser)).session.token, token);
    for (const browser of [phone, stolen]) await assertSignedOut(browser);
    assert.equal(await liveSessions(ada.site, ada.user.id), 1);
  });

  test("the current password must be right", async () => {
    const ada = await person(await site());
    refused(await change(ada, { currentPassword: "not her password" }), 400, "INVALID_PASSWORD", "Invalid password");
    await signIn(ada);
  });

  test("the new one must be neither short nor long", async () => {
    const ada = await person(await site());
    refused(await change(ada, { newPassword: "1234567" }), 400, "PASSWORD_TOO_SHORT", "Password too short");
    refused(await change(ada, { newPassword: "x".repeat(129) }), 400, "PASSWORD_TOO_LONG", "Password too long");
    await signIn(ada);
  });

  test("who has no password can't change it", async () => {
    const ada = await person(await site());
    await removePassword(ada.site, ada.user.id);
    refused(await change(ada), 400, "CREDENTIAL_ACCOUNT_NOT_FOUND", "Credential account not found");
  });

  test("both passwords must be given", async () => {
    const ada = await person(await site());
    const response = await ada.browser.raw("/change-password", { body: "{}" });
    const { code, message } = await response.json();
    assert.deepEqual([response.status, code], [400, "VALIDATION_ERROR"]);
    for (const field of ["currentPassword", "newPassword"]) assert.ok(message.includes(`[body.${field}]`), message);
  });

  test("it needs a session", async () => {
    refused(await change({ browser: new Browser(await site()), password: NEW }), 401, "UNAUTHORIZED", "Unauthorized");
  });
});

describe("verify-password", { concurrency: 8 }, () => {
  test("it tells whether a password is the right one", async () => {
    const ada = await person(await site());
    assert.deepEqual(ok(await ada.browser.client.verifyPassword({ password: ada.password })), { status: true });
    const wrong = await ada.browser.client.verifyPassword({ password: "not her password" });
    refused(wrong, 400, "INVALID_PASSWORD", "Invalid password");
  });

  test("a password must be given", async () => {
    const ada = await person(await site());
    await refusedRaw(await ada.browser.raw("/verify-password", { body: "{}" }), 400, "VALIDATION_ERROR");
  });

  test("it needs a session", async () => {
    refused(await new Browser(await site()).client.verifyPassword({ password: NEW }), 401, "UNAUTHORIZED");
  });
});
