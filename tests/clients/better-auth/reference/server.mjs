// The program around `start.mjs`. What it needs to know comes as JSON in the environment; it says when it listens.

import { start } from "./start.mjs";

const server = JSON.parse(process.env.REFERENCE_SERVER);
await start(server);
process.stdout.write(`listening on ${server.port}\n`);
