import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { differs } from "../differs.mjs";
import { Browser } from "../harness/browser.mjs";
import { DAY, ageSession } from "../harness/database.mjs";
import { SESSION_COOKIE, assertSignedOut, ok, person, refused, refusedRaw, signIn, whoIs } from "../harness/people.mjs";
import { site } from "../harness/site.mjs";

const cookieOf = (token) => `${SESSION_COOKIE}_multi-${token.toLowerCase()}`;

/** One browser where these people sign in one after the other; their tokens. */
async function shared(count) {
  const here = await site();
  const browser = new Browser(here);
  const people = [];
  for (let n = 0; n < count; n += 1) {
    const one = await person(here);
    await signIn(one, { browser });
    people.push({ ...one, token: browser.answer.token });
  }
  return { browser, people, site: here };
}

const device = async ({ client }) => ok(await client.multiSession.listDeviceSessions());

describe("multi-session", { concurrency: 8 }, () => {
  test("a sign-in beside somebody else sets a cookie that is named after its token", async () => {
    const { browser, people } = await shared(2);
    const { value, attributes } = browser.last.cookies.get(cookieOf(people[1].token));
    assert.equal(value, browser.cookie(SESSION_COOKIE));
    assert.deepEqual(attributes, browser.last.cookies.get(SESSION_COOKIE).attributes);
    assert.ok(browser.cookie(cookieOf(people[0].token)), "the one before has its own");
  });

  test("the first sign-in in a browser", async () => {
    const { browser, people } = await shared(1);
    const expected = differs("a browser where one person is signed in has a companion cookie");
    assert.equal(browser.cookie(cookieOf(people[0].token)) !== undefined, expected);
    assert.deepEqual(
      (await device(browser)).map(({ session }) => session.token),
      [people[0].token],
    );
  });

  test("all who signed in on this device are listed, the last one is active", async () => {
    const { browser, people } = await shared(3);
    const sessions = await device(browser);
    assert.deepEqual(sessions.map(({ session }) => session.token).sort(), people.map(({ token }) => token).sort());
    for (const { session, user } of sessions) {
      assert.equal(session.userId, user.id);
      assert.ok(session.expiresAt instanceof Date && user.createdAt instanceof Date);
    }
    assert.equal((await whoIs(browser)).user.id, people[2].user.id);
  });

  test("on a new device nobody is listed", async () => {
    assert.deepEqual(await device(new Browser(await site())), []);
  });

  test("another one is made active", async () => {
    const { browser, people } = await shared(2);
    const answer = ok(await browser.client.multiSession.setActive({ sessionToken: people[0].token }));
    assert.deepEqual([answer.user.id, answer.session.token], [people[0].user.id, people[0].token]);
    assert.equal((await whoIs(browser)).user.id, people[0].user.id);
    assert.equal((await device(browser)).length, 2);
  });

  test("a token of another device is refused", async () => {
    const [here, there] = [await shared(1), await shared(1)];
    const result = await here.browser.client.multiSession.setActive({ sessionToken: there.people[0].token });
    refused(result, 401, "INVALID_SESSION_TOKEN", "Invalid session token");
    const revoked = await here.browser.client.multiSession.revoke({ sessionToken: there.people[0].token });
    refused(revoked, 401, "INVALID_SESSION_TOKEN");
    await whoIs(there.browser);
  });

  test("one that has expired is neither listed nor made active", async () => {
    const { browser, people, site } = await shared(2);
    const { session } = (await device(browser)).find((one) => one.session.token === people[0].token);
    await ageSession(site, session, { age: 8 * DAY, left: -DAY });
    assert.deepEqual(
      (await device(browser)).map((one) => one.session.token),
      [people[1].token],
    );
    const result = await browser.client.multiSession.setActive({ sessionToken: people[0].token });
    refused(result, 401, "INVALID_SESSION_TOKEN");
  });

  test("signing in again as the same user takes the older one's place", async () => {
    const { browser, people } = await shared(2);
    const older = browser.copy();
    await signIn(people[1], { browser });
    assert.equal(browser.cookie(cookieOf(people[1].token)), undefined);
    const tokens = (await device(browser)).map(({ session }) => session.token);
    assert.deepEqual(tokens.sort(), [people[0].token, browser.answer.token].sort());
    await assertSignedOut(older);
  });

  test("a sixth on the device is signed in, and can't be switched to", async () => {
    const { browser, people } = await shared(6);
    const { token, user } = people[5];
    assert.equal((await whoIs(browser)).user.id, user.id);
    assert.equal(browser.cookie(cookieOf(token)), undefined);
    const isListed = (await device(browser)).some(({ session }) => session.token === token);
    assert.equal(isListed, differs("who has no companion cookie is listed on the device while active"));
    ok(await browser.client.multiSession.setActive({ sessionToken: people[0].token }));
    const result = await browser.client.multiSession.setActive({ sessionToken: token });
    refused(result, 401, "INVALID_SESSION_TOKEN");
    assert.equal((await device(browser)).length, 5);
  });

  test("revoking one that is not active leaves the active one", async () => {
    const { browser, people } = await shared(2);
    const answer = ok(await browser.client.multiSession.revoke({ sessionToken: people[0].token }));
    assert.deepEqual(answer, { status: true });
    assert.equal(browser.cookie(cookieOf(people[0].token)), undefined);
    assert.equal((await whoIs(browser)).user.id, people[1].user.id);
    assert.equal((await device(browser)).length, 1);
  });

  test("revoking the active one makes another active", async () => {
    const { browser, people } = await shared(2);
    ok(await browser.client.multiSession.revoke({ sessionToken: people[1].token }));
    assert.equal((await whoIs(browser)).user.id, people[0].user.id);
  });

  test("revoking the only one signs out", async () => {
    const { browser, people } = await shared(1);
    ok(await browser.client.multiSession.revoke({ sessionToken: people[0].token }));
    assert.equal(browser.cookie(SESSION_COOKIE), undefined);
    await assertSignedOut(browser);
  });

  test("signing out ends all of the device", async () => {
    const { browser, people } = await shared(2);
    const stolen = browser.copy();
    ok(await browser.client.signOut());
    for (const { token } of people) assert.equal(browser.cookie(cookieOf(token)), undefined);
    assert.deepEqual(await device(stolen), []);
    await assertSignedOut(stolen);
  });

  test("a token must be given, and to revoke, a session", async () => {
    const { browser, site } = await shared(1);
    await refusedRaw(await browser.raw("/multi-session/set-active", { body: "{}" }), 400, "VALIDATION_ERROR");
    await refusedRaw(await browser.raw("/multi-session/revoke", { body: "{}" }), 400, "VALIDATION_ERROR");
    const stranger = new Browser(site).client;
    refused(await stranger.multiSession.revoke({ sessionToken: "unknown" }), 401, "UNAUTHORIZED");
    refused(await stranger.multiSession.setActive({ sessionToken: "unknown" }), 401, "INVALID_SESSION_TOKEN");
  });
});
