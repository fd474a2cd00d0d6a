// Providers to sign in at, in one process: each test gets one of its own, on a port of its own.
//
// It says where it listens for orders, in one line of JSON: {"admin": "http://127.0.0.1:PORT"}. It ends when its standard
// input does, so that it never outlives whoever started it. The orders:
//
//   POST /providers                {"kind": "oidc" | "github" | "apple" | "microsoft", …options} -> {"id", "url", …}
//   POST /providers/ID/clients     registers a client (`redirect_uris`); what is not given is made up -> the client
//   POST /providers/ID/accounts    {"sub", …claims}: somebody who can sign in there, or who they are from now on
//   POST /providers/ID/options     changes options while it runs
//   POST /providers/ID/faults      {PLACE: FAULT, or null to lift it}; `faults.mjs` says which there are
//   POST /providers/ID/rotate      new keys; {"keep": true} leaves the old ones in the key set
//   POST /providers/ID/id-token    {"client_id", "sub", "nonce", …alterations}: as an app would have got one -> {"id_token"}
//   GET  /providers/ID/requests    what it was asked, in order

// oidc-provider gives advice for servers that are not tests, from the moment it is loaded.
console.info = () => {};
console.warn = () => {};

const { listen, readJson, sendJson } = await import("./http.mjs");
const { Oidc } = await import("./oidc.mjs");
const { Apple } = await import("./apple.mjs");
const { GitHub } = await import("./github.mjs");
const { Microsoft } = await import("./microsoft.mjs");

const KINDS = { oidc: Oidc, github: GitHub, apple: Apple, microsoft: Microsoft };
const ORDERS = {
  clients: "register",
  accounts: "admit",
  options: "change",
  faults: "fault",
  rotate: "rotate",
  "id-token": "idTokenFor",
};

const providers = new Map();

async function obey(request) {
  const [, what, id, order] = new URL(request.url, "http://admin").pathname.split("/");
  if (what !== "providers") throw new Error(`nothing is at ${request.url}`);
  if (id === undefined) {
    const { kind = "oidc", ...options } = await readJson(request);
    const provider = await KINDS[kind].start(options);
    providers.set(String(providers.size + 1), provider);
    return { id: String(providers.size), ...provider.about() };
  }
  const provider = providers.get(id);
  if (order === "requests") return provider.requests;
  return (await provider[ORDERS[order]](await readJson(request))) ?? {};
}

const admin = await listen(async (request, response) => {
  try {
    sendJson(response, 200, await obey(request));
  } catch (error) {
    sendJson(response, 500, { error: error.stack });
  }
});

process.stdin.resume();
process.stdin.on("error", () => process.exit());
process.stdin.on("close", () => process.exit());
process.stdout.write(`${JSON.stringify({ admin: admin.url })}\n`);
