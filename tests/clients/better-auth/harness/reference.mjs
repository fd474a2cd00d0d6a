// The original under test: `reference/server.mjs`, as a process of its own.

import { fileURLToPath } from "node:url";

import { startProgram } from "./program.mjs";

const PROGRAM = fileURLToPath(new URL("../reference/server.mjs", import.meta.url));

export function startReference(server) {
  const env = {
    REFERENCE_SERVER: JSON.stringify(server),
    // In its test mode it checks no origins, in production it shows no error page.
    NODE_ENV: "development",
    NODE_TEST_CONTEXT: "",
  };
  return startProgram(process.execPath, [PROGRAM], { env, sign: "listening on" });
}
