// What no client can do, done by hand in the target's tables: let time pass, ban somebody, link an account.

import { randomUUID } from "node:crypto";

import { signJWT } from "better-auth/crypto";

import { isGateway } from "./site.mjs";

const MINUTE = 60 * 1000;
export const DAY = 24 * 60 * MINUTE;

const ago = (ms) => new Date(Date.now() - ms);

/** Lets a session have begun so long ago, and last for so long from now on. */
export async function ageSession(site, { id }, { age, left }) {
  const { rowCount } = await site.db.query(
    isGateway
      ? "UPDATE auth.user_sessions SET created_at = $2, expires_at = $3 WHERE id = $1"
      : 'UPDATE session SET "createdAt" = $2, "expiresAt" = $3 WHERE id = $1',
    [id, ago(age), ago(-left)],
  );
  if (rowCount !== 1) throw new Error(`there is no session ${id}`);
}

/** How many session rows a user has, whatever their state. */
export async function liveSessions(site, userId) {
  const { rows } = await site.db.query(
    isGateway
      ? "SELECT count(*)::int AS n FROM auth.user_sessions WHERE user_id = $1 AND revoked_at IS NULL"
      : 'SELECT count(*)::int AS n FROM session WHERE "userId" = $1',
    [userId],
  );
  return rows[0].n;
}

/** The same link, mailed to this address, when its time is over. */
export async function expired(site, link, email) {
  const url = new URL(link);
  if (isGateway) {
    await site.db.query("UPDATE auth.one_time_tokens SET expires_at = $2 WHERE email = $1", [email, ago(MINUTE)]);
    return link;
  }
  const token = url.searchParams.get("token");
  if (url.pathname.endsWith("/verify-email")) {
    const { iat: _, exp: __, ...claims } = JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
    url.searchParams.set("token", await signJWT(claims, site.secret, -60));
    return url.href;
  }
  const identifier = token ? `delete-account-${token}` : `reset-password:${url.pathname.split("/").at(-1)}`;
  await site.db.query('UPDATE verification SET "expiresAt" = $2 WHERE identifier = $1', [identifier, ago(MINUTE)]);
  return link;
}

export async function ban(site, email) {
  await site.db.query(
    isGateway
      ? "UPDATE auth.users SET banned = true WHERE email = $1"
      : 'UPDATE "user" SET banned = true WHERE email = $1',
    [email],
  );
}

/** Gives a user an account at a provider; its row's id. */
export async function linkProvider(site, userId, providerId, accountId) {
  const id = randomUUID();
  const now = new Date();
  await site.db.query(
    isGateway
      ? `INSERT INTO auth.accounts (id, user_id, provider_id, account_id, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $5)`
      : `INSERT INTO account (id, "userId", "providerId", "accountId", "createdAt", "updatedAt")
         VALUES ($1, $2, $3, $4, $5, $5)`,
    [id, userId, providerId, accountId, now],
  );
  return id;
}

/** Takes a user's password away: as somebody has none who always signs in at a provider. */
export async function removePassword(site, userId) {
  await site.db.query(
    isGateway
      ? "DELETE FROM auth.accounts WHERE user_id = $1 AND provider_id = 'credential'"
      : `DELETE FROM account WHERE "userId" = $1 AND "providerId" = 'credential'`,
    [userId],
  );
}

/** Removes a user and all that belongs to them. */
export async function removeUser(site, userId) {
  await site.db.query(isGateway ? "DELETE FROM auth.users WHERE id = $1" : 'DELETE FROM "user" WHERE id = $1', [
    userId,
  ]);
}
