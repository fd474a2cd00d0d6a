// A running server in one of the scenarios, whichever target is under test, with what the tests need around it.

import { randomBytes } from "node:crypto";
import dns from "node:dns";
import { after } from "node:test";

import pg from "pg";

import { scenarios } from "../scenarios.mjs";
import { startGateway } from "./gateway.mjs";
import { Mailbox } from "./mailbox.mjs";
import { freePort } from "./ports.mjs";
import { providersOf, stopProviders } from "./providers.mjs";
import { startReference } from "./reference.mjs";
import { writeSeen } from "./seen.mjs";

// The targets listen on 127.0.0.1 alone.
dns.setDefaultResultOrder("ipv4first");

/** What is under test: "gateway", or "reference" for the original. */
export const TARGET = process.env.VESTIBULE_CLIENTS_TARGET ?? "gateway";
if (!["gateway", "reference"].includes(TARGET)) throw new Error(`VESTIBULE_CLIENTS_TARGET is "${TARGET}"`);
export const isGateway = TARGET === "gateway";

const ADMIN_URL = process.env.VESTIBULE_CLIENTS_POSTGRES;
if (!ADMIN_URL)
  throw new Error("VESTIBULE_CLIENTS_POSTGRES must be a URL of a Postgres where databases may be created");

/** Ports tried; somebody else may have taken one between looking and listening. */
const ATTEMPTS = 3;

/** The whole suite; a run that hangs ends by itself, and what it started with it. */
const PATIENCE_MS = 5 * 60_000;

const run = randomBytes(4).toString("hex");
const sites = new Map();
let mailbox;

/** The server of a scenario, started by whoever asks first. */
export function site(scenario = "default") {
  if (!sites.has(scenario)) sites.set(scenario, start(scenario));
  return sites.get(scenario);
}

for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));
setTimeout(() => {
  console.error("the tests do not end");
  process.exit(1);
}, PATIENCE_MS).unref();

after(async () => {
  const started = await Promise.allSettled(sites.values());
  await Promise.all(started.map(({ value }) => value?.stop()));
  await (await mailbox)?.stop();
  await stopProviders();
  await writeSeen();
});

async function start(scenario) {
  mailbox ??= Mailbox.start();
  const database = await createDatabase(`clients_${scenario.replace("-", "_")}_${run}`);
  const secret = randomBytes(32).toString("base64");
  const { byName, register } = await providersOf(scenarios[scenario].providers);
  for (let attempt = 1; ; attempt += 1) {
    const port = await freePort();
    const url = `http://localhost:${port}`;
    const providers = await register(url);
    const server = { scenario, databaseUrl: database.url, secret, port, smtpPort: (await mailbox).port, providers };
    try {
      const program = await (isGateway ? startGateway(server) : startReference(server));
      return {
        scenario,
        url,
        secret,
        mailbox: await mailbox,
        db: database.pool,
        providers: byName,
        clients: new Map(providers.map(({ name, client }) => [name, client])),
        async stop() {
          await program.stop();
          await database.drop();
        },
      };
    } catch (error) {
      if (attempt === ATTEMPTS || !/in use|EADDRINUSE/.test(error.message)) throw error;
    }
  }
}

async function createDatabase(name) {
  const admin = new pg.Client({ connectionString: ADMIN_URL });
  await admin.connect();
  await admin.query(`CREATE DATABASE ${name}`);
  const url = Object.assign(new URL(ADMIN_URL), { pathname: `/${name}` }).href;
  const pool = new pg.Pool({ connectionString: url, max: 4 });
  // Connections that are closing when the database is dropped are told so.
  pool.on("error", () => {});
  return {
    url,
    pool,
    async drop() {
      await pool.end();
      await admin.query(`DROP DATABASE ${name} WITH (FORCE)`);
      await admin.end();
    },
  };
}
