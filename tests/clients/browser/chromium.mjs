// A Chromium without a window, told what to do over the DevTools protocol.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

import WebSocket from "ws";

/** For whatever a page is waited for. */
const A_WHILE = 15_000;

export async function startChromium(program = process.env.CHROMIUM ?? "chromium") {
  const folder = await mkdtemp(join(tmpdir(), "vestibule-browser-"));
  // Its sandbox does not start for root, as whom containers run; nothing but this machine's own pages is opened.
  const flags = ["--headless", "--no-sandbox", "--no-first-run", "--disable-gpu", "--remote-debugging-port=0"];
  const child = spawn(program, [...flags, `--user-data-dir=${folder}`, "about:blank"], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const socket = new WebSocket(await debuggerOf(child));
  await once(socket, "open");
  const browser = new Browser(socket);
  return Object.assign(browser, {
    async stop() {
      socket.close();
      child.kill();
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
      await rm(folder, { recursive: true, force: true });
    },
  });
}

/** Where it listens is in the first lines that it says. */
async function debuggerOf(child) {
  const failed = once(child, "error").then(([error]) => {
    throw new Error(`a browser is needed: install chromium, or name one in CHROMIUM (${error.message})`);
  });
  const said = (async () => {
    for await (const line of createInterface({ input: child.stderr })) {
      const url = line.match(/^DevTools listening on (ws:\S+)/)?.[1];
      if (url) return url;
    }
    throw new Error("the browser ended before it listened");
  })();
  const url = await Promise.race([said, failed]);
  child.stderr.resume();
  return url;
}

class Browser {
  #socket;
  #waiting = new Map();
  #last = 0;

  constructor(socket) {
    this.#socket = socket;
    socket.on("message", (text) => {
      const { id, result, error } = JSON.parse(text);
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error) waiting?.reject(new Error(error.message));
      else waiting?.resolve(result);
    });
  }

  send(method, params = {}, sessionId) {
    const id = ++this.#last;
    this.#socket.send(JSON.stringify({ id, method, params, sessionId }));
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  /** A jar of cookies of its own. */
  async person() {
    const { browserContextId } = await this.send("Target.createBrowserContext");
    return { tab: (url) => this.#tab(browserContextId, url) };
  }

  async #tab(browserContextId, url) {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank", browserContextId });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const tab = new Tab((method, params) => this.send(method, params, sessionId));
    await tab.open(url);
    return tab;
  }
}

class Tab {
  #send;

  constructor(send) {
    this.#send = send;
  }

  async open(url) {
    await this.#send("Page.navigate", { url });
    await this.until(`document.readyState === "complete" && location.href !== "about:blank"`);
  }

  /** What a script in the page comes to. */
  async run(expression) {
    const asked = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await this.#send("Runtime.evaluate", asked);
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Waits until that is so, on whichever page it will be; a page that goes away answers nothing. */
  async until(expression) {
    const end = Date.now() + A_WHILE;
    for (;;) {
      if (await this.run(expression).catch(() => false)) return;
      if (Date.now() > end) {
        const where = await this.run("location.href + ': ' + document.body?.innerText").catch(String);
        throw new Error(`never came true: ${expression}; at ${where}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
