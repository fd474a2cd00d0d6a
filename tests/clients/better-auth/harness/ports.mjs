// Ports for programs that must be told one before they listen.

import { randomInt } from "node:crypto";
import { createServer } from "node:net";

/** Nobody listens there. The ports that the system hands out by itself are above, so nobody else is given it meanwhile. */
export async function freePort() {
  for (;;) {
    const port = randomInt(10_000, 20_000);
    if (await isFree(port)) return port;
  }
}

function isFree(port) {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}
