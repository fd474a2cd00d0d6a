import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { differs } from "../differs.mjs";
import { Browser } from "../harness/browser.mjs";
import { expired } from "../harness/database.mjs";
import { address, assertNoMail, ok, person, refused, signIn, signUp, target, whoIs } from "../harness/people.mjs";
import { site } from "../harness/site.mjs";

/** Asks for another address; the link that comes to `to`. */
async function asked(ada, newEmail, { to, callbackURL = "/account" } = {}) {
  assert.deepEqual(ok(await ada.browser.client.changeEmail({ newEmail, callbackURL })), { status: true });
  return (await ada.site.mailbox.next(to)).link;
}

/** Both steps; the second link, not yet opened. */
async function approved(ada, newEmail) {
  const first = await asked(ada, newEmail, { to: ada.email });
  assert.equal(target(await ada.browser.open(first)), "/account");
  return (await ada.site.mailbox.next(newEmail)).link;
}

function withoutTarget(link) {
  const url = new URL(link);
  url.searchParams.delete("callbackURL");
  return url.href;
}

describe("change-email", { concurrency: 8 }, () => {
  test("the old address approves, then the new one confirms", async () => {
    const ada = await person(await site());
    const newEmail = address("countess");
    const first = await asked(ada, newEmail, { to: ada.email });
    assert.ok(first.startsWith(`${ada.site.url}/api/auth/verify-email?token=`), first);
    assert.equal(ada.site.mailbox.unread(newEmail), 0);

    assert.equal(target(await ada.browser.open(first)), "/account");
    assert.equal((await whoIs(ada.browser)).user.email, ada.email, "nothing has changed yet");
    const second = (await ada.site.mailbox.next(newEmail)).link;

    assert.equal(target(await ada.browser.open(second)), "/account");
    const { session, user } = await whoIs(ada.browser);
    assert.deepEqual([user.email, user.emailVerified, user.id], [newEmail, true, ada.user.id]);
    assert.equal(session.id, ada.session.id);
    await signIn({ ...ada, email: newEmail });
    const old = await new Browser(ada.site).client.signIn.email({ email: ada.email, password: ada.password });
    refused(old, 401, "INVALID_EMAIL_OR_PASSWORD");
  });

  test("without a callbackURL the links answer with JSON", async () => {
    const ada = await person(await site());
    const newEmail = address("countess");
    const first = await ada.browser.open(withoutTarget(await asked(ada, newEmail, { to: ada.email })));
    assert.deepEqual([first.status, (await first.json()).status], [200, true]);
    const { link } = await ada.site.mailbox.next(newEmail);
    const second = await ada.browser.open(withoutTarget(link));
    const { status, user } = await second.json();
    assert.deepEqual(
      [second.status, status, user.email, user.emailVerified, user.id],
      [200, true, newEmail, true, ada.user.id],
    );
  });

  test("other sessions of the user go on", async () => {
    const ada = await person(await site());
    const phone = await signIn(ada);
    const newEmail = address("countess");
    await ada.browser.open(await approved(ada, newEmail));
    assert.equal((await whoIs(phone)).user.email, newEmail);
  });

  test("the last link opened in a browser without a session", async () => {
    const ada = await person(await site());
    const newEmail = address("countess");
    const link = await approved(ada, newEmail);
    const elsewhere = new Browser(ada.site);
    assert.equal(target(await elsewhere.open(link)), "/account");
    assert.equal((await whoIs(ada.browser)).user.email, newEmail);
    const signedIn = ok(await elsewhere.client.getSession()) !== null;
    assert.equal(signedIn, differs("the last link of a change of address signs in a browser without a session"));
  });

  test("a link opened in another user's session is refused", async () => {
    const [ada, eve] = [await person(await site()), await person(await site())];
    const link = await asked(ada, address("countess"), { to: ada.email });
    assert.equal(target(await eve.browser.open(link)), "/account?error=INVALID_USER");
    const token = new URL(link).searchParams.get("token");
    refused(await eve.browser.client.verifyEmail({ query: { token } }), 401, "INVALID_USER", "Invalid user");
    assert.equal((await whoIs(ada.browser)).user.email, ada.email);
  });

  test("an expired link says so", async () => {
    const ada = await person(await site());
    const link = await expired(ada.site, await asked(ada, address("countess"), { to: ada.email }), ada.email);
    assert.equal(target(await ada.browser.open(link)), "/account?error=TOKEN_EXPIRED");
  });

  test("a reset link to the old address", async () => {
    const ada = await person(await site());
    ok(await new Browser(ada.site).client.requestPasswordReset({ email: ada.email, redirectTo: "/reset" }));
    const token = new URL((await ada.site.mailbox.next(ada.email)).link).pathname.split("/").at(-1);
    await ada.browser.open(await approved(ada, address("countess")));
    const { error } = await new Browser(ada.site).client.resetPassword({ newPassword: "a stolen account", token });
    assert.equal(error === null, differs("a reset link works although the address was changed"));
    if (error) assert.deepEqual([error.status, error.code], [400, "INVALID_TOKEN"]);
  });

  test("an unverified user has no old address that could approve", async () => {
    const ada = await signUp(await site("open"));
    const newEmail = address("countess");
    const link = await asked(ada, newEmail, { to: newEmail });
    await ada.browser.open(link);
    const { user } = await whoIs(ada.browser);
    assert.deepEqual([user.email, user.emailVerified], [newEmail, true]);
  });

  test("it may be set so that only the new address confirms", async () => {
    const ada = await person(await site("change-new"));
    const newEmail = address("countess");
    const link = await asked(ada, newEmail, { to: newEmail });
    assert.equal((await whoIs(ada.browser)).user.email, ada.email);
    assert.equal(target(await ada.browser.open(link)), "/account");
    assert.equal((await whoIs(ada.browser)).user.email, newEmail);
    assert.equal(ada.site.mailbox.unread(newEmail), 0);
  });

  test("the new address is lower-cased", async () => {
    const ada = await person(await site("change-new"));
    const newEmail = address("countess");
    const link = await asked(ada, newEmail.toUpperCase(), { to: newEmail });
    await ada.browser.open(link);
    assert.equal((await whoIs(ada.browser)).user.email, newEmail);
  });

  test("a used address is answered alike, and nothing happens", async () => {
    const [ada, bob] = [await person(await site()), await person(await site())];
    const answer = await ada.browser.client.changeEmail({ newEmail: bob.email, callbackURL: "/account" });
    assert.deepEqual(ok(answer), { status: true });
    await assertNoMail(ada.site, ada.email);
    assert.equal(ada.site.mailbox.unread(bob.email), 0);
  });

  test("the same address is told so", async () => {
    const ada = await person(await site());
    const result = await ada.browser.client.changeEmail({ newEmail: ada.email.toUpperCase() });
    refused(result, 400, undefined, "Email is the same");
  });

  test("what is no address is not valid", async () => {
    const ada = await person(await site());
    const { error } = await ada.browser.client.changeEmail({ newEmail: "ada" });
    assert.deepEqual([error.status, error.code], [400, "VALIDATION_ERROR"]);
    assert.match(error.message, /\[body\.newEmail\]/);
  });

  test("it may be switched off", async () => {
    const ada = await person(await site("off"));
    const result = await ada.browser.client.changeEmail({ newEmail: address() });
    refused(result, 400, "CHANGE_EMAIL_DISABLED", "Change email is disabled");
  });

  test("it needs a session", async () => {
    refused(await new Browser(await site()).client.changeEmail({ newEmail: address() }), 401, "UNAUTHORIZED");
  });

  test("a callbackURL of somewhere else is refused", async () => {
    const ada = await person(await site());
    const result = await ada.browser.client.changeEmail({ newEmail: address(), callbackURL: "//evil.test" });
    refused(result, 403, "INVALID_CALLBACK_URL");
  });
});
