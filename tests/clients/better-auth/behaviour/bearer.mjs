import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Browser, bare } from "../harness/browser.mjs";
import { DAY, ageSession } from "../harness/database.mjs";
import { assertSignedOut, ok, person, refused, signIn, whoIs } from "../harness/people.mjs";
import { site } from "../harness/site.mjs";

/** Somebody's token as the header gave it, and a browser that holds no cookie and sends it. */
async function bearer() {
  const ada = await person(await site());
  const signedIn = await signIn(ada);
  const token = signedIn.last.headers.get("set-auth-token");
  return {
    ...ada,
    token,
    plain: signedIn.answer.token,
    app: new Browser(ada.site, { authorization: `Bearer ${token}` }),
  };
}

describe("bearer", { concurrency: 8 }, () => {
  test("a sign-in hands out the token with its signature, and scripts may read it", async () => {
    const { token, plain, ...ada } = await bearer();
    assert.match(token, /^[A-Za-z0-9_-]+\.[A-Za-z0-9+/]{43}=$/);
    assert.ok(token.startsWith(`${plain}.`));
    const browser = await signIn(ada);
    assert.match(browser.last.headers.get("access-control-expose-headers"), /(^|, *)set-auth-token(,|$)/i);
  });

  test("nothing is handed out where no session cookie is set, or one is cleared", async () => {
    const { browser } = await person(await site());
    ok(await browser.client.getSession());
    assert.equal(browser.last.headers.get("set-auth-token"), null);
    ok(await browser.client.signOut());
    assert.equal(browser.last.headers.get("set-auth-token"), null);
  });

  test("the token stands for the cookie", async () => {
    const { app, user } = await bearer();
    assert.equal((await whoIs(app)).user.id, user.id);
  });

  test("the client's own way of sending it works", async () => {
    const { token, user, site } = await bearer();
    const { client } = new Browser(site);
    const found = ok(await client.getSession({ fetchOptions: { auth: { type: "Bearer", token } } }));
    assert.equal(found.user.id, user.id);
  });

  test("without its signature, percent-encoded, or with another case of the scheme it is as good", async () => {
    const { token, plain, site, user } = await bearer();
    for (const authorization of [
      `Bearer ${plain}`,
      `Bearer ${encodeURIComponent(token)}`,
      `bearer ${token}`,
      `BEARER ${token}`,
    ]) {
      assert.equal((await whoIs(new Browser(site, { authorization }))).user.id, user.id, authorization.slice(0, 8));
    }
  });

  test("a bad one is as if absent", async () => {
    const { plain, site } = await bearer();
    const forged = `${plain}.${"A".repeat(43)}=`;
    for (const authorization of [
      `Bearer ${forged}`,
      "Bearer unknown",
      "Bearer",
      "Bearer a.b.c",
      `Basic ${btoa("a:b")}`,
      "Digest x",
    ]) {
      await assertSignedOut(new Browser(site, { authorization }));
    }
  });

  test("it goes before a cookie", async () => {
    const [ada, bob] = [await bearer(), await person(await site())];
    const browser = bob.browser.copy({ authorization: `Bearer ${ada.token}` });
    assert.equal((await whoIs(browser)).user.id, ada.user.id);
  });

  test("a bad one leaves the cookie in force", async () => {
    const [ada, bob] = [await bearer(), await person(await site())];
    const browser = bob.browser.copy({ authorization: `Bearer ${ada.plain}.${"A".repeat(43)}=` });
    assert.equal((await whoIs(browser)).user.id, bob.user.id);
  });

  test("a program without cookies need not say an origin", async () => {
    const { token, site, user } = await bearer();
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
    const body = JSON.stringify({ name: "Countess" });
    assert.equal((await bare(site, "POST", "/update-user", { headers, body })).status, 200);
    const { json } = await bare(site, "GET", "/get-session", { headers });
    assert.deepEqual([json().user.id, json().user.name], [user.id, "Countess"]);
  });

  test("signing out by it ends the session", async () => {
    const { app, token, site } = await bearer();
    ok(await app.client.signOut());
    await assertSignedOut(new Browser(site, { authorization: `Bearer ${token}` }));
  });

  test("an extended session hands its token out again", async () => {
    const { app, token, site } = await bearer();
    const { session } = await whoIs(app);
    await ageSession(site, session, { age: 2 * DAY, left: 5 * DAY });
    await whoIs(app);
    assert.equal(app.last.headers.get("set-auth-token"), token);
  });

  test("endpoints that need a session take it", async () => {
    const { app, site } = await bearer();
    assert.equal(ok(await app.client.listSessions()).length, 2);
    ok(await app.client.revokeOtherSessions());
    refused(await new Browser(site, { authorization: "Bearer unknown" }).client.listSessions(), 401, "UNAUTHORIZED");
  });
});
