// A real better-auth server in this process, on its own tables and with mails over SMTP.

import { createServer } from "node:http";
import { promisify } from "node:util";

import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import { toNodeHandler } from "better-auth/node";
import { createTransport } from "nodemailer";
import pg from "pg";

import { options } from "./options.mjs";
import { redirectFetch } from "./providers.mjs";

/**
 * @param {object} server
 * @param {string} server.scenario a name from `scenarios.mjs`
 * @param {string} server.databaseUrl an empty database
 * @param {string} server.secret
 * @param {number} server.port on the loopback interface; browsers find it at `http://localhost:PORT`
 * @param {number} [server.smtpPort] without it no mail can be sent
 * @param {object[]} [server.providers] as `harness/providers.mjs` registers them
 */
export async function start({ scenario, databaseUrl, secret, port, smtpPort, providers = [] }) {
  redirectFetch(providers);
  const pool = new pg.Pool({ connectionString: databaseUrl, max: 8 });
  const transport = createTransport({ host: "127.0.0.1", port: smtpPort, ignoreTLS: true, pool: true });
  const send = ({ to, subject, link }) =>
    transport.sendMail({ from: "Example <no-reply@example.com>", to, subject, text: `Open this link:\n\n${link}\n` });
  const chosen = options({ scenario, url: `http://localhost:${port}`, pool, secret, providers, send });
  const { runMigrations } = await getMigrations(chosen);
  await runMigrations();
  const auth = betterAuth(chosen);
  const answer = toNodeHandler(auth);
  const server = createServer((request, response) => {
    // As a front server would: better-auth does not see the peer. What a test says stands, as from a trusted proxy.
    request.headers["x-forwarded-for"] ??= request.socket.remoteAddress;
    answer(request, response);
  });
  await promisify(server.listen.bind(server))(port, "127.0.0.1");
  return {
    auth,
    pool,
    async stop() {
      server.closeAllConnections();
      await promisify(server.close.bind(server))();
      transport.close();
      await pool.end();
    },
  };
}
