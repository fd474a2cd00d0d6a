import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Browser } from "../harness/browser.mjs";
import { PASSWORD, address, ok, person, refused, signUp } from "../harness/people.mjs";
import { site } from "../harness/site.mjs";

let next = 1;

/** A browser at an address that no other test has. */
async function visitor(ip = `192.0.2.${(next += 1)}`) {
  return new Browser(await site("limits"), { "x-forwarded-for": ip });
}

/** The statuses of so many calls, one after the other. */
async function statuses(count, call) {
  const seen = [];
  for (let n = 0; n < count; n += 1) {
    const { error } = await call(n);
    seen.push(error?.status ?? 200);
  }
  return seen;
}

/** How many of so many parallel requests were refused. */
async function refusals(browser, path, count) {
  const answers = await Promise.all(Array.from({ length: count }, () => browser.raw(path)));
  return answers.filter(({ status }) => status === 429).length;
}

const guess = (browser) => browser.client.signIn.email({ email: address("nobody"), password: PASSWORD });

/** The last answer must be the contract's. */
function assertLimited(browser, { atMost }) {
  assert.equal(browser.last.status, 429);
  const seconds = browser.last.headers.get("x-retry-after");
  assert.match(seconds, /^\d+$/);
  assert.ok(Number(seconds) >= 1 && Number(seconds) <= atMost, seconds);
}

describe("rate limits", { concurrency: 8 }, () => {
  test("the fourth sign-in within ten seconds is refused", async () => {
    const browser = await visitor();
    assert.deepEqual(await statuses(3, () => guess(browser)), [401, 401, 401]);
    const result = await guess(browser);
    refused(result, 429, undefined, "Too many requests. Please try again later.");
    assertLimited(browser, { atMost: 10 });
  });

  test("so is the right password", async () => {
    const ada = await signUp(await site("limits"), { browser: await visitor() });
    const { link } = await ada.site.mailbox.next(ada.email);
    await ada.browser.open(link);
    const browser = await visitor();
    await statuses(3, () => guess(browser));
    refused(await browser.client.signIn.email({ email: ada.email, password: ada.password }), 429, undefined);
  });

  test("another address is not held up", async () => {
    const [one, other] = [await visitor(), await visitor()];
    await statuses(4, () => guess(one));
    assert.deepEqual(await statuses(1, () => guess(other)), [401]);
  });

  test("another path is not held up", async () => {
    const browser = await visitor();
    await statuses(4, () => guess(browser));
    assert.equal(browser.last.status, 429);
    ok(await browser.client.getSession());
    ok(await browser.client.signUp.email({ email: address(), name: "Ada", password: PASSWORD }));
  });

  test("IPv6 addresses of one network count as one", async () => {
    const network = `2001:db8:0:${(next += 1).toString(16)}`;
    for (const host of ["1", "2", "ffff:1"]) {
      assert.deepEqual(await statuses(1, async () => guess(await visitor(`${network}::${host}`))), [401]);
    }
    const fourth = await visitor(`${network}:a:b:c:d`);
    assert.deepEqual(await statuses(1, () => guess(fourth)), [429]);
    const elsewhere = await visitor(`2001:db8:1:${next.toString(16)}::1`);
    assert.deepEqual(await statuses(1, () => guess(elsewhere)), [401]);
  });

  test("when the time that was said is over it goes on", async () => {
    const browser = await visitor();
    await statuses(4, () => guess(browser));
    const again = Date.now() + Number(browser.last.headers.get("x-retry-after")) * 1000;
    while (browser.last.status === 429) {
      assert.ok(Date.now() < again + 5_000, "still refused");
      await new Promise((resolve) => setTimeout(resolve, 200));
      await guess(browser);
    }
    // It may not open much earlier than it said; whole seconds are rounded up.
    assert.ok(Date.now() > again - 1_500);
  });

  test("sign-ups: three within ten seconds", async () => {
    const browser = await visitor();
    const signUp = () => browser.client.signUp.email({ email: address(), name: "Ada", password: PASSWORD });
    assert.deepEqual(await statuses(4, signUp), [200, 200, 200, 429]);
    assertLimited(browser, { atMost: 10 });
  });

  test("mails of a reset: three within a minute", async () => {
    const browser = await visitor();
    const ask = () => browser.client.requestPasswordReset({ email: address("nobody") });
    assert.deepEqual(await statuses(4, ask), [200, 200, 200, 429]);
    assertLimited(browser, { atMost: 60 });
  });

  test("mails of a verification: three within a minute", async () => {
    const browser = await visitor();
    const ask = () => browser.client.sendVerificationEmail({ email: address("nobody") });
    assert.deepEqual(await statuses(4, ask), [200, 200, 200, 429]);
    assertLimited(browser, { atMost: 60 });
  });

  test("changes of the password: three within ten seconds, also without a session", async () => {
    const browser = await visitor();
    const change = () => browser.client.changePassword({ currentPassword: PASSWORD, newPassword: PASSWORD });
    assert.deepEqual(await statuses(4, change), [401, 401, 401, 429]);
  });

  test("changes of the address: three within ten seconds", async () => {
    const browser = await visitor();
    const change = () => browser.client.changeEmail({ newEmail: address() });
    assert.deepEqual(await statuses(4, change), [401, 401, 401, 429]);
  });

  test("everything else: a hundred within ten seconds", async () => {
    assert.equal(await refusals(await visitor(), "/get-session", 105), 5);
  });

  test("probes", async () => {
    const refused = await refusals(await visitor(), "/ok", 105);
    assert.equal(refused, 5);
  });

  test("the limit is looked at before the body", async () => {
    const browser = await visitor();
    const broken = () => browser.raw("/sign-in/email", { body: "{" });
    for (const status of [400, 400, 400, 429]) assert.equal((await broken()).status, status);
  });

  test("somebody who is signed in is limited no less", async () => {
    const ip = `192.0.2.${(next += 1)}`;
    const ada = await person(await site("limits"), { browser: await visitor(ip) });
    const change = () => ada.browser.client.changePassword({ currentPassword: "not hers", newPassword: PASSWORD });
    assert.deepEqual(await statuses(4, change), [400, 400, 400, 429]);
  });
});
