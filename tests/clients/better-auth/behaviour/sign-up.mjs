import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { differs } from "../differs.mjs";
import { Browser } from "../harness/browser.mjs";
import {
  PASSWORD,
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
  whoIs,
} from "../harness/people.mjs";
import { site } from "../harness/site.mjs";

describe("sign-up", { concurrency: 8 }, () => {
  test("a new user gets no session before the address is verified", async () => {
    const { answer, browser } = await signUp(await site());
    assert.equal(answer.token, null);
    assert.equal(browser.cookie(SESSION_COOKIE), undefined);
    await assertSignedOut(browser);
  });

  test("the answer is the new user, whole", async () => {
    const email = address();
    const { answer } = await signUp(await site(), {
      email,
      name: "Ada Lovelace",
      image: "https://images.example.test/ada.png",
    });
    const { id, createdAt, updatedAt, ...rest } = answer.user;
    assert.match(id, /^[A-Za-z0-9_-]{20,}$/);
    assert.ok(createdAt instanceof Date && updatedAt instanceof Date);
    assert.deepEqual(rest, {
      name: "Ada Lovelace",
      email,
      emailVerified: false,
      image: "https://images.example.test/ada.png",
      twoFactorEnabled: false,
      role: "user",
      banned: false,
      banReason: null,
      banExpires: null,
    });
  });

  test("the address is lower-cased", async () => {
    const email = address();
    const { answer } = await signUp(await site(), { email: email.toUpperCase() });
    assert.equal(answer.user.email, email);
  });

  test("a name may be empty", async () => {
    const { answer } = await signUp(await site(), { name: "" });
    assert.equal(answer.user.name, "");
  });

  test("names of any script come back as they were given", async () => {
    const name = "Ада Лавлейс 👩‍💻";
    const { answer } = await signUp(await site(), { name });
    assert.equal(answer.user.name, name);
  });

  test("a mail with a verification link goes to the address", async () => {
    const here = await site();
    const { email } = await signUp(here);
    const { link } = await here.mailbox.next(email);
    const url = new URL(link);
    assert.equal(url.origin + url.pathname, `${here.url}/api/auth/verify-email`);
    assert.ok(url.searchParams.get("token"));
    assert.equal(url.searchParams.get("callbackURL"), "/");
  });

  test("the link carries the callbackURL of the sign-up", async () => {
    const here = await site();
    const { email } = await signUp(here, { callbackURL: "/welcome?x=1" });
    const { link } = await here.mailbox.next(email);
    assert.equal(new URL(link).searchParams.get("callbackURL"), "/welcome?x=1");
  });

  test("a known address is answered as a new one, with an id that is nobody's", async () => {
    const here = await site();
    const known = await person(here);
    const { answer } = await signUp(here, { email: known.email, name: "Mallory" });
    assert.equal(answer.token, null);
    const { id, role, createdAt, updatedAt, ...rest } = answer.user;
    assert.notEqual(id, known.user.id);
    assert.equal(role, differs("role of the user made up for a known address"));
    assert.ok(createdAt instanceof Date && updatedAt instanceof Date);
    assert.deepEqual(rest, {
      name: "Mallory",
      email: known.email,
      emailVerified: false,
      image: null,
      twoFactorEnabled: false,
      banned: false,
      banReason: null,
      banExpires: null,
    });
  });

  test("signing up with a known address changes nothing of its user", async () => {
    const here = await site();
    const known = await person(here);
    await signUp(here, { email: known.email, name: "Mallory", password: "another good password" });
    const { user } = await whoIs(known.browser);
    assert.equal(user.name, known.name);
    await signIn(known);
    const stranger = new Browser(here).client;
    refused(
      await stranger.signIn.email({ email: known.email, password: "another good password" }),
      401,
      "INVALID_EMAIL_OR_PASSWORD",
    );
  });

  test("the owner of a known address is sent no link by which a stranger's sign-up takes over", async () => {
    const here = await site();
    const known = await person(here);
    await signUp(here, { email: known.email });
    if (differs("mails to the owner of an address that somebody signs up with") === 0) {
      await assertNoMail(here, known.email);
    } else {
      const { text } = await here.mailbox.next(known.email);
      assert.doesNotMatch(text, /verify-email/);
    }
  });

  test("without required verification a known address is refused", async () => {
    const here = await site("open");
    const known = await signUp(here);
    const again = new Browser(here).client.signUp.email({ email: known.email, name: "Bob", password: PASSWORD });
    refused(await again, 422, "USER_ALREADY_EXISTS_USE_ANOTHER_EMAIL", "User already exists. Use another email.");
  });

  test("without required verification signing up signs in", async () => {
    const { answer, browser } = await signUp(await site("open"));
    const { session, user } = await whoIs(browser);
    assert.equal(session.token, answer.token);
    assert.equal(user.id, answer.user.id);
    assert.equal(user.emailVerified, false);
  });

  test("without required verification no mail is sent", async () => {
    const ada = await signUp(await site("open"));
    await assertNoMail(ada.site, ada.email);
  });

  test("without required verification a sign-up may ask not to be remembered", async () => {
    const { browser } = await signUp(await site("open"), { rememberMe: false });
    const cookie = browser.last.cookies.get(SESSION_COOKIE);
    assert.equal(cookie.attributes["max-age"], undefined);
    assert.ok(browser.last.cookies.has("better-auth.dont_remember"));
  });

  test("a form may be posted as well", async () => {
    const here = await site();
    const email = address();
    const body = new URLSearchParams({ email, name: "Ada", password: PASSWORD }).toString();
    const response = await new Browser(here).raw("/sign-up/email", { body, type: "application/x-www-form-urlencoded" });
    assert.equal(response.status, 200);
    assert.equal((await response.json()).user.email, email);
  });

  test("a password of seven characters is too short, one of eight is not", async () => {
    const here = await site();
    const browser = new Browser(here);
    const short = browser.client.signUp.email({ email: address(), name: "Ada", password: "1234567" });
    refused(await short, 400, "PASSWORD_TOO_SHORT", "Password too short");
    await signUp(here, { password: "12345678" });
  });

  test("a password of 129 characters is too long, one of 128 is not", async () => {
    const here = await site();
    const long = new Browser(here).client.signUp.email({ email: address(), name: "Ada", password: "x".repeat(129) });
    refused(await long, 400, "PASSWORD_TOO_LONG", "Password too long");
    await signUp(here, { password: "x".repeat(128) });
  });

  test("what is no address is refused with the field's name", async () => {
    const { error } = await new Browser(await site()).client.signUp.email({
      email: "ada",
      name: "Ada",
      password: PASSWORD,
    });
    assert.deepEqual([error.status, error.code], [400, "VALIDATION_ERROR"]);
    assert.match(error.message, /\[body\.email\]/);
  });

  test("every field that is missing or mistyped is named", async () => {
    const response = await new Browser(await site()).raw("/sign-up/email", { body: '{"email":7,"password":null}' });
    const { code, message } = await response.json();
    assert.deepEqual([response.status, code], [400, "VALIDATION_ERROR"]);
    for (const field of ["name", "email", "password"]) assert.ok(message.includes(`[body.${field}]`), message);
  });

  test("an empty password is not valid", async () => {
    const result = await new Browser(await site()).client.signUp.email({ email: address(), name: "Ada", password: "" });
    refused(result, 400, "VALIDATION_ERROR");
  });

  for (const [field, value] of [
    ["role", "admin"],
    ["banReason", "x"],
    ["banExpires", "2030-01-01T00:00:00.000Z"],
  ]) {
    test(`${field} can't be chosen`, async () => {
      const fields = { email: address(), name: "Ada", password: PASSWORD, [field]: value };
      const result = await new Browser(await site()).client.signUp.email(fields);
      refused(result, 400, "FIELD_NOT_ALLOWED", `${field} is not allowed to be set`);
    });
  }

  for (const field of ["banned", "twoFactorEnabled"]) {
    test(`${field} can't be chosen`, async () => {
      const fields = { email: address(), name: "Ada", password: PASSWORD, [field]: true };
      const result = await new Browser(await site()).client.signUp.email(fields);
      if (differs("a protected flag in a sign-up is refused")) {
        refused(result, 400, "FIELD_NOT_ALLOWED", `${field} is not allowed to be set`);
      } else {
        assert.equal(ok(result).user[field], false);
      }
    });
  }

  test("fields that nobody knows are ignored", async () => {
    const { answer } = await signUp(await site(), { favouriteColour: "green", id: "mine", emailVerified: true });
    assert.notEqual(answer.user.id, "mine");
    assert.equal(answer.user.emailVerified, false);
    assert.equal(answer.user.favouriteColour, undefined);
  });

  test("it may be switched off", async () => {
    const { client } = new Browser(await site("closed"));
    const result = await client.signUp.email({ email: address(), name: "Ada", password: PASSWORD });
    refused(result, 400, "EMAIL_PASSWORD_SIGN_UP_DISABLED", "Email and password sign up is not enabled");
  });

  test("of many sign-ups with one address at once one user comes", async () => {
    const here = await site("open");
    const email = address();
    const attempts = Array.from({ length: 8 }, () =>
      new Browser(here).client.signUp.email({ email, name: "Ada", password: PASSWORD }),
    );
    const results = await Promise.all(attempts);
    assert.equal(results.filter(({ error }) => error === null).length, 1);
    for (const { error } of results.filter((result) => result.error)) assert.equal(error.status, 422);
  });

  test("a callbackURL of somewhere else is refused before anything is looked at", async () => {
    const browser = new Browser(await site());
    const body = JSON.stringify({ email: "no address", callbackURL: "https://evil.test/" });
    await refusedRaw(await browser.raw("/sign-up/email", { body }), 403, "INVALID_CALLBACK_URL", "Invalid callbackURL");
  });
});
