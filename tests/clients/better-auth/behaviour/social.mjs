import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { differs } from "../differs.mjs";
import { Browser, bare } from "../harness/browser.mjs";
import { DAY, ageSession, ban } from "../harness/database.mjs";
import {
  SESSION_COOKIE,
  address,
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
import { ask, googleIdToken, known, land, led, linkAt, signInAt, visit } from "../harness/social.mjs";

const KINDS = ["google", "github", "apple", "acme"];
const ERROR_PAGE = "/api/auth/error";

const here = () => site("social");

const accounts = async (browser) => ok(await browser.client.listAccounts());

/** The account of whoever is signed in at a provider. */
async function accountAt(browser, provider) {
  return (await accounts(browser)).find(({ providerId }) => providerId === provider);
}

/** Somebody new who came from a provider. */
async function from(provider, about) {
  const [where, browser] = [await here(), new Browser(await here())];
  const who = await known(where, provider, about);
  assert.deepEqual(led(await signInAt(browser, where, provider, who)), { to: "/home", error: null, description: null });
  return { site: where, browser, who, ...(await whoIs(browser)), account: await accountAt(browser, provider) };
}

/** How it goes that somebody new signs in, who is signed in nowhere afterwards. */
async function refusedAt(provider, about, fields) {
  const [where, browser] = [await here(), new Browser(await here())];
  const who = await known(where, provider, about);
  const end = led(await signInAt(browser, where, provider, who, fields));
  await assertSignedOut(browser);
  return { ...end, who, browser, site: where };
}

/** How it ends when a browser comes back from a provider with this, though it was not there. */
async function answered(provider, fields) {
  const [where, browser] = [await here(), new Browser(await here())];
  const state = new URL(await ask(browser, provider)).searchParams.get("state");
  // Where a provider says that it names itself in its answers, it must.
  const { issuer } = where.providers.get(provider);
  const answer = new URLSearchParams({ state, ...(issuer && { iss: issuer }), ...fields });
  return browser.raw(`/callback/${provider}?${answer}`);
}

describe("sign-in/social", { concurrency: 8 }, () => {
  test("the client is told where to go, with PKCE and a state that the browser keeps", async () => {
    for (const provider of KINDS) {
      const browser = new Browser(await here());
      const { url, redirect } = ok(await browser.client.signIn.social({ provider, callbackURL: "/home" }));
      assert.equal(redirect, true);
      assert.equal(browser.last.status, 200);
      assert.equal(browser.last.headers.get("location"), url);
      const { searchParams } = new URL(url);
      assert.equal(searchParams.get("response_type"), provider === "apple" ? "code id_token" : "code");
      assert.equal(searchParams.get("code_challenge_method"), "S256");
      assert.match(searchParams.get("code_challenge"), /^[A-Za-z0-9_-]{43}$/);
      assert.match(searchParams.get("state"), /^[A-Za-z0-9_-]{32,}$/);
      assert.equal(searchParams.get("redirect_uri"), `${(await here()).url}/api/auth/callback/${provider}`);
      const [cookie] = [...browser.last.cookies.values()];
      assert.match(cookie.name, /^better-auth\.state/);
      assert.deepEqual(
        [cookie.attributes.httponly, cookie.attributes.samesite, cookie.attributes.path],
        [true, "Lax", "/"],
      );
    }
  });

  test("what each provider is asked for", async () => {
    for (const [provider, expected] of [
      ["google", ["email", "openid", "profile"]],
      ["github", ["read:user", "user:email"]],
      ["apple", ["email", "name"]],
      ["acme", ["email", "openid", "profile"]],
    ]) {
      const url = await ask(new Browser(await here()), provider);
      assert.deepEqual(new URL(url).searchParams.get("scope").split(" ").sort(), expected);
    }
  });

  test("a client that goes there by itself is not redirected", async () => {
    const browser = new Browser(await here());
    const { url, redirect } = ok(await browser.client.signIn.social({ provider: "acme", disableRedirect: true }));
    assert.ok(url);
    assert.deepEqual([redirect, browser.last.headers.get("location")], [false, null]);
  });

  test("further scopes, a hint and parameters go along", async () => {
    const url = await ask(new Browser(await here()), "acme", {
      scopes: ["calendar"],
      loginHint: "ada@example.test",
      additionalParams: { audience: "api" },
    });
    const { searchParams } = new URL(url);
    assert.ok(searchParams.get("scope").split(" ").includes("calendar"));
    assert.deepEqual([searchParams.get("login_hint"), searchParams.get("audience")], ["ada@example.test", "api"]);
  });

  test("parameters of the flow can't be set", async () => {
    const { client } = new Browser(await here());
    for (const name of ["state", "client_id", "redirect_uri", "response_type", "code_challenge", "nonce", "scope"]) {
      const result = await client.signIn.social({ provider: "acme", additionalParams: { [name]: "x" } });
      refused(result, 400, "VALIDATION_ERROR");
    }
  });

  test("an unknown provider is not found", async () => {
    const { client } = new Browser(await here());
    refused(await client.signIn.social({ provider: "nobody" }), 404, "PROVIDER_NOT_FOUND", "Provider not found");
  });

  test("a provider must be named", async () => {
    await refusedRaw(await new Browser(await here()).raw("/sign-in/social", { body: "{}" }), 400, "VALIDATION_ERROR");
  });

  test("no address leads away from the site", async () => {
    const { client } = new Browser(await here());
    for (const [field, code] of [
      ["callbackURL", "INVALID_CALLBACK_URL"],
      ["errorCallbackURL", "INVALID_ERROR_CALLBACK_URL"],
      ["newUserCallbackURL", "INVALID_NEW_USER_CALLBACK_URL"],
    ]) {
      refused(await client.signIn.social({ provider: "acme", [field]: "https://evil.test/" }), 403, code);
    }
  });

  test("somebody new gets a user and a session, from every kind of provider", async () => {
    for (const provider of KINDS) {
      const { who, user, account } = await from(provider);
      assert.deepEqual([user.name, user.email, user.emailVerified], ["Ada Lovelace", who.email, true], provider);
      assert.deepEqual([account.accountId, account.userId], [who.sub, user.id], provider);
    }
  });

  test("the session is one as after a password, and the state is gone", async () => {
    const { browser, session } = await from("acme");
    assert.ok(browser.cookie(SESSION_COOKIE));
    const days = (session.expiresAt - session.createdAt) / DAY;
    assert.ok(Math.abs(days - 7) < 0.01, `${days} days`);
    assert.deepEqual(
      browser.cookieNames().filter((name) => name.includes("state")),
      [],
    );
  });

  test("the picture is the provider's", async () => {
    const { user } = await from("acme", { picture: "https://images.example.test/ada.png" });
    assert.equal(user.image, "https://images.example.test/ada.png");
  });

  test("who comes again is the same user, in another browser too", async () => {
    for (const provider of KINDS) {
      const ada = await from(provider);
      const browser = new Browser(ada.site);
      await signInAt(browser, ada.site, provider, ada.who);
      assert.equal((await whoIs(browser)).user.id, ada.user.id);
      assert.equal((await accounts(browser)).length, 1);
    }
  });

  test("Apple tells the name once, and it stays", async () => {
    const ada = await from("apple");
    await signInAt(ada.browser, ada.site, "apple", ada.who);
    assert.equal((await whoIs(ada.browser)).user.name, "Ada Lovelace");
  });

  test("who changed the address at the provider is the same user, with the address as it was", async () => {
    const ada = await from("acme");
    await ada.site.providers.get("acme").admit({ ...ada.who, email: address("new") });
    const browser = new Browser(ada.site);
    await signInAt(browser, ada.site, "acme", ada.who);
    const { user } = await whoIs(browser);
    assert.deepEqual([user.id, user.email], [ada.user.id, ada.user.email]);
  });

  test("new people may be led elsewhere", async () => {
    const [where, browser] = [await here(), new Browser(await here())];
    const who = await known(where, "acme");
    const fields = { newUserCallbackURL: "/welcome?first=1" };
    const first = await signInAt(browser, where, "acme", who, fields);
    assert.equal(first.headers.get("location"), "/welcome?first=1");
    assert.equal(led(await signInAt(browser, where, "acme", who, fields)).to, "/home");
  });

  test("without a callbackURL the way ends at the site", async () => {
    const [where, browser] = [await here(), new Browser(await here())];
    const response = await signInAt(browser, where, "acme", await known(where, "acme"), { callbackURL: undefined });
    assert.equal(new URL(response.headers.get("location"), where.url).origin, where.url);
    await whoIs(browser);
  });

  test("an address has no case", async () => {
    const email = address("Ada");
    const { user } = await from("acme", { email });
    assert.equal(user.email, email.toLowerCase());
    const again = await from("google", { email: email.toUpperCase() });
    assert.equal(again.user.id, user.id);
  });
});

describe("callback", { concurrency: 8 }, () => {
  test("who denies is led to the app's error page, with what the provider says", async () => {
    for (const [provider, error] of [
      ["github", "access_denied"],
      ["acme", "access_denied"],
      ["apple", "user_cancelled_authorize"],
    ]) {
      const end = await refusedAt(provider, {}, { decision: "deny" });
      assert.deepEqual([end.to, end.error], ["/sorry", error], provider);
      if (provider !== "apple") assert.ok(end.description);
    }
  });

  test("without one, to the site's", async () => {
    const end = await refusedAt("acme", {}, { decision: "deny", errorCallbackURL: undefined });
    assert.deepEqual([end.to, end.error], [ERROR_PAGE, "access_denied"]);
  });

  test("an error page keeps its own query", async () => {
    const [where, browser] = [await here(), new Browser(await here())];
    const who = await known(where, "acme");
    const fields = { decision: "deny", errorCallbackURL: "/sorry?tab=1" };
    const response = await signInAt(browser, where, "acme", who, fields);
    assert.match(response.headers.get("location"), /^\/sorry\?tab=1&error=access_denied/);
  });

  test("without a state there is no way to go on", async () => {
    const browser = new Browser(await here());
    assert.deepEqual(led(await browser.raw("/callback/acme?code=x")), {
      to: ERROR_PAGE,
      error: "state_not_found",
      description: null,
    });
  });

  test("nor with an unknown one", async () => {
    const { to, error } = led(await new Browser(await here()).raw("/callback/acme?code=x&state=unknown"));
    assert.deepEqual([to, error], [ERROR_PAGE, "state_mismatch"]);
  });

  test("a state is good once", async () => {
    const [where, browser] = [await here(), new Browser(await here())];
    const back = await visit(browser, await ask(browser, "acme"), await known(where, "acme"));
    assert.equal(led(await land(browser, where, back)).to, "/home");
    const { to, error } = led(await land(browser, where, back));
    assert.deepEqual([to, error], [ERROR_PAGE, "state_mismatch"]);
    await whoIs(browser);
  });

  test("what one browser began no other ends", async () => {
    const [where, eve, ada] = [await here(), new Browser(await here()), new Browser(await here())];
    const back = await visit(eve, await ask(eve, "acme"), await known(where, "acme"));
    for (const prepare of [() => {}, () => ask(ada, "acme")]) {
      await prepare();
      const { error } = led(await land(ada, where, back));
      assert.equal(error, "state_mismatch");
      await assertSignedOut(ada);
    }
  });

  test("tabs that start together", async () => {
    const [where, browser] = [await here(), new Browser(await here())];
    const who = await known(where, "acme");
    const [first, second] = [await ask(browser, "acme"), await ask(browser, "acme", { callbackURL: "/other" })];
    const ends = [];
    for (const url of [second, first]) ends.push(led(await land(browser, where, await visit(browser, url, who))).to);
    assert.deepEqual(ends, differs("where two tabs end up that started together"));
    await whoIs(browser);
  });

  test("a code must come", async () => {
    const { to, error } = led(await answered("acme", {}));
    assert.deepEqual([to, error], ["/sorry", "no_code"]);
  });

  test("a code that the provider does not know is refused", async () => {
    for (const provider of ["github", "acme"]) {
      const { to, error } = led(await answered(provider, { code: "unknown" }));
      assert.deepEqual([to, error], ["/sorry", "invalid_code"], provider);
    }
  });

  test("an answer by another issuer is refused", async () => {
    const [where, browser] = [await here(), new Browser(await here())];
    const back = await visit(browser, await ask(browser, "acme"), await known(where, "acme"));
    const url = new URL(back.url);
    url.searchParams.set("iss", "https://other.test");
    const { to, error } = led(await browser.open(url.href));
    assert.deepEqual([to, error], ["/sorry", "issuer_mismatch"]);
    await assertSignedOut(browser);
  });

  test("a posted answer is answered with the same, as a GET", async () => {
    const where = await here();
    const response = await bare(where, "POST", "/callback/apple", {
      headers: { "content-type": "application/x-www-form-urlencoded", origin: "https://appleid.apple.com" },
      body: new URLSearchParams({ code: "a b", state: "s", user: '{"name":{}}' }).toString(),
    });
    assert.equal(response.status, 302);
    const { origin, pathname, searchParams } = new URL(response.headers.location);
    assert.deepEqual([origin, pathname], [where.url, "/api/auth/callback/apple"]);
    assert.deepEqual(Object.fromEntries(searchParams), { code: "a b", state: "s", user: '{"name":{}}' });
  });

  test("what goes wrong at the provider ends at the app's error page", async () => {
    const where = await here();
    const ill = where.providers.get("ill");
    for (const [fault, error] of [
      [{ token: { times: 2, answer: { status: 500 } } }, "invalid_code"],
      [{ token: { times: 2, answer: { status: 429, headers: { "retry-after": "60" } } } }, "invalid_code"],
      [
        { token: { times: 2, answer: { status: 200, body: "<html>" } } },
        differs("error for a token endpoint that gives no JSON"),
      ],
      [{ token: { id_token: { set: { nonce: "another" } } } }, "unable_to_get_user_info"],
      [{ token: { id_token: { remove: ["nonce"] } } }, "unable_to_get_user_info"],
      [{ token: { id_token: { set: { aud: "another" } } } }, "unable_to_get_user_info"],
      [{ token: { id_token: { set: { iss: "https://other.test" } } } }, "unable_to_get_user_info"],
      [{ token: { id_token: { set: { exp: 1 } } } }, "unable_to_get_user_info"],
      [{ token: { id_token: { sign: "none" } } }, "unable_to_get_user_info"],
      [{ token: { id_token: { sign: "hs256-secret" } } }, "unable_to_get_user_info"],
      [{ token: { id_token: { sign: "hs256-public" } } }, "unable_to_get_user_info"],
      [{ token: { id_token: { sign: "unknown-key" } } }, "unable_to_get_user_info"],
      [{ token: { id_token: { sign: "stolen-kid" } } }, "unable_to_get_user_info"],
      [{ token: { id_token: { sign: "broken" } } }, "unable_to_get_user_info"],
    ]) {
      await ill.fault(fault);
      const end = await refusedAt("ill");
      assert.deepEqual([end.to, end.error], ["/sorry", error], JSON.stringify(fault));
      await ill.fault({ token: null });
    }
  });
});

describe("whose account it is", { concurrency: 8 }, () => {
  test("a proven address leads to the user who has it, if they proved it too", async () => {
    for (const provider of KINDS) {
      const ada = await person(await here());
      const browser = new Browser(ada.site);
      const who = await known(ada.site, provider, { email: ada.email });
      assert.equal(led(await signInAt(browser, ada.site, provider, who)).to, "/home");
      assert.equal((await whoIs(browser)).user.id, ada.user.id, provider);
      const providers = (await accounts(browser)).map(({ providerId }) => providerId);
      assert.deepEqual(providers.sort(), [provider, "credential"].sort());
      await signIn(ada);
    }
  });

  test("an address that the provider does not prove does not", async () => {
    for (const provider of KINDS) {
      for (const verified of provider === "github" ? [false] : [false, null]) {
        const ada = await person(await here());
        const end = await refusedAt(provider, { email: ada.email, verified });
        assert.deepEqual([end.to, end.error], ["/sorry", "account_not_linked"], `${provider} ${verified}`);
        assert.equal((await accounts(ada.browser)).length, 1);
      }
    }
  });

  test("nor does a proven one to a user who has not proved it", async () => {
    const eve = await signUp(await here());
    const end = await refusedAt("acme", { email: eve.email });
    assert.deepEqual([end.to, end.error], ["/sorry", "account_not_linked"]);
  });

  test("another subject with a known address of the provider is somebody else there", async () => {
    const ada = await from("acme");
    const end = await refusedAt("acme", { email: ada.who.email, verified: false });
    assert.equal(end.error, "account_not_linked");
  });

  test("who is new with an address that is not proven must prove it", async () => {
    const end = await refusedAt("acme", { verified: false });
    assert.deepEqual([end.to, end.error], ["/sorry", "email_not_verified"]);
    const { link } = await end.site.mailbox.next(end.who.email);
    assert.equal((await end.browser.open(link)).status, 302);
    const browser = new Browser(end.site);
    assert.equal(led(await signInAt(browser, end.site, "acme", end.who)).to, "/home");
    assert.equal((await whoIs(browser)).user.emailVerified, true);
  });

  test("who has no address there can't sign up", async () => {
    for (const provider of ["github", "acme"]) {
      const end = await refusedAt(provider, { email: null });
      assert.deepEqual([end.to, end.error], ["/sorry", "email_not_found"], provider);
    }
  });

  test("where nobody signs up, nobody new gets in", async () => {
    const end = await refusedAt("closed");
    assert.deepEqual([end.to, end.error], ["/sorry", "signup_disabled"]);
    const ada = await person(await here());
    const who = await known(ada.site, "closed", { email: ada.email });
    assert.equal(led(await signInAt(new Browser(ada.site), ada.site, "closed", who)).to, "/home");
  });

  test("where it must be asked for, only then", async () => {
    assert.equal((await refusedAt("asked")).error, "signup_disabled");
    const [where, browser] = [await here(), new Browser(await here())];
    const who = await known(where, "asked");
    await signInAt(browser, where, "asked", who, { requestSignUp: true });
    assert.equal((await whoIs(browser)).user.email, who.email);
  });

  test("who is banned is told so", async () => {
    const ada = await from("acme");
    await ban(ada.site, ada.who.email);
    const browser = new Browser(ada.site);
    const { to, error } = led(await signInAt(browser, ada.site, "acme", ada.who));
    assert.deepEqual([to, error], ["/sorry", "BANNED_USER"]);
    await assertSignedOut(browser);
  });
});

describe("sign-in/social with an id_token", { concurrency: 8 }, () => {
  test("an app signs somebody in by the token that it got", async () => {
    const [where, browser] = [await here(), new Browser(await here())];
    const who = await known(where, "google");
    const token = await googleIdToken(where, who, { nonce: "its own" });
    const answer = ok(await browser.client.signIn.social({ provider: "google", idToken: { token, nonce: "its own" } }));
    const { session, user } = await whoIs(browser);
    assert.deepEqual([answer.redirect, answer.token, answer.user.id], [false, session.token, user.id]);
    assert.deepEqual([user.email, user.emailVerified], [who.email, true]);
    assert.equal((await accountAt(browser, "google")).accountId, who.sub);
  });

  test("a token that is not right in every way is refused", async () => {
    const where = await here();
    const who = await known(where, "google");
    for (const [more, nonce] of [
      [{ nonce: "a" }, "b"],
      [{}, "b"],
      [{ set: { aud: "another" } }],
      [{ set: { iss: "https://other.test" } }],
      [{ set: { exp: 1 } }],
      [{ set: { iat: Math.floor(Date.now() / 1000) - 2 * 3600 } }],
      [{ sign: "none" }],
      [{ sign: "hs256-public" }],
      [{ sign: "unknown-key" }],
      [{ sign: "broken" }],
    ]) {
      const token = await googleIdToken(where, who, more);
      const result = await new Browser(where).client.signIn.social({ provider: "google", idToken: { token, nonce } });
      refused(result, 401, "INVALID_TOKEN");
    }
    const garbage = await new Browser(where).client.signIn.social({ provider: "google", idToken: { token: "a.b" } });
    refused(garbage, 401, "INVALID_TOKEN");
  });

  test("an address that is not proven does not lead to the user who has it", async () => {
    const ada = await person(await here());
    const who = await known(ada.site, "google", { email: ada.email, verified: false });
    const idToken = { token: await googleIdToken(ada.site, who) };
    refused(await new Browser(ada.site).client.signIn.social({ provider: "google", idToken }), 401, "OAUTH_LINK_ERROR");
  });

  test("an address must be in it", async () => {
    const where = await here();
    const who = await known(where, "google", { email: null });
    const idToken = { token: await googleIdToken(where, who) };
    refused(
      await new Browser(where).client.signIn.social({ provider: "google", idToken }),
      401,
      "USER_EMAIL_NOT_FOUND",
    );
  });

  test("GitHub has none", async () => {
    const { client } = new Browser(await here());
    refused(
      await client.signIn.social({ provider: "github", idToken: { token: "a.b.c" } }),
      404,
      "ID_TOKEN_NOT_SUPPORTED",
    );
  });
});

describe("link-social", { concurrency: 8 }, () => {
  test("whoever is signed in gets a further way in", async () => {
    for (const provider of KINDS) {
      const ada = await person(await here());
      const who = await known(ada.site, provider, { email: ada.email });
      assert.deepEqual(led(await linkAt(ada.browser, ada.site, provider, who)), {
        to: "/linked",
        error: null,
        description: null,
      });
      assert.equal((await whoIs(ada.browser)).session.id, ada.session.id);
      assert.equal((await accountAt(ada.browser, provider)).accountId, who.sub);
      const elsewhere = new Browser(ada.site);
      await signInAt(elsewhere, ada.site, provider, who);
      assert.equal((await whoIs(elsewhere)).user.id, ada.user.id);
    }
  });

  test("it needs a session", async () => {
    refused(await new Browser(await here()).client.linkSocial({ provider: "acme" }), 401, "UNAUTHORIZED");
  });

  test("an old one", async () => {
    const ada = await person(await here());
    await ageSession(ada.site, ada.session, { age: 2 * DAY, left: 6 * DAY });
    const result = await ada.browser.client.linkSocial({ provider: "acme" });
    if (differs("an old session is enough to link an account")) ok(result);
    else refused(result, 403, "SESSION_NOT_FRESH");
  });

  test("the address there must be the user's, and proven", async () => {
    const ada = await person(await here());
    const other = await known(ada.site, "acme");
    assert.deepEqual(led(await linkAt(ada.browser, ada.site, "acme", other)).error, "email_does_not_match");
    const unproven = await known(ada.site, "google", { email: ada.email, verified: false });
    assert.deepEqual(led(await linkAt(ada.browser, ada.site, "google", unproven)).error, "unable_to_link_account");
    assert.equal((await accounts(ada.browser)).length, 1);
  });

  test("an account of somebody else can't be linked", async () => {
    const ada = await from("acme");
    const eve = await person(await here());
    await ada.site.providers.get("acme").admit({ ...ada.who, email: eve.email });
    const { to, error } = led(await linkAt(eve.browser, eve.site, "acme", ada.who));
    assert.deepEqual([to, error], ["/sorry", "account_already_linked_to_different_user"]);
  });

  test("linking again changes nothing", async () => {
    const ada = await from("acme");
    assert.equal(led(await linkAt(ada.browser, ada.site, "acme", ada.who)).to, "/linked");
    const [account, ...others] = await accounts(ada.browser);
    assert.deepEqual([account.id, others], [ada.account.id, []]);
  });

  test("further scopes are granted to the account", async () => {
    const ada = await from("github");
    await linkAt(ada.browser, ada.site, "github", ada.who, { scopes: ["repo"] });
    assert.ok((await accountAt(ada.browser, "github")).scopes.includes("repo"));
  });

  test("an app links by the token that it got", async () => {
    const ada = await person(await here());
    const who = await known(ada.site, "google", { email: ada.email });
    const idToken = { token: await googleIdToken(ada.site, who) };
    const answer = ok(await ada.browser.client.linkSocial({ provider: "google", idToken }));
    assert.deepEqual(answer, { url: "", status: true, redirect: false });
    assert.equal((await accountAt(ada.browser, "google")).accountId, who.sub);
    const eve = await person(await here());
    refused(await eve.browser.client.linkSocial({ provider: "google", idToken }), 409, "SOCIAL_ACCOUNT_ALREADY_LINKED");
    const other = { token: await googleIdToken(ada.site, await known(ada.site, "google")) };
    refused(
      await eve.browser.client.linkSocial({ provider: "google", idToken: other }),
      401,
      "LINKING_DIFFERENT_EMAILS_NOT_ALLOWED",
    );
    const unproven = {
      token: await googleIdToken(ada.site, await known(ada.site, "google", { email: eve.email, verified: false })),
    };
    refused(await eve.browser.client.linkSocial({ provider: "google", idToken: unproven }), 401, "LINKING_NOT_ALLOWED");
  });

  test("an unknown provider is not found", async () => {
    const ada = await person(await here());
    refused(await ada.browser.client.linkSocial({ provider: "nobody" }), 404, "PROVIDER_NOT_FOUND");
  });
});

describe("unlink-account of a provider", { concurrency: 8 }, () => {
  test("afterwards it leads to the user no more", async () => {
    const ada = await person(await here());
    const who = await known(ada.site, "acme", { email: ada.email });
    await linkAt(ada.browser, ada.site, "acme", who);
    const { id } = await accountAt(ada.browser, "acme");
    assert.deepEqual(ok(await ada.browser.client.unlinkAccount({ accountId: id })), { status: true });
    assert.equal((await accounts(ada.browser)).length, 1);
    await ada.site.providers.get("acme").admit({ ...who, email: address("elsewhere") });
    const browser = new Browser(ada.site);
    await signInAt(browser, ada.site, "acme", who);
    assert.notEqual((await whoIs(browser)).user.id, ada.user.id);
  });

  test("the only way in stays", async () => {
    const ada = await from("acme");
    const result = await ada.browser.client.unlinkAccount({ accountId: ada.account.id });
    refused(result, 400, "FAILED_TO_UNLINK_LAST_ACCOUNT");
  });
});

describe("the provider's tokens", { concurrency: 8 }, () => {
  test("their user gets them", async () => {
    for (const provider of KINDS) {
      const ada = await from(provider);
      const tokens = ok(await ada.browser.client.getAccessToken({ accountId: ada.account.id }));
      assert.ok(tokens.accessToken, provider);
      assert.deepEqual(
        [typeof tokens.idToken, tokens.accessTokenExpiresAt instanceof Date],
        [provider === "github" ? "undefined" : "string", provider !== "github"],
      );
      assert.ok(Array.isArray(tokens.scopes));
    }
  });

  test("one that expires is renewed first", async () => {
    const ada = await from("brief");
    const first = ok(await ada.browser.client.getAccessToken({ accountId: ada.account.id }));
    const second = ok(await ada.browser.client.getAccessToken({ accountId: ada.account.id }));
    assert.notEqual(second.accessToken, first.accessToken);
    assert.ok(second.accessTokenExpiresAt > Date.now());
  });

  test("one that lasts is not", async () => {
    const ada = await from("acme");
    const get = async () => ok(await ada.browser.client.getAccessToken({ accountId: ada.account.id })).accessToken;
    assert.equal(await get(), await get());
  });

  test("they are renewed when asked for", async () => {
    const ada = await from("acme");
    const before = ok(await ada.browser.client.getAccessToken({ accountId: ada.account.id }));
    const renewed = ok(await ada.browser.client.refreshToken({ accountId: ada.account.id }));
    assert.notEqual(renewed.accessToken, before.accessToken);
    assert.ok(renewed.refreshToken && renewed.idToken);
    assert.deepEqual([renewed.providerId, renewed.accountId], ["acme", ada.account.id]);
    const after = ok(await ada.browser.client.getAccessToken({ accountId: ada.account.id }));
    assert.equal(after.accessToken, renewed.accessToken);
    assert.ok(ok(await ada.browser.client.refreshToken({ accountId: ada.account.id })).accessToken, "and once more");
  });

  test("where there is no refresh token nothing is renewed", async () => {
    const ada = await from("github");
    refused(await ada.browser.client.refreshToken({ accountId: ada.account.id }), 400, "REFRESH_TOKEN_NOT_FOUND");
  });

  test("what the provider says of its user now", async () => {
    for (const provider of ["github", "acme", "google"]) {
      const ada = await from(provider);
      const info = ok(await ada.browser.client.accountInfo({ query: { accountId: ada.account.id } }));
      assert.deepEqual(
        [info.user.email, info.user.name, info.user.emailVerified],
        [ada.who.email, "Ada Lovelace", true],
        provider,
      );
      assert.deepEqual(info.account, { id: ada.account.id, providerId: provider, accountId: ada.who.sub });
      assert.equal(String(info.data.sub ?? info.data.id), ada.who.sub);
    }
  });

  const calls = {
    getAccessToken: (client, accountId) => client.getAccessToken({ accountId }),
    refreshToken: (client, accountId) => client.refreshToken({ accountId }),
    accountInfo: (client, accountId) => client.accountInfo({ query: { accountId } }),
  };

  test("a password has none", async () => {
    const ada = await person(await here());
    const [{ id }] = await accounts(ada.browser);
    refused(await calls.getAccessToken(ada.browser.client, id), 400, "PROVIDER_NOT_SUPPORTED");
    refused(await calls.refreshToken(ada.browser.client, id), 400, "PROVIDER_NOT_SUPPORTED");
    refused(await calls.accountInfo(ada.browser.client, id), 400, "PROVIDER_NOT_CONFIGURED");
  });

  test("nobody else gets them", async () => {
    const [ada, eve] = [await from("acme"), await from("acme")];
    for (const call of Object.values(calls)) {
      refused(await call(eve.browser.client, ada.account.id), 400, "ACCOUNT_NOT_FOUND", "Account not found");
      refused(await call(eve.browser.client, "unknown"), 400, "ACCOUNT_NOT_FOUND");
    }
  });

  test("without a session there is an empty answer", async () => {
    const browser = new Browser(await here());
    for (const [method, path] of [
      ["POST", "/get-access-token"],
      ["POST", "/refresh-token"],
      ["GET", "/account-info?accountId=x"],
    ]) {
      const response = await browser.raw(path, { method, ...(method === "POST" && { body: '{"accountId":"x"}' }) });
      assert.deepEqual([response.status, await response.text()], [401, ""], path);
    }
  });

  test("an account must be named", async () => {
    const ada = await from("acme");
    for (const call of [calls.getAccessToken, calls.refreshToken]) {
      refused(await call(ada.browser.client, undefined), 400, "VALIDATION_ERROR");
    }
  });
});
