import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { differs } from "../differs.mjs";
import { Browser } from "../harness/browser.mjs";
import { DAY, ageSession, liveSessions } from "../harness/database.mjs";
import {
  MARK_COOKIE,
  SESSION_COOKIE,
  assertSignedOut,
  ok,
  person,
  refused,
  refusedRaw,
  signIn,
  whoIs,
} from "../harness/people.mjs";
import { site } from "../harness/site.mjs";

const HOUR = DAY / 24;

describe("get-session", { concurrency: 8 }, () => {
  test("it is null without a session, with status 200 and no cookie", async () => {
    const browser = new Browser(await site());
    await assertSignedOut(browser);
    assert.equal(browser.last.status, 200);
    assert.equal(browser.last.cookies.size, 0);
  });

  test("session and user have every field of the contract", async () => {
    const ada = await person(await site());
    const { session, user } = await whoIs(ada.browser);
    assert.deepEqual(Object.keys(session).sort(), [
      "createdAt",
      "expiresAt",
      "id",
      "impersonatedBy",
      "ipAddress",
      "token",
      "updatedAt",
      "userAgent",
      "userId",
    ]);
    assert.deepEqual(Object.keys(user).sort(), [
      "banExpires",
      "banReason",
      "banned",
      "createdAt",
      "email",
      "emailVerified",
      "id",
      "image",
      "name",
      "role",
      "twoFactorEnabled",
      "updatedAt",
    ]);
    assert.equal(session.userId, user.id);
    assert.equal(session.impersonatedBy, null);
    assert.deepEqual(
      [user.image, user.banReason, user.banExpires, user.banned, user.twoFactorEnabled],
      [null, null, null, false, false],
    );
  });

  test("dates arrive as dates, with milliseconds", async () => {
    const ada = await person(await site());
    const { session, user } = await whoIs(ada.browser);
    for (const date of [session.createdAt, session.updatedAt, session.expiresAt, user.createdAt, user.updatedAt]) {
      assert.ok(date instanceof Date && !Number.isNaN(date.getTime()));
    }
    assert.ok(Math.abs(Date.now() - session.createdAt) < 60_000);
    const text = await (await ada.browser.raw("/get-session")).text();
    const dates = text.match(/"\d{4}-[^"]*"/g);
    assert.equal(dates.length, 5);
    for (const date of dates) assert.match(date, /^"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"$/);
  });

  test("no cache may keep the answer", async () => {
    const ada = await person(await site());
    for (const browser of [ada.browser, new Browser(ada.site)]) {
      ok(await browser.client.getSession());
      assert.match(browser.last.headers.get("cache-control"), /no-store/);
      assert.equal(browser.last.headers.get("pragma"), "no-cache");
    }
  });

  test("a young session is left as it is", async () => {
    const ada = await person(await site());
    const { session } = await whoIs(ada.browser);
    assert.deepEqual(session.expiresAt, ada.session.expiresAt);
    assert.ok(!ada.browser.last.cookies.has(SESSION_COOKIE));
  });

  test("a session of more than a day is extended at its use", async () => {
    const ada = await person(await site());
    await ageSession(ada.site, ada.session, { age: 2 * DAY, left: 5 * DAY });
    const { session } = await whoIs(ada.browser);
    assert.ok(Math.abs(session.expiresAt - Date.now() - 7 * DAY) < HOUR);
    assert.equal(session.token, ada.session.token);
    assert.ok(Math.abs(Date.now() - session.createdAt - 2 * DAY) < HOUR, "createdAt stays");
    assert.ok(session.updatedAt >= ada.session.updatedAt);
    const cookie = ada.browser.last.cookies.get(SESSION_COOKIE);
    assert.equal(cookie.attributes["max-age"], String((7 * DAY) / 1000));
  });

  test("any other endpoint extends it as well", async () => {
    const ada = await person(await site());
    await ageSession(ada.site, ada.session, { age: 2 * DAY, left: 5 * DAY });
    ok(await ada.browser.client.listAccounts());
    assert.equal(ada.browser.last.cookies.get(SESSION_COOKIE).attributes["max-age"], String((7 * DAY) / 1000));
    const { session } = await whoIs(ada.browser);
    assert.ok(session.expiresAt - Date.now() > 6 * DAY);
  });

  test("disableRefresh leaves it", async () => {
    const ada = await person(await site());
    await ageSession(ada.site, ada.session, { age: 2 * DAY, left: 5 * DAY });
    const { session } = ok(await ada.browser.client.getSession({ query: { disableRefresh: true } }));
    assert.ok(session.expiresAt - Date.now() < 5 * DAY + HOUR);
    assert.ok(!ada.browser.last.cookies.has(SESSION_COOKIE));
  });

  test("disableCookieCache is understood", async () => {
    const ada = await person(await site());
    const { user } = ok(await ada.browser.client.getSession({ query: { disableCookieCache: true } }));
    assert.equal(user.id, ada.user.id);
  });

  test("a session that is not remembered is never extended", async () => {
    const browser = await signIn(await person(await site()), { rememberMe: false });
    const { session } = await whoIs(browser);
    const here = browser.answer.user;
    await ageSession(await site(), session, { age: 23 * HOUR, left: HOUR });
    const after = await whoIs(browser);
    assert.equal(after.user.id, here.id);
    assert.ok(after.session.expiresAt - Date.now() < 2 * HOUR);
    assert.ok(!browser.last.cookies.has(SESSION_COOKIE));
  });

  test("parallel uses of a session that is due are all answered, and it stays one", async () => {
    const ada = await person(await site());
    await ageSession(ada.site, ada.session, { age: 2 * DAY, left: 5 * DAY });
    const answers = await Promise.all(Array.from({ length: 12 }, () => ada.browser.client.getSession()));
    for (const answer of answers) assert.equal(ok(answer).session.id, ada.session.id);
    assert.equal(await liveSessions(ada.site, ada.user.id), 1);
  });

  test("an expired session is none, and its cookies are cleared", async () => {
    const browser = await signIn(await person(await site()), { rememberMe: false });
    const { session } = await whoIs(browser);
    await ageSession(await site(), session, { age: 2 * DAY, left: -HOUR });
    await assertSignedOut(browser);
    for (const name of [SESSION_COOKIE, MARK_COOKIE])
      assert.equal(browser.last.cookies.get(name).attributes["max-age"], "0");
  });

  test("a cookie with a forged signature is none", async () => {
    const ada = await person(await site());
    const thief = new Browser(ada.site);
    const signed = decodeURIComponent(ada.browser.cookie(SESSION_COOKIE));
    const [token] = signed.split(".");
    for (const value of [token, `${token}.${"A".repeat(43)}=`, `x${signed}`, `${token}.`, "a", ""]) {
      thief.setCookie(SESSION_COOKIE, encodeURIComponent(value));
      await assertSignedOut(thief);
    }
  });

  test("what the client shows to components follows it", async () => {
    const ada = await person(await site());
    const shown = ada.browser.client.useSession;
    await shown.get().refetch();
    assert.equal(shown.get().data.user.email, ada.email);
    await new Browser(ada.site, { authorization: `Bearer ${ada.session.token}` }).client.signOut();
    await shown.get().refetch();
    assert.deepEqual([shown.get().data, shown.get().error], [null, null]);
  });

  test("POST is not its method", async () => {
    const ada = await person(await site());
    const response = await ada.browser.raw("/get-session", { body: "{}" });
    await refusedRaw(
      response,
      405,
      "METHOD_NOT_ALLOWED_DEFER_SESSION_REQUIRED",
      "POST method requires deferSessionRefresh to be enabled in session config",
    );
  });
});

describe("list-sessions", { concurrency: 8 }, () => {
  test("all live sessions of the user are listed, and nobody else's", async () => {
    const ada = await person(await site());
    const phone = await signIn(ada, { browser: new Browser(ada.site, { "user-agent": "a phone" }) });
    await person(ada.site);
    const sessions = ok(await phone.client.listSessions());
    const { session } = await whoIs(phone);
    assert.deepEqual(sessions.map(({ id }) => id).sort(), [ada.session.id, session.id].sort());
    const fields = [...Object.keys(session), ...differs("what list-sessions tells besides the session")];
    for (const listed of sessions) {
      assert.deepEqual(Object.keys(listed).sort(), fields.sort());
      assert.equal(listed.userId, ada.user.id);
      assert.ok(listed.expiresAt instanceof Date);
    }
    assert.equal(sessions.find(({ id }) => id === session.id).userAgent, "a phone");
  });

  test("the caller's own session shows its token; another's", async () => {
    const ada = await person(await site());
    const phone = await signIn(ada);
    const sessions = ok(await phone.client.listSessions());
    const own = sessions.find(({ token }) => token === phone.answer.token);
    assert.ok(own);
    const other = sessions.find(({ id }) => id === ada.session.id);
    const isToken = other.token === ada.session.token;
    assert.equal(isToken ? "token" : "handle", differs("another session's token in list-sessions"));
    if (!isToken) {
      const thief = new Browser(ada.site, { authorization: `Bearer ${other.token}` });
      await assertSignedOut(thief);
    }
  });

  test("expired ones are not listed", async () => {
    const ada = await person(await site());
    const phone = await signIn(ada);
    await ageSession(ada.site, ada.session, { age: 8 * DAY, left: -HOUR });
    const sessions = ok(await phone.client.listSessions());
    assert.deepEqual(
      sessions.map(({ token }) => token),
      [phone.answer.token],
    );
  });

  test("it needs a session", async () => {
    refused(await new Browser(await site()).client.listSessions(), 401, "UNAUTHORIZED", "Unauthorized");
  });

  test("it needs a fresh one", async () => {
    const ada = await person(await site());
    await ageSession(ada.site, ada.session, { age: DAY + HOUR, left: 6 * DAY });
    refused(await ada.browser.client.listSessions(), 403, "SESSION_NOT_FRESH", "Session is not fresh");
  });
});

describe("revoke-session", { concurrency: 8 }, () => {
  test("a session from the list is ended by its token", async () => {
    const ada = await person(await site());
    const phone = await signIn(ada);
    const other = ok(await phone.client.listSessions()).find(({ id }) => id === ada.session.id);
    assert.deepEqual(ok(await phone.client.revokeSession({ token: other.token })), { status: true });
    await assertSignedOut(ada.browser);
    await whoIs(phone);
  });

  test("the real token is taken as well", async () => {
    const ada = await person(await site());
    const phone = await signIn(ada);
    ok(await phone.client.revokeSession({ token: ada.session.token }));
    await assertSignedOut(ada.browser);
  });

  test("the caller's own may be ended", async () => {
    const ada = await person(await site());
    ok(await ada.browser.client.revokeSession({ token: ada.session.token }));
    await assertSignedOut(ada.browser);
  });

  test("somebody else's is left alone, without a word", async () => {
    const [ada, eve] = [await person(await site()), await person(await site())];
    assert.deepEqual(ok(await eve.browser.client.revokeSession({ token: ada.session.token })), { status: true });
    await whoIs(ada.browser);
  });

  test("an unknown token is answered like any other", async () => {
    const ada = await person(await site());
    assert.deepEqual(ok(await ada.browser.client.revokeSession({ token: "unknown" })), { status: true });
    await whoIs(ada.browser);
  });

  test("a token must be given", async () => {
    const ada = await person(await site());
    await refusedRaw(await ada.browser.raw("/revoke-session", { body: "{}" }), 400, "VALIDATION_ERROR");
  });

  test("it needs a session", async () => {
    refused(await new Browser(await site()).client.revokeSession({ token: "x" }), 401, "UNAUTHORIZED");
  });
});

describe("revoke-other-sessions and revoke-sessions", { concurrency: 8 }, () => {
  test("the others end, the caller's stays", async () => {
    const ada = await person(await site());
    const [phone, tablet] = [await signIn(ada), await signIn(ada)];
    assert.deepEqual(ok(await phone.client.revokeOtherSessions()), { status: true });
    await whoIs(phone);
    for (const browser of [ada.browser, tablet]) await assertSignedOut(browser);
    assert.equal(ok(await phone.client.listSessions()).length, 1);
  });

  test("all end, the caller's too", async () => {
    const ada = await person(await site());
    const phone = await signIn(ada);
    assert.deepEqual(ok(await phone.client.revokeSessions()), { status: true });
    for (const browser of [ada.browser, phone]) await assertSignedOut(browser);
  });

  test("other people's sessions go on", async () => {
    const [ada, bob] = [await person(await site()), await person(await site())];
    ok(await ada.browser.client.revokeSessions());
    await whoIs(bob.browser);
  });

  test("they need a session", async () => {
    const { client } = new Browser(await site());
    refused(await client.revokeOtherSessions(), 401, "UNAUTHORIZED");
    refused(await client.revokeSessions(), 401, "UNAUTHORIZED");
  });
});

describe("update-session", { concurrency: 8 }, () => {
  test("there is nothing to update", async () => {
    const ada = await person(await site());
    const result = await ada.browser.client.updateSession({ theme: "dark" });
    refused(result, 400, undefined, "No fields to update");
  });

  test("its own fields can't be set", async () => {
    const ada = await person(await site());
    const { error } = await ada.browser.client.updateSession({
      userId: "another",
      expiresAt: "2099-01-01T00:00:00.000Z",
    });
    assert.equal(error.status, 400);
    const { session } = await whoIs(ada.browser);
    assert.equal(session.userId, ada.user.id);
    assert.deepEqual(session.expiresAt, ada.session.expiresAt);
  });

  test("it needs a session", async () => {
    refused(await new Browser(await site()).client.updateSession({ theme: "dark" }), 401, "UNAUTHORIZED");
  });
});
