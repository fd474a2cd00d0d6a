import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Browser } from "../harness/browser.mjs";
import { SESSION_COOKIE, ok, person, refused, refusedRaw, signIn, whoIs } from "../harness/people.mjs";
import { site } from "../harness/site.mjs";

describe("update-user", { concurrency: 8 }, () => {
  test("name and image change, at once and for every session", async () => {
    const ada = await person(await site());
    const phone = await signIn(ada);
    const image = "https://images.example.test/ada.png";
    assert.deepEqual(ok(await ada.browser.client.updateUser({ name: "Countess", image })), { status: true });
    for (const browser of [ada.browser, phone]) {
      const { user } = await whoIs(browser);
      assert.deepEqual([user.name, user.image, user.email], ["Countess", image, ada.email]);
    }
  });

  test("what is not named stays", async () => {
    const ada = await person(await site(), { image: "https://images.example.test/ada.png" });
    ok(await ada.browser.client.updateUser({ name: "Countess" }));
    const { user } = await whoIs(ada.browser);
    assert.deepEqual([user.name, user.image], ["Countess", "https://images.example.test/ada.png"]);
  });

  test("null takes the image away", async () => {
    const ada = await person(await site(), { image: "https://images.example.test/ada.png" });
    ok(await ada.browser.client.updateUser({ image: null }));
    assert.equal((await whoIs(ada.browser)).user.image, null);
  });

  test("updatedAt moves, createdAt does not", async () => {
    const ada = await person(await site());
    ok(await ada.browser.client.updateUser({ name: "Countess" }));
    const { user } = await whoIs(ada.browser);
    assert.ok(user.updatedAt > ada.user.updatedAt);
    assert.deepEqual(user.createdAt, ada.user.createdAt);
  });

  test("the session cookie is sent again", async () => {
    const ada = await person(await site());
    const before = ada.browser.cookie(SESSION_COOKIE);
    ok(await ada.browser.client.updateUser({ name: "Countess" }));
    const { value, attributes } = ada.browser.last.cookies.get(SESSION_COOKIE);
    assert.equal(value, before);
    assert.equal(attributes["max-age"], "604800");
  });

  test("the address is not changed here", async () => {
    const ada = await person(await site());
    const result = await ada.browser.client.updateUser({ email: "other@example.test", name: "Countess" });
    refused(result, 400, "EMAIL_CAN_NOT_BE_UPDATED", "Email can not be updated");
    const { user } = await whoIs(ada.browser);
    assert.deepEqual([user.email, user.name], [ada.email, ada.name]);
  });

  for (const [field, value] of [
    ["role", "admin"],
    ["banned", true],
    ["banReason", "x"],
    ["twoFactorEnabled", true],
  ]) {
    test(`${field} can't be chosen`, async () => {
      const ada = await person(await site());
      const result = await ada.browser.client.updateUser({ name: "Countess", [field]: value });
      refused(result, 400, "FIELD_NOT_ALLOWED", `${field} is not allowed to be set`);
      assert.deepEqual((await whoIs(ada.browser)).user, ada.user);
    });
  }

  test("emailVerified, id and dates can't be chosen", async () => {
    const ada = await person(await site());
    const fields = { emailVerified: false, id: "another", createdAt: "2001-01-01T00:00:00.000Z" };
    await ada.browser.client.updateUser({ name: "Countess", ...fields });
    const { user } = await whoIs(ada.browser);
    assert.deepEqual([user.emailVerified, user.id, user.createdAt], [true, ada.user.id, ada.user.createdAt]);
  });

  test("something must be there to update", async () => {
    const ada = await person(await site());
    await refusedRaw(await ada.browser.raw("/update-user", { body: "{}" }), 400, undefined, "No fields to update");
    refused(await ada.browser.client.updateUser({ favouriteColour: "green" }), 400, undefined, "No fields to update");
  });

  test("it needs a session", async () => {
    refused(await new Browser(await site()).client.updateUser({ name: "Nobody" }), 401, "UNAUTHORIZED");
  });
});
