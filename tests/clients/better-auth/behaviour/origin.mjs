import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { bare, Browser } from "../harness/browser.mjs";
import { PASSWORD, address, ok, person, refusedRaw, whoIs } from "../harness/people.mjs";
import { site } from "../harness/site.mjs";

const JSON_TYPE = { "content-type": "application/json" };

/** A change with somebody's cookie and these headers, as any program may send them. */
async function change(headers) {
  const ada = await person(await site());
  const name = "Countess";
  const all = { ...JSON_TYPE, cookie: ada.browser.cookieHeader(), ...headers(ada.site.url) };
  const answer = await bare(ada.site, "POST", "/update-user", { headers: all, body: JSON.stringify({ name }) });
  const changed = (await whoIs(ada.browser)).user.name === name;
  assert.equal(changed, answer.status === 200);
  return answer;
}

/** A sign-in without a cookie and with these headers. */
async function login(headers) {
  const ada = await person(await site());
  const body = JSON.stringify({ email: ada.email, password: ada.password });
  return bare(ada.site, "POST", "/sign-in/email", { headers: { ...JSON_TYPE, ...headers(ada.site.url) }, body });
}

function assertRefused({ status, json }, code, message) {
  assert.deepEqual([status, json().code], [403, code]);
  if (message) assert.equal(json().message, message);
}

describe("where a change with a cookie may come from", { concurrency: 8 }, () => {
  const passes = {
    "the public origin": (url) => ({ origin: url }),
    "the public origin, by Referer": (url) => ({ referer: `${url}/account?x=1` }),
    "an origin that is trusted by a pattern": () => ({ origin: "https://app.trusted.test" }),
    "an app's own scheme": () => ({ origin: "suite-app://" }),
    "a sandboxed page of the same origin": () => ({ origin: "null", "sec-fetch-site": "same-origin" }),
  };
  for (const [where, headers] of Object.entries(passes)) {
    test(`${where} passes`, async () => assert.equal((await change(headers)).status, 200));
  }

  const refusals = {
    nowhere: [() => ({}), "MISSING_OR_NULL_ORIGIN"],
    "the null origin": [() => ({ origin: "null" }), "MISSING_OR_NULL_ORIGIN"],
    "another site": [() => ({ origin: "https://evil.test" }), "INVALID_ORIGIN"],
    "another site, by Referer": [() => ({ referer: "https://evil.test/x" }), "INVALID_ORIGIN"],
    "another port": [() => ({ origin: "http://localhost:1" }), "INVALID_ORIGIN"],
    "another scheme": [(url) => ({ origin: url.replace("http:", "https:") }), "INVALID_ORIGIN"],
    "a host that begins alike": [(url) => ({ origin: `${url}.evil.test` }), "INVALID_ORIGIN"],
    "the parent of a pattern": [() => ({ origin: "https://trusted.test" }), "INVALID_ORIGIN"],
    "a pattern's host over http": [() => ({ origin: "http://app.trusted.test" }), "INVALID_ORIGIN"],
  };
  for (const [where, [headers, code]] of Object.entries(refusals)) {
    test(`${where} is refused`, async () => {
      const message = code === "INVALID_ORIGIN" ? "Invalid origin" : "Missing or null Origin";
      assertRefused(await change(headers), code, message);
    });
  }

  test("a cookie of whatever name counts", async () => {
    const headers = { ...JSON_TYPE, cookie: "theme=dark", origin: "https://evil.test" };
    assertRefused(await bare(await site(), "POST", "/sign-out", { headers, body: "{}" }), "INVALID_ORIGIN");
  });

  test("reading needs no origin", async () => {
    const ada = await person(await site());
    const headers = { cookie: ada.browser.cookieHeader(), origin: "https://evil.test" };
    const { status, json } = await bare(ada.site, "GET", "/get-session", { headers });
    assert.deepEqual([status, json().user.id], [200, ada.user.id]);
  });

  test("without a cookie only sign-in and sign-up ask where from", async () => {
    const headers = { ...JSON_TYPE, origin: "https://evil.test" };
    const body = JSON.stringify({ email: address("nobody") });
    assert.equal((await bare(await site(), "POST", "/request-password-reset", { headers, body })).status, 200);
  });
});

describe("where a sign-in without a cookie may come from", { concurrency: 8 }, () => {
  test("a program that is no browser passes", async () => assert.equal((await login(() => ({}))).status, 200));

  test("the public origin passes", async () => {
    assert.equal((await login((url) => ({ origin: url, "sec-fetch-site": "same-origin" }))).status, 200);
  });

  test("another site is refused", async () => {
    assertRefused(await login(() => ({ origin: "https://evil.test" })), "INVALID_ORIGIN");
  });

  test("a form on another site is refused", async () => {
    const headers = () => ({
      "sec-fetch-site": "cross-site",
      "sec-fetch-mode": "navigate",
      "sec-fetch-dest": "document",
    });
    assertRefused(
      await login(headers),
      "CROSS_SITE_NAVIGATION_LOGIN_BLOCKED",
      "Cross-site navigation login blocked. This request appears to be a CSRF attack.",
    );
  });

  test("Node's fetch, which says how but not where from, is refused", async () => {
    assertRefused(await login(() => ({ "sec-fetch-mode": "cors" })), "MISSING_OR_NULL_ORIGIN");
  });

  test("sign-up is guarded alike", async () => {
    const headers = { ...JSON_TYPE, origin: "https://evil.test" };
    const body = JSON.stringify({ email: address(), name: "Ada", password: PASSWORD });
    assertRefused(await bare(await site(), "POST", "/sign-up/email", { headers, body }), "INVALID_ORIGIN");
  });
});

describe("where links and answers may lead", { concurrency: 8 }, () => {
  const allowed = [
    "/",
    "/dash",
    "/dash?next=%2Fa",
    "/a%20b",
    "/w?a=1#top",
    "https://app.trusted.test/x",
    "suite-app://open",
  ];
  for (const callbackURL of allowed) {
    test(`${callbackURL} is allowed`, async () => {
      const ada = await person(await site());
      const answer = ok(
        await new Browser(ada.site).client.signIn.email({ email: ada.email, password: ada.password, callbackURL }),
      );
      assert.equal(answer.url, callbackURL);
    });
  }

  test("an absolute URL of the public origin is allowed", async () => {
    const ada = await person(await site());
    const callbackURL = `${ada.site.url}/dash`;
    assert.equal(
      ok(await new Browser(ada.site).client.signIn.email({ email: ada.email, password: ada.password, callbackURL }))
        .url,
      callbackURL,
    );
  });

  const refused = [
    "https://evil.test/",
    "//evil.test",
    "/\\evil.test",
    "/%2fevil.test",
    "/%5cevil.test",
    "javascript:alert(1)",
    "evil",
    "data:text/html,x",
    "https://trusted.test.evil.test/",
    "https://app.trusted.test@evil.test/",
    "other-app://open",
  ];
  for (const callbackURL of refused) {
    test(`${callbackURL} is refused`, async () => {
      const body = JSON.stringify({ email: address(), password: PASSWORD, callbackURL });
      await refusedRaw(
        await new Browser(await site()).raw("/sign-in/email", { body }),
        403,
        "INVALID_CALLBACK_URL",
        "Invalid callbackURL",
      );
    });
  }

  const fields = {
    redirectTo: ["INVALID_REDIRECT_URL", "Invalid redirectURL"],
    errorCallbackURL: ["INVALID_ERROR_CALLBACK_URL", "Invalid errorCallbackURL"],
    newUserCallbackURL: ["INVALID_NEW_USER_CALLBACK_URL", "Invalid newUserCallbackURL"],
  };
  for (const [field, [code, message]] of Object.entries(fields)) {
    test(`${field} is checked wherever it stands`, async () => {
      const body = JSON.stringify({ email: address(), password: PASSWORD, [field]: "https://evil.test/" });
      await refusedRaw(await new Browser(await site()).raw("/sign-in/email", { body }), 403, code, message);
    });
  }

  test("a callbackURL that is no string is told so", async () => {
    const body = JSON.stringify({ email: address(), password: PASSWORD, callbackURL: 7 });
    const response = await new Browser(await site()).raw("/sign-in/email", { body });
    await refusedRaw(response, 400, undefined, "Invalid callbackURL: expected a string");
  });
});
