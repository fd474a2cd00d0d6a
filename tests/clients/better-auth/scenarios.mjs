// The configurations that the tests ask for by name: what `gateway.toml` says, and the same in better-auth's options.
//
// Each is a server of its own with a database of its own, started when the first test asks for it. What all of them have
// in common is in `harness/gateway.mjs` and `reference/options.mjs`; here is only what makes one special.

/** A second origin that is trusted, and a scheme of an app. */
export const TRUSTED = ["https://*.trusted.test", "suite-app://"];

export const scenarios = {
  // Addresses must be verified; both addresses agree to a change; a password or a fresh session deletes an account.
  default: {
    gateway: "",
    reference: {},
  },

  // Sign-up signs in at once.
  open: {
    gateway: "[auth.email_verification]\nrequired = false\n",
    reference: { requireEmailVerification: false, sendOnSignUp: true },
  },

  // A link in a mail deletes an account.
  "mail-delete": {
    gateway: '[auth.account]\ndelete_user = "mail"\n',
    reference: { deleteUser: "mail" },
  },

  // Only the new address confirms a change.
  "change-new": {
    gateway: '[auth.account]\nchange_email = "new"\n',
    reference: { changeEmail: "new" },
  },

  // What can be switched off is off.
  off: {
    gateway: '[auth]\nsign_up = false\n[auth.account]\nchange_email = "off"\ndelete_user = "off"\n',
    reference: { signUp: false, changeEmail: "off", deleteUser: "off" },
  },

  // Several people signed in side by side in one browser.
  multi: {
    gateway: "[auth.session]\nmulti = true\n",
    reference: { multiSession: true },
  },

  // Rate limits are on. The address is the one that a trusted proxy names, so that each test has its own.
  limits: {
    gateway: '[server]\ntrusted_proxies = ["127.0.0.1"]\n[auth.rate_limit]\nenabled = true\n',
    reference: { rateLimit: true },
  },
};
