import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { differs } from "../differs.mjs";
import { Browser, bare } from "../harness/browser.mjs";
import { ok, person, refusedRaw } from "../harness/people.mjs";
import { site } from "../harness/site.mjs";

describe("requests of any kind", { concurrency: 8 }, () => {
  test("ok says so", async () => {
    assert.deepEqual(ok(await new Browser(await site()).client.ok()), { ok: true });
  });

  test("unknown paths, other methods and a final slash are 404 with an empty body", async () => {
    const here = await site();
    const wrong = [
      ["GET", "/no-such-thing"],
      ["POST", "/ok"],
      ["GET", "/sign-in/email"],
      ["DELETE", "/list-sessions"],
      ["GET", "/ok/"],
      ["PUT", "/update-user"],
    ];
    for (const [method, path] of wrong) {
      const { status, text } = await bare(here, method, path);
      assert.deepEqual([status, text], [404, ""], `${method} ${path}`);
    }
  });

  test("the client is told of a 404 as an error", async () => {
    const { data, error } = await new Browser(await site()).client.noSuchThing();
    assert.deepEqual([data, error.status], [null, 404]);
  });

  test("JSON is answered as JSON", async () => {
    const response = await new Browser(await site()).raw("/ok");
    assert.match(response.headers.get("content-type"), /^application\/json/);
  });

  test("a preflight of a trusted origin", async () => {
    const headers = {
      origin: "https://app.trusted.test",
      "access-control-request-method": "POST",
      "access-control-request-headers": "content-type",
    };
    const answer = await bare(await site(), "OPTIONS", "/sign-in/email", { headers });
    assert.equal(answer.status < 300, differs("preflights of trusted origins are answered"));
    if (answer.status >= 300) return;
    assert.equal(answer.headers["access-control-allow-origin"], "https://app.trusted.test");
    assert.equal(answer.headers["access-control-allow-credentials"], "true");
    const foreign = await bare(await site(), "OPTIONS", "/sign-in/email", {
      headers: { ...headers, origin: "https://evil.test" },
    });
    assert.equal(foreign.headers["access-control-allow-origin"], undefined);
  });

  test("broken JSON is told so", async () => {
    for (const body of ["{", "{'a': 1}", "{} trailing"]) {
      const response = await new Browser(await site()).raw("/sign-in/email", { body });
      await refusedRaw(response, 400, "BAD_REQUEST", "Invalid JSON in request body");
    }
  });

  test("another type of body is not taken", async () => {
    const response = await new Browser(await site()).raw("/sign-in/email", { body: "email=x", type: "text/plain" });
    const { code, message } = await response.json();
    assert.deepEqual([response.status, code], [415, "UNSUPPORTED_MEDIA_TYPE"]);
    assert.match(message, /^Content-Type "text\/plain" is not allowed\. Allowed types: /);
  });

  test("a form is taken by sign-in and sign-up alone", async () => {
    const ada = await person(await site());
    const response = await ada.browser.raw("/update-user", {
      body: "name=x",
      type: "application/x-www-form-urlencoded",
    });
    await refusedRaw(response, 415, "UNSUPPORTED_MEDIA_TYPE");
  });

  test("a charset after the type is no matter", async () => {
    const ada = await person(await site());
    const response = await ada.browser.raw("/update-user", {
      body: '{"name":"Countess"}',
      type: "application/json; charset=utf-8",
    });
    assert.equal(response.status, 200);
  });

  test("a bad body is told before a missing session", async () => {
    await refusedRaw(await new Browser(await site()).raw("/change-password", { body: "{" }), 400, "BAD_REQUEST");
    await refusedRaw(await new Browser(await site()).raw("/change-password", { body: "{}" }), 400, "VALIDATION_ERROR");
  });

  test("errors are what the client expects", async () => {
    const response = await new Browser(await site()).raw("/list-sessions");
    const body = await response.json();
    const expected = ["code", "message", ...(differs("errors name the request") ? ["requestId"] : [])];
    assert.deepEqual(Object.keys(body).sort(), expected);
    const { error } = await new Browser(await site()).client.listSessions();
    assert.deepEqual([error.status, error.statusText, error.message], [401, "Unauthorized", "Unauthorized"]);
  });
});

describe("the error page", { concurrency: 8 }, () => {
  const page = async (query) => {
    const response = await new Browser(await site()).open(`/api/auth/error${query}`);
    assert.equal(response.status, 200);
    assert.match(response.headers.get("content-type"), /^text\/html/);
    return response.text();
  };

  test("it shows the error and its description", async () => {
    const html = await page("?error=access_denied&error_description=The%20user%20said%20no");
    assert.ok(html.includes("access_denied") && html.includes("The user said no"));
  });

  test("it escapes them", async () => {
    const html = await page("?error=x&error_description=%3Cscript%3Ealert(1)%3C%2Fscript%3E");
    assert.ok(!html.includes("<script>alert(1)"));
  });

  test("an error that is none is shown as unknown", async () => {
    const html = await page("?error=%3Cb%3E");
    assert.ok(html.includes("UNKNOWN") && !html.includes("<b>"));
    assert.ok((await page("")).includes("UNKNOWN"));
  });
});
