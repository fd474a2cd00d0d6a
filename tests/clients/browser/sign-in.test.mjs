// What only a browser can show: which cookies it brings back from a provider's site.
//
// The gateway is at `localhost`, the providers at `127.0.0.1`: two sites. `make test-browser` runs this.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { gatewayKeys } from "../better-auth/harness/providers.mjs";
import { startProviders } from "../providers/start.mjs";
import { startChromium } from "./chromium.mjs";

const ends = [];
let browser;
let site;

before(async () => {
  const app = http.createServer((_, response) => {
    response.setHeader("content-type", "text/html");
    response.end("<p>The app");
  });
  app.listen(0, "127.0.0.1");
  await once(app, "listening");
  ends.push(() => app.close());
  const providers = await startProviders();
  ends.push(() => providers.stop());
  site = `http://localhost:${await freePort()}`;
  const keys = {};
  for (const kind of ["oidc", "apple"]) {
    const provider = await providers.provider({ kind });
    const client = await provider.register({ redirect_uris: [`${site}/api/auth/callback/${kind}`] });
    await provider.admit({ sub: "ada", email: `${kind}@example.test`, email_verified: true, name: "Ada Lovelace" });
    Object.assign(keys, gatewayKeys({ name: kind, kind, signUp: "allowed", url: provider.url, client }));
  }
  await startGateway(app.address().port, keys);
  browser = await startChromium();
  ends.push(() => browser.stop());
});

after(async () => {
  for (const end of ends.reverse()) await end();
});

async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}

/** `vestibule dev`, with a database of its own. */
async function startGateway(app, providers) {
  const folder = await mkdtemp(join(tmpdir(), "vestibule-browser-"));
  const keys = {
    "server.listen": new URL(site).host.replace("localhost", "127.0.0.1"),
    "server.public_url": site,
    "auth.rate_limit.enabled": false,
    "mail.from": "Example <no-reply@example.com>",
    "upstreams.app.endpoints": [`http://127.0.0.1:${app}`],
    ...providers,
  };
  const lines = Object.entries(keys).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  const secrets = ["database.url = { env = 'DATABASE_URL' }", "auth.secret = { env = 'VESTIBULE_SECRET' }"];
  const route = "[[routes]]\npath = '/*'\nupstream = 'app'\nauth = 'public'";
  const config = [...lines, ...secrets, "mail.smtp = { env = 'SMTP_URL' }", route, ""].join("\n");
  await writeFile(join(folder, "gateway.toml"), config);
  const gateway = spawn(process.env.VESTIBULE_BIN, ["dev", "--config", "gateway.toml"], { cwd: folder, stdio: "ignore" });
  ends.push(async () => {
    if (gateway.exitCode === null) {
      gateway.kill("SIGINT");
      await once(gateway, "exit");
    }
    await rm(folder, { recursive: true, force: true });
  });
  for (let tries = 0; ; tries++) {
    const up = await fetch(`${site}/api/auth/ok`).catch(() => undefined);
    if (up?.ok) return;
    assert.ok(tries < 300 && gateway.exitCode === null, "the gateway starts");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** From the app to the provider's form. */
async function leave(tab, provider) {
  const body = JSON.stringify({ provider, callbackURL: "/welcome", errorCallbackURL: "/sorry" });
  const url = await tab.run(
    `fetch("/api/auth/sign-in/social", { method: "POST", headers: { "content-type": "application/json" }, body: ${JSON.stringify(body)} })
      .then((answer) => answer.json()).then((answer) => answer.url)`,
  );
  await tab.open(url);
}

/** Through the provider's forms, and back. */
async function comeBack(tab, provider) {
  await tab.until(`document.querySelector("[name=login]")`);
  await tab.run(`{
    document.querySelector("[name=login]").value = "ada";
    document.querySelector("[name=password]").value = "password";
    document.forms[0].querySelector("button").click();
  }`);
  // Who agreed before is not asked again. Apple's own page sends its form by itself.
  const sendsBack = `document.forms[0]?.action.startsWith(${JSON.stringify(site)})`;
  const isBack = `location.origin === ${JSON.stringify(site)}`;
  await tab.until(`document.querySelector("[value=allow]") || ${sendsBack} || ${isBack}`);
  await tab.run(`document.querySelector("[value=allow]")?.click()`);
  if (provider === "apple") {
    await tab.until(sendsBack);
    await tab.run("document.forms[0].submit()");
  }
  await tab.until(`${isBack} && document.readyState === "complete"`);
}

const who = (tab) => tab.run(`fetch("/api/auth/get-session").then((answer) => answer.json()).then((it) => it?.user.email)`);

for (const provider of ["oidc", "apple"]) {
  test(`somebody comes back from ${provider} signed in`, async () => {
    const tab = await (await browser.person()).tab(site);
    await leave(tab, provider);
    await comeBack(tab, provider);
    assert.equal(await tab.run("location.pathname + location.search"), "/welcome");
    assert.equal(await who(tab), `${provider}@example.test`);
  });
}

test("two tabs of a browser come back one after the other", async () => {
  const person = await browser.person();
  const [first, second] = [await person.tab(site), await person.tab(site)];
  await leave(first, "oidc");
  await leave(second, "apple");
  await comeBack(first, "oidc");
  assert.equal(await who(first), "oidc@example.test");
  await comeBack(second, "apple");
  assert.equal(await second.run("location.pathname"), "/welcome");
  assert.equal(await who(second), "apple@example.test");
});
