// Makes a better-auth database of many users, as a site has that comes to the gateway from there.
//
//   node seed.mjs --url postgres://… [--users 100000] [--signed-in 10] [--out FILE.json] [--prisma-names]
//
// What is real: better-auth's own migrations make the tables; the first user of each kind is written by better-auth's own
// adapter, and every other one is a copy of its rows with id, address, name and password of its own; passwords are hashed
// by better-auth. Hashing one takes 50 ms, so there are 50 of them, and each user has one of these. The signed-in users
// sign in over HTTP at a running better-auth server: their cookies are what browsers hold.
//
// One user in ten also has a Google account, one in fifty only that; one in ten has not verified the address; one in a
// thousand is banned, one in a thousand an admin.
//
// FILE.json: {"secret", "users": [{"email", "password", "cookie"}]}, `cookie` being a whole Cookie header.
//
// --prisma-names: tables as Prisma makes them for models without @@map ("User" in place of "user"), with its column types:
// `timestamp(3)`, in UTC, in place of `timestamptz`. (The schema that better-auth generates for Prisma maps the models to
// better-auth's own table names; columns are named alike in both.)

import { randomBytes, randomInt } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";

import { hashPassword } from "better-auth/crypto";

import { freePort } from "./harness/ports.mjs";
import { start } from "./reference/start.mjs";

const PASSWORDS = 50;
const ROWS_PER_INSERT = 2_000;
const DAY = 24 * 60 * 60 * 1000;

const { values } = parseArgs({
  options: {
    url: { type: "string" },
    users: { type: "string", default: "100000" },
    "signed-in": { type: "string", default: "10" },
    out: { type: "string" },
    "prisma-names": { type: "boolean", default: false },
  },
});
if (!values.url) {
  console.error(
    "usage: node seed.mjs --url postgres://… [--users N] [--signed-in N] [--out FILE.json] [--prisma-names]",
  );
  process.exit(2);
}
const count = Number(values.users);
const signedIn = Math.min(Number(values["signed-in"]), count);

const secret = randomBytes(32).toString("base64");
const port = await freePort();
const url = `http://localhost:${port}`;
const server = await start({ scenario: "default", databaseUrl: values.url, secret, port });
const { pool } = server;
const { generateId, internalAdapter } = await server.auth.$context;
const newId = (model) => generateId({ model });

const passwords = Array.from({ length: PASSWORDS }, (_, n) => `old password number ${n}`);
const hashes = await Promise.all(passwords.map((password) => hashPassword(password)));

const known = await insertUsers();
const users = [];
for (const user of pick(known, signedIn)) users.push({ ...user, cookie: await signIn(user) });
await server.stop().catch(() => {});
if (values["prisma-names"]) await useNamesOfPrisma();
if (values.out) await writeFile(values.out, `${JSON.stringify({ secret, users }, null, 2)}\n`);
console.log(`${count} users, ${users.length} of them signed in`);

/** Writes them all; returns those who can sign in with a password. */
async function insertUsers() {
  const sample = await writeSamples();
  const able = [];
  for (let begin = 0; begin < count; begin += ROWS_PER_INSERT) {
    const rows = { user: [], account: [] };
    for (let n = begin; n < Math.min(begin + ROWS_PER_INSERT, count); n += 1) {
      const id = newId("user");
      const createdAt = new Date(Date.now() - randomInt(30 * DAY, 700 * DAY));
      const dates = { createdAt, updatedAt: createdAt };
      const user = {
        ...sample.user,
        ...dates,
        id,
        name: `Person ${n}`,
        email: `person-${n}@example.test`,
        emailVerified: n % 10 !== 1,
        image: n % 3 === 0 ? `https://images.example.test/${n}.png` : null,
        role: n % 1000 === 7 ? "admin" : "user",
      };
      if (n % 1000 === 13) Object.assign(user, { banned: true, banReason: "Spam" });
      rows.user.push(user);
      const hasPassword = n % 50 !== 2;
      if (hasPassword) {
        const password = hashes[n % PASSWORDS];
        rows.account.push({
          ...sample.credential,
          ...dates,
          id: newId("account"),
          accountId: id,
          userId: id,
          password,
        });
      }
      if (!hasPassword || n % 10 === 4) {
        rows.account.push({
          ...sample.google,
          ...dates,
          id: newId("account"),
          accountId: `1${String(n).padStart(20, "0")}`,
          userId: id,
        });
      }
      if (hasPassword && user.emailVerified && !user.banned) {
        able.push({ email: user.email, password: passwords[n % PASSWORDS] });
      }
    }
    await insert("user", rows.user);
    await insert("account", rows.account);
  }
  return able;
}

/** One row of each kind as better-auth writes it, read back and removed. */
async function writeSamples() {
  const user = await internalAdapter.createUser({ name: "Sample", email: "sample@example.test", emailVerified: true });
  const link = (account) => internalAdapter.linkAccount({ userId: user.id, ...account });
  await link({ providerId: "credential", accountId: user.id, password: hashes[0] });
  await link({
    providerId: "google",
    accountId: "100000000000000000000",
    accessToken: "an-access-token",
    refreshToken: "a-refresh-token",
    idToken: "an.id.token",
    accessTokenExpiresAt: new Date(Date.now() + DAY),
    scope: "email,profile,openid",
  });
  const row = async (sql) => (await pool.query(sql, [user.id])).rows[0];
  const sample = {
    user: await row('SELECT * FROM "user" WHERE id = $1'),
    credential: await row(`SELECT * FROM account WHERE "userId" = $1 AND "providerId" = 'credential'`),
    google: await row(`SELECT * FROM account WHERE "userId" = $1 AND "providerId" = 'google'`),
  };
  await pool.query('DELETE FROM "user" WHERE id = $1', [user.id]);
  return sample;
}

async function insert(table, rows) {
  if (rows.length === 0) return;
  // The row type of the table itself gives the columns and their types.
  const sql = `INSERT INTO "${table}" SELECT * FROM jsonb_populate_recordset(NULL::"${table}", $1)`;
  await pool.query(sql, [JSON.stringify(rows)]);
}

function pick(all, wanted) {
  const chosen = new Set();
  while (chosen.size < Math.min(wanted, all.length)) chosen.add(all[randomInt(all.length)]);
  return chosen;
}

/** The Cookie header that a browser has afterwards, on a site where one person at a time is signed in. */
async function signIn({ email, password }) {
  const response = await fetch(`${url}/api/auth/sign-in/email`, {
    method: "POST",
    headers: { "content-type": "application/json", origin: url, "user-agent": "seed/1.0" },
    body: JSON.stringify({ email, password }),
  });
  if (!response.ok) throw new Error(`${email} can't sign in: ${response.status} ${await response.text()}`);
  return response.headers
    .getSetCookie()
    .map((cookie) => cookie.split(";")[0])
    .filter((cookie) => !cookie.includes("_multi-"))
    .join("; ");
}

async function useNamesOfPrisma() {
  const { default: pg } = await import("pg");
  const client = new pg.Client({ connectionString: values.url });
  await client.connect();
  const dates = await client.query(
    `SELECT table_name, column_name FROM information_schema.columns
     WHERE table_schema = current_schema() AND data_type = 'timestamp with time zone'`,
  );
  for (const { table_name: table, column_name: column } of dates.rows) {
    await client.query(
      `ALTER TABLE "${table}" ALTER COLUMN "${column}" TYPE timestamp(3) USING "${column}" AT TIME ZONE 'UTC'`,
    );
  }
  const tables = await client.query("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()");
  for (const { tablename: name } of tables.rows) {
    await client.query(`ALTER TABLE "${name}" RENAME TO "${name[0].toUpperCase()}${name.slice(1)}"`);
  }
  await client.end();
}
