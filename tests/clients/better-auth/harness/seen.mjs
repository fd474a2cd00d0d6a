// Which answers were seen, for comparing them with what is documented.
//
// VESTIBULE_CLIENTS_SEEN names a file; it gets a JSON array of {"method", "path", "status", "code"}, each once, sorted.
// `path` is below the base path, with parameters as OpenAPI writes them; `code` is null where the body has none.

import { writeFile } from "node:fs/promises";

export const BASE_PATH = "/api/auth";

const FILE = process.env.VESTIBULE_CLIENTS_SEEN;
const seen = new Set();

const PARAMETERS = { "reset-password": "{token}", callback: "{provider}" };

/** Notes an answer of the auth API. `body` is its text. */
export function note(method, url, status, body) {
  const { pathname } = new URL(url);
  if (!FILE || !pathname.startsWith(`${BASE_PATH}/`)) return;
  const path = pathname
    .slice(BASE_PATH.length)
    .replace(/^\/(reset-password|callback)\/[^/]+$/, (_, what) => `/${what}/${PARAMETERS[what]}`);
  seen.add(JSON.stringify({ method, path, status, code: codeIn(body) }));
}

export async function writeSeen() {
  if (!FILE) return;
  const entries = [...seen].sort().map((entry) => JSON.parse(entry));
  await writeFile(FILE, `${JSON.stringify(entries, null, 2)}\n`);
}

function codeIn(body) {
  try {
    return JSON.parse(body)?.code ?? null;
  } catch {
    return null;
  }
}
