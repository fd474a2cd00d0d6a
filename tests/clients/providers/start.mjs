// Starts the process of `main.mjs` and orders providers from it, for tests in Node.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const MAIN = fileURLToPath(new URL("main.mjs", import.meta.url));

export async function startProviders() {
  // Whose standard input ends with this process, however that ends.
  const child = spawn(process.execPath, [MAIN], { stdio: ["pipe", "pipe", "inherit"] });
  const ended = once(child, "exit");
  const lines = createInterface({ input: child.stdout });
  const [line] = await Promise.race([
    once(lines, "line"),
    ended.then(() => Promise.reject(new Error("the providers don't start"))),
  ]);
  const { admin } = JSON.parse(line);
  return {
    provider: (options) => ordered(admin, options),
    async stop() {
      child.stdin.end();
      await ended;
    },
  };
}

async function ordered(admin, options) {
  const about = await order(`${admin}/providers`, options);
  const to = (what) => (body) => order(`${admin}/providers/${about.id}/${what}`, body);
  return {
    ...about,
    register: to("clients"),
    admit: to("accounts"),
    change: to("options"),
    fault: to("faults"),
    rotate: to("rotate"),
    idToken: to("id-token"),
    async requests(place) {
      const response = await fetch(`${admin}/providers/${about.id}/requests`);
      return (await response.json()).filter((request) => place === undefined || request.place === place);
    },
  };
}

async function order(url, body = {}) {
  const response = await fetch(url, { method: "POST", body: JSON.stringify(body) });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}
