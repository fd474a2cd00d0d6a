import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { differs } from "../differs.mjs";
import { Browser } from "../harness/browser.mjs";
import { removePassword } from "../harness/database.mjs";
import { PASSWORD, address, ok, person, refused, signIn, whoIs } from "../harness/people.mjs";
import { site } from "../harness/site.mjs";

const SERVED = differs("endpoints beyond the contract are served");

/** What the client was given by an endpoint that only one target has; the other has nothing there. */
function given(result) {
  if (!SERVED) assert.equal(result.error?.status, 404);
  return SERVED ? ok(result) : undefined;
}

describe("what the gateway adds", { concurrency: 8 }, () => {
  test("signup and signin are sign-up and sign-in", async () => {
    const here = await site();
    const [email, browser] = [address(), new Browser(here)];
    const signedUp = given(await browser.client.signup({ email, name: "Ada", password: PASSWORD }));
    if (SERVED) {
      assert.deepEqual([signedUp.token, signedUp.user.email], [null, email]);
      await browser.open((await here.mailbox.next(email)).link);
    }
    const elsewhere = new Browser(here);
    const signedIn = given(await elsewhere.client.signin({ email, password: PASSWORD }));
    if (SERVED) assert.equal((await whoIs(elsewhere)).session.token, signedIn.token);
  });

  test("me is who is signed in, and 401 if nobody is", async () => {
    const ada = await person(await site());
    const me = given(await ada.browser.client.me());
    if (!SERVED) return;
    assert.deepEqual(me, await whoIs(ada.browser));
    refused(await new Browser(ada.site).client.me(), 401, "UNAUTHORIZED");
  });

  test("verify-token says whose token it is, and 401 if nobody's", async () => {
    const ada = await person(await site());
    const service = new Browser(ada.site, { authorization: `Bearer ${ada.session.token}` });
    const found = given(await service.client.verifyToken());
    if (!SERVED) return;
    const { expiresAt, id } = ada.session;
    assert.deepEqual(found, { userId: ada.user.id, sessionId: id, expiresAt });
    const stranger = new Browser(ada.site, { authorization: "Bearer unknown" });
    refused(await stranger.client.verifyToken(), 401, "UNAUTHORIZED");
  });

  test("who has no password may set one, who has one may not", async () => {
    const ada = await person(await site());
    const newPassword = "an entirely new password";
    const again = await ada.browser.client.setPassword({ newPassword });
    if (!SERVED) return given(again);
    refused(again, 400, "PASSWORD_ALREADY_SET");
    await removePassword(ada.site, ada.user.id);
    refused(await ada.browser.client.setPassword({ newPassword: "short" }), 400, "PASSWORD_TOO_SHORT");
    assert.deepEqual(ok(await ada.browser.client.setPassword({ newPassword })), { status: true });
    await signIn({ ...ada, password: newPassword });
    refused(await new Browser(ada.site).client.setPassword({ newPassword }), 401, "UNAUTHORIZED");
  });

  test("forget-password is what clients up to 1.3 call", async () => {
    const ada = await person(await site());
    const answer = given(await new Browser(ada.site).client.forgetPassword({ email: ada.email, redirectTo: "/reset" }));
    if (!SERVED) return;
    assert.equal(answer.status, true);
    assert.match((await ada.site.mailbox.next(ada.email)).link, /\/reset-password\//);
  });
});
