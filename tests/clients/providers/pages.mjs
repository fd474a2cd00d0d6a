// What people see at a provider: a form to sign in, and one to agree. Whoever clicks through them finds the fields by name:
// `login` and `password`; `decision`, which is `allow` or `deny`.

import { send } from "./http.mjs";

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

export const escape = (text) => String(text).replace(/[&<>"]/g, (character) => ESCAPES[character]);

const hidden = (fields) =>
  Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `<input type="hidden" name="${escape(name)}" value="${escape(value)}">`)
    .join("\n");

function page(title, action, content) {
  return `<!doctype html>
<title>${escape(title)}</title>
<form method="post" action="${escape(action)}">
${content}
</form>
`;
}

export const loginPage = ({ action, fields = {}, hint = "", error }) =>
  page(
    "Sign in",
    action,
    `${error ? `<p role="alert">${escape(error)}</p>\n` : ""}${hidden(fields)}
<input type="text" name="login" value="${escape(hint)}">
<input type="password" name="password">
<button type="submit">Sign in</button>`,
  );

export const consentPage = ({ action, fields = {}, client, scopes }) =>
  page(
    "Agree",
    action,
    `<p>${escape(client)} asks for: ${escape(scopes)}</p>
${hidden(fields)}
<button type="submit" name="decision" value="allow">Allow</button>
<button type="submit" name="decision" value="deny">Deny</button>`,
  );

/** OAuth 2.0 Form Post Response Mode: a script would submit it at once. */
export const formPost = (action, fields) => page("Back to the app", action, hidden(fields));

export const sendPage = (response, status, html, headers = {}) =>
  send(response, status, { "content-type": "text/html; charset=utf-8", ...headers }, html);
