// The gateway under test: the real program, with a `gateway.toml` of its own.

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { TRUSTED, scenarios } from "../scenarios.mjs";
import { gatewayKeys } from "./providers.mjs";
import { startProgram } from "./program.mjs";

/** Of every scenario; its own keys come over them. */
const common = ({ port, databaseUrl, smtpPort, secret }) => ({
  "server.listen": `127.0.0.1:${port}`,
  "server.public_url": `http://localhost:${port}`,
  "server.workers": 1,
  "server.drain_delay": "0s",
  "server.shutdown_grace": "1s",
  "admin.listen": "127.0.0.1:0",
  "database.url": databaseUrl,
  "database.pool_size": 8,
  "auth.secret": secret,
  "auth.trusted_origins": TRUSTED,
  // As in the contract.
  "auth.session.cookie.prefix": "better-auth",
  // What a hash costs is not what is tested.
  "auth.password.argon2.memory": "64KiB",
  "auth.password.argon2.iterations": 1,
  "auth.rate_limit.enabled": false,
  "mail.from": "Example <no-reply@example.com>",
  "mail.smtp": `smtp://127.0.0.1:${smtpPort}`,
});

export async function startGateway(server) {
  const binary = process.env.VESTIBULE_BIN;
  if (!binary) throw new Error("VESTIBULE_BIN must name the gateway's program, such as target/debug/vestibule");
  const folder = await mkdtemp(join(tmpdir(), "vestibule-clients-"));
  const config = join(folder, "gateway.toml");
  await writeFile(config, gatewayToml(server));
  const program = await startProgram(binary, ["serve", "--config", config], { sign: '"serving ' });
  return {
    async stop() {
      await program.stop();
      await rm(folder, { recursive: true });
    },
  };
}

/** TOML's dotted keys; its strings, numbers, booleans and arrays of strings are written as JSON's are. */
function gatewayToml(server) {
  const keys = Object.assign(common(server), scenarios[server.scenario].gateway, ...server.providers.map(gatewayKeys));
  const lines = Object.entries(keys).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  return `${lines.join("\n")}\n`;
}
