import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { differs } from "../differs.mjs";
import { Browser } from "../harness/browser.mjs";
import { DAY, ageSession, linkProvider } from "../harness/database.mjs";
import { address, ok, person, refused, refusedRaw, signIn } from "../harness/people.mjs";
import { site } from "../harness/site.mjs";

/** Somebody with a password and an account at a provider that is configured: else it would be no way in. */
async function linked() {
  const ada = await person(await site("social"));
  const subject = address("subject");
  const google = await linkProvider(ada.site, ada.user.id, "google", subject);
  return { ...ada, google, subject };
}

const listed = async ({ browser }) => ok(await browser.client.listAccounts());

describe("list-accounts", { concurrency: 8 }, () => {
  test("who signed up with a password has that account", async () => {
    const ada = await person(await site());
    const [account, ...others] = await listed(ada);
    assert.deepEqual(others, []);
    const { id, createdAt, updatedAt, ...rest } = account;
    assert.ok(typeof id === "string" && id !== ada.user.id);
    assert.ok(createdAt instanceof Date && updatedAt instanceof Date);
    assert.deepEqual(rest, { providerId: "credential", accountId: ada.user.id, userId: ada.user.id, scopes: [] });
  });

  test("providers are listed, without their tokens", async () => {
    const ada = await linked();
    const accounts = await listed(ada);
    assert.deepEqual(accounts.map(({ providerId }) => providerId).sort(), ["credential", "google"]);
    const { accountId, id } = accounts.find(({ providerId }) => providerId === "google");
    assert.deepEqual([id, accountId], [ada.google, ada.subject]);
  });

  test("it needs a session", async () => {
    refused(await new Browser(await site()).client.listAccounts(), 401, "UNAUTHORIZED");
  });
});

describe("unlink-account", { concurrency: 8 }, () => {
  test("an account at a provider goes by its id", async () => {
    const ada = await linked();
    assert.deepEqual(ok(await ada.browser.client.unlinkAccount({ accountId: ada.google })), { status: true });
    assert.deepEqual(
      (await listed(ada)).map(({ providerId }) => providerId),
      ["credential"],
    );
    await signIn(ada);
  });

  test("so does the password", async () => {
    const ada = await linked();
    const credential = (await listed(ada)).find(({ providerId }) => providerId === "credential");
    ok(await ada.browser.client.unlinkAccount({ accountId: credential.id }));
    const result = await new Browser(ada.site).client.signIn.email({ email: ada.email, password: ada.password });
    refused(result, 401, "INVALID_EMAIL_OR_PASSWORD");
  });

  test("older clients name the provider", async () => {
    const ada = await linked();
    const { error } = await ada.browser.client.unlinkAccount({ providerId: "google" });
    assert.equal(error === null, differs("unlink-account takes a provider's id, as clients up to 1.6 send it"));
    if (error === null) assert.equal((await listed(ada)).length, 1);
  });

  test("the last one stays, whatever id is given", async () => {
    const ada = await person(await site());
    const [{ id }] = await listed(ada);
    const message = "You can't unlink your last account";
    for (const accountId of [id, "unknown"]) {
      const result = await ada.browser.client.unlinkAccount({ accountId });
      refused(result, 400, "FAILED_TO_UNLINK_LAST_ACCOUNT", message);
    }
  });

  test("an unknown one is not found", async () => {
    const ada = await linked();
    refused(
      await ada.browser.client.unlinkAccount({ accountId: "unknown" }),
      400,
      "ACCOUNT_NOT_FOUND",
      "Account not found",
    );
  });

  test("nor is another user's", async () => {
    const [ada, eve] = [await linked(), await linked()];
    refused(await eve.browser.client.unlinkAccount({ accountId: ada.google }), 400, "ACCOUNT_NOT_FOUND");
    assert.equal((await listed(ada)).length, 2);
  });

  test("an account must be named", async () => {
    const ada = await linked();
    await refusedRaw(await ada.browser.raw("/unlink-account", { body: "{}" }), 400, "VALIDATION_ERROR");
  });

  test("it needs a fresh session", async () => {
    const ada = await linked();
    await ageSession(ada.site, ada.session, { age: 2 * DAY, left: 6 * DAY });
    refused(await ada.browser.client.unlinkAccount({ accountId: ada.google }), 403, "SESSION_NOT_FRESH");
    refused(await new Browser(ada.site).client.unlinkAccount({ accountId: ada.google }), 401, "UNAUTHORIZED");
  });
});
