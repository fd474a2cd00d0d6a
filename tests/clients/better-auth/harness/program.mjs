// A program that the tests start and stop.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const PATIENCE_MS = 60_000;
/** After that it is killed. */
const STOP_MS = 10_000;

/** Should the tests end in whatever way, nothing goes on running. */
const running = new Set();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** Starts it; resolves when a line that it says has `sign` in it. */
export function startProgram(command, args, { env, sign }) {
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  running.add(child);
  // The last lines of both outputs.
  const said = [];
  const ended = new Promise((resolve) => {
    child.once("exit", (code, signal) => {
      running.delete(child);
      resolve(signal ?? code);
    });
  });
  const program = {
    async stop() {
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
      await ended;
      clearTimeout(timer);
    },
  };
  return new Promise((resolve, reject) => {
    const fail = (what) => reject(new Error(`${command} ${args.join(" ")} ${what}:\n${said.join("\n")}`));
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      fail(`does not say "${sign}"`);
    }, PATIENCE_MS);
    const hear = (line) => {
      said.push(line);
      if (said.length > 200) said.shift();
      if (!line.includes(sign)) return;
      clearTimeout(timer);
      resolve(program);
    };
    createInterface({ input: child.stdout }).on("line", hear);
    createInterface({ input: child.stderr }).on("line", hear);
    child.once("error", (error) => fail(`can't be started (${error.message})`));
    ended.then((how) => {
      clearTimeout(timer);
      fail(`ended (${how}) before it said "${sign}"`);
    });
  });
}
