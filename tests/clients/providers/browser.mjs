// Hands that click through a provider's pages by HTTP: a cookie jar, redirects followed, forms found and filled in. It
// stops at the door of the app: what the browser would take there is the result.

/** No way through a provider has more steps. */
const STEPS = 20;

export class ProviderBrowser {
  /** By origin: [{name, value, path}]. */
  #jar = new Map();

  /**
   * Opens an authorisation URL, signs in and agrees (or, with `decision: "deny"`, does not), until the provider leads to
   * `redirectUri`. Gives `{url}`, or, where the provider posts a form there, `{url, form}`.
   */
  async visit(authorizationUrl, redirectUri, { login, password = "password", decision = "allow" }) {
    let step = { method: "GET", url: authorizationUrl };
    for (let n = 0; n < STEPS; n += 1) {
      if (leadsTo(step.url, redirectUri)) return { url: step.url, form: step.form };
      const response = await this.#send(step);
      const location = response.headers.get("location");
      if (location) {
        step = { method: "GET", url: new URL(location, step.url).href };
        continue;
      }
      const html = await response.text();
      const form = formIn(html);
      if (!form || response.status >= 400) throw new Error(`${step.url}: ${response.status} ${html}`);
      const fields = { ...form.fields };
      if ("login" in fields) Object.assign(fields, { login, password });
      if (form.buttons.includes("decision")) fields.decision = decision;
      step = { method: "POST", url: new URL(form.action, step.url).href, form: fields };
    }
    throw new Error(`${authorizationUrl} leads nowhere`);
  }

  async #send({ method, url, form }) {
    const { origin, pathname } = new URL(url);
    const jar = this.#jar.get(origin) ?? [];
    this.#jar.set(origin, jar);
    const sent = jar.filter(
      ({ path }) => pathname === path || pathname.startsWith(path.endsWith("/") ? path : `${path}/`),
    );
    const response = await fetch(url, {
      method,
      redirect: "manual",
      headers: sent.length > 0 ? { cookie: sent.map(({ name, value }) => `${name}=${value}`).join("; ") } : {},
      body: form && new URLSearchParams(form),
    });
    for (const line of response.headers.getSetCookie()) keep(jar, line, pathname);
    return response;
  }
}

function leadsTo(url, redirectUri) {
  const { origin, pathname } = new URL(url);
  return `${origin}${pathname}` === redirectUri;
}

function keep(jar, line, pathname) {
  const [pair, ...attributes] = line.split("; ");
  const [name, ...rest] = pair.split("=");
  const attribute = (wanted) =>
    attributes.find((one) => one.toLowerCase().startsWith(`${wanted}=`))?.slice(wanted.length + 1);
  const path = attribute("path") ?? pathname;
  const at = jar.findIndex((cookie) => cookie.name === name && cookie.path === path);
  if (at >= 0) jar.splice(at, 1);
  const expires = attribute("expires");
  if (expires && new Date(expires) < new Date()) return;
  jar.push({ name, value: rest.join("="), path });
}

/** The first form of a page. Its fields come in double quotes, as our pages write them. */
function formIn(html) {
  const tag = html.match(/<form [^>]*>/)?.[0];
  if (!tag) return undefined;
  const fields = {};
  for (const [input] of html.matchAll(/<input [^>]*>/g))
    fields[attributeOf(input, "name")] = attributeOf(input, "value") ?? "";
  const buttons = [...html.matchAll(/<button [^>]*>/g)].map(([button]) => attributeOf(button, "name"));
  return { action: attributeOf(tag, "action"), fields, buttons };
}

function attributeOf(tag, name) {
  const value = tag.match(new RegExp(` ${name}="([^"]*)"`))?.[1];
  return value
    ?.replace(/&lt;/g, "<")
    .replace(/&gt;/g, ">")
    .replace(/&quot;/g, '"')
    .replace(/&amp;/g, "&");
}
