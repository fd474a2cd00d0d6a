import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { differs } from "../differs.mjs";
import { Browser } from "../harness/browser.mjs";
import { expired, removePassword } from "../harness/database.mjs";
import {
  address,
  assertNoMail,
  assertSignedOut,
  ok,
  person,
  refused,
  refusedRaw,
  signIn,
  target,
} from "../harness/people.mjs";
import { site } from "../harness/site.mjs";

const NEW = "an entirely new password";
const SENT = "If this email exists in our system, check your email for the reset link";

/** Somebody who has asked for a reset, with the link that came and the token in it. */
async function forgetful({ redirectTo = "/reset", ...options } = {}) {
  const ada = await person(await site(), options);
  const { link, token } = await asked(ada, { redirectTo });
  return { ...ada, link, token };
}

async function asked({ site, email }, { redirectTo } = {}) {
  ok(await new Browser(site).client.requestPasswordReset({ email, redirectTo }));
  const { link } = await site.mailbox.next(email);
  return { link, token: new URL(link).pathname.split("/").at(-1) };
}

describe("request-password-reset", { concurrency: 8 }, () => {
  test("known and unknown addresses are answered alike", async () => {
    const ada = await person(await site());
    for (const email of [ada.email, address("nobody")]) {
      const answer = ok(await new Browser(ada.site).client.requestPasswordReset({ email, redirectTo: "/reset" }));
      assert.deepEqual(answer, { status: true, message: SENT });
    }
  });

  test("the mail has a link to the page that was asked for", async () => {
    const ada = await forgetful({ redirectTo: "/reset?step=2" });
    const url = new URL(ada.link);
    assert.ok(ada.link.startsWith(`${ada.site.url}/api/auth/reset-password/`), ada.link);
    assert.equal(url.searchParams.get("callbackURL"), "/reset?step=2");
  });

  test("an unknown address is sent nothing", async () => {
    const here = await site();
    const email = address("nobody");
    ok(await new Browser(here).client.requestPasswordReset({ email }));
    await assertNoMail(here, email);
  });

  test("an address is found whatever its case", async () => {
    const ada = await person(await site());
    ok(await new Browser(ada.site).client.requestPasswordReset({ email: ada.email.toUpperCase() }));
    assert.ok((await ada.site.mailbox.next(ada.email)).link);
  });

  test("what is no address is not valid", async () => {
    const result = await new Browser(await site()).client.requestPasswordReset({ email: "ada" });
    refused(result, 400, "VALIDATION_ERROR");
  });

  test("a page of somewhere else is refused", async () => {
    const fields = { email: address(), redirectTo: "https://evil.test/" };
    const result = await new Browser(await site()).client.requestPasswordReset(fields);
    refused(result, 403, "INVALID_REDIRECT_URL", "Invalid redirectURL");
  });
});

describe("the link of a reset", { concurrency: 8 }, () => {
  test("it leads to the page with the token, as often as it is opened", async () => {
    const ada = await forgetful();
    for (const browser of [ada.browser, new Browser(ada.site), new Browser(ada.site)]) {
      assert.equal(target(await browser.open(ada.link)), `${ada.site.url}/reset?token=${ada.token}`);
    }
    ok(await ada.browser.client.resetPassword({ newPassword: NEW, token: ada.token }));
  });

  test("an unknown token leads there with an error", async () => {
    const here = await site();
    const response = await new Browser(here).open("/api/auth/reset-password/xyz?callbackURL=%2Freset");
    assert.equal(target(response), `${here.url}/reset?error=INVALID_TOKEN`);
  });

  test("an expired one does, too", async () => {
    const ada = await forgetful();
    const link = await expired(ada.site, ada.link, ada.email);
    assert.equal(target(await ada.browser.open(link)), `${ada.site.url}/reset?error=INVALID_TOKEN`);
    const result = await ada.browser.client.resetPassword({ newPassword: NEW, token: ada.token });
    refused(result, 400, "INVALID_TOKEN", "Invalid token");
  });

  test("a page must be named", async () => {
    const response = await new Browser(await site()).open("/api/auth/reset-password/xyz");
    await refusedRaw(response, 400, "VALIDATION_ERROR");
  });

  test("it must not lead elsewhere", async () => {
    const response = await new Browser(await site()).open(
      "/api/auth/reset-password/xyz?callbackURL=https%3A%2F%2Fevil.test",
    );
    await refusedRaw(response, 403, "INVALID_CALLBACK_URL");
  });
});

describe("reset-password", { concurrency: 8 }, () => {
  test("the new password is in force, the old one is not", async () => {
    const ada = await forgetful();
    const browser = new Browser(ada.site);
    assert.deepEqual(ok(await browser.client.resetPassword({ newPassword: NEW, token: ada.token })), { status: true });
    await assertSignedOut(browser);
    await signIn({ ...ada, password: NEW });
    const old = await new Browser(ada.site).client.signIn.email({ email: ada.email, password: ada.password });
    refused(old, 401, "INVALID_EMAIL_OR_PASSWORD");
  });

  test("every session of the user ends", async () => {
    const ada = await forgetful();
    const phone = await signIn(ada);
    ok(await new Browser(ada.site).client.resetPassword({ newPassword: NEW, token: ada.token }));
    for (const browser of [ada.browser, phone]) await assertSignedOut(browser);
  });

  test("a token works once", async () => {
    const ada = await forgetful();
    const { client } = new Browser(ada.site);
    ok(await client.resetPassword({ newPassword: NEW, token: ada.token }));
    refused(await client.resetPassword({ newPassword: `${NEW}!`, token: ada.token }), 400, "INVALID_TOKEN");
    await signIn({ ...ada, password: NEW });
  });

  test("of many parallel uses of a token one wins", async () => {
    const ada = await forgetful();
    const attempts = Array.from({ length: 10 }, (_, n) =>
      new Browser(ada.site).client.resetPassword({ newPassword: `${NEW} ${n}`, token: ada.token }),
    );
    const results = await Promise.all(attempts);
    const winner = results.findIndex(({ error }) => error === null);
    assert.equal(results.filter(({ error }) => error === null).length, 1);
    for (const { error } of results.filter((result) => result.error)) assert.equal(error.code, "INVALID_TOKEN");
    await signIn({ ...ada, password: `${NEW} ${winner}` });
  });

  test("the token may stand in the query", async () => {
    const ada = await forgetful();
    const { client } = new Browser(ada.site);
    ok(await client.resetPassword({ newPassword: NEW, query: { token: ada.token } }));
    await signIn({ ...ada, password: NEW });
  });

  test("a refused password leaves the token usable", async () => {
    const ada = await forgetful();
    const { client } = new Browser(ada.site);
    refused(await client.resetPassword({ newPassword: "short", token: ada.token }), 400, "PASSWORD_TOO_SHORT");
    refused(await client.resetPassword({ newPassword: "x".repeat(129), token: ada.token }), 400, "PASSWORD_TOO_LONG");
    ok(await client.resetPassword({ newPassword: NEW, token: ada.token }));
  });

  test("without a token, or with an unknown one, it is refused", async () => {
    const { client } = new Browser(await site());
    refused(await client.resetPassword({ newPassword: NEW }), 400, "INVALID_TOKEN", "Invalid token");
    refused(await client.resetPassword({ newPassword: NEW, token: "unknown" }), 400, "INVALID_TOKEN");
  });

  test("a password must be given", async () => {
    await refusedRaw(
      await new Browser(await site()).raw("/reset-password", { body: '{"token":"x"}' }),
      400,
      "VALIDATION_ERROR",
    );
  });

  test("a link that verifies an address resets no password", async () => {
    const ada = await person(await site(), {});
    const bob = address("bob");
    await new Browser(ada.site).client.signUp.email({ email: bob, name: "Bob", password: NEW });
    const { link } = await ada.site.mailbox.next(bob);
    const token = new URL(link).searchParams.get("token");
    refused(await new Browser(ada.site).client.resetPassword({ newPassword: NEW, token }), 400, "INVALID_TOKEN");
  });

  test("who has no password gets one", async () => {
    const ada = await person(await site());
    await removePassword(ada.site, ada.user.id);
    const { token } = await asked(ada);
    ok(await new Browser(ada.site).client.resetPassword({ newPassword: NEW, token }));
    await signIn({ ...ada, password: NEW });
  });

  test("an older link once a newer was sent", async () => {
    const ada = await forgetful();
    const newer = await asked(ada);
    const { error } = await new Browser(ada.site).client.resetPassword({ newPassword: NEW, token: ada.token });
    assert.equal(error === null, differs("a reset link works although a newer one was sent"));
    if (error) assert.deepEqual([error.status, error.code], [400, "INVALID_TOKEN"]);
    ok(await new Browser(ada.site).client.resetPassword({ newPassword: `${NEW}!`, token: newer.token }));
  });

  test("a link once the password was changed", async () => {
    const ada = await forgetful();
    ok(await ada.browser.client.changePassword({ currentPassword: ada.password, newPassword: NEW }));
    const { error } = await new Browser(ada.site).client.resetPassword({ newPassword: `${NEW}!`, token: ada.token });
    assert.equal(error === null, differs("a reset link works although the password was changed"));
  });
});
