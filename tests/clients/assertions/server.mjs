// An application that verifies assertions with what docs/assertion.md shows: `claims` of the module that is named.
//
// Usage: node server.mjs MODULE
//
// Prints its port, and serves until its standard input ends: 200 with the claims, 401 with the reason.

import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const { claims } = await import(pathToFileURL(process.argv[2]));

const server = createServer(async (request, response) => {
  try {
    const said = await claims(request);
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(said));
  } catch (error) {
    response.writeHead(401, { "content-type": "text/plain" }).end(`${error.code}: ${error.message}`);
  }
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.resume().on("end", () => process.exit());
