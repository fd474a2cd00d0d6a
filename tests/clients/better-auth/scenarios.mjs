// The configurations that the tests ask for by name: keys of `gateway.toml`, and the same in better-auth's words.
//
// Each is a server of its own with a database of its own, started when the first test asks for it. What all of them have
// in common is in `harness/gateway.mjs` and `reference/options.mjs`; here is only what makes one special.

/** A second origin that is trusted, and a scheme of an app. */
export const TRUSTED = ["https://*.trusted.test", "suite-app://"];

export const scenarios = {
  // Addresses must be verified; both addresses agree to a change; a password or a fresh session deletes an account.
  default: { gateway: {}, reference: {} },

  // Sign-up signs in at once.
  open: {
    gateway: { "auth.email_verification.required": false },
    reference: { requireEmailVerification: false },
  },

  // Nobody may sign up.
  closed: {
    gateway: { "auth.sign_up": false },
    reference: { signUp: false },
  },

  // A link in a mail deletes an account.
  "mail-delete": {
    gateway: { "auth.account.delete_user": "mail" },
    reference: { deleteUser: "mail" },
  },

  // Only the new address confirms a change.
  "change-new": {
    gateway: { "auth.account.change_email": "new" },
    reference: { changeEmail: "new" },
  },

  // An account keeps its address, and stays.
  off: {
    gateway: { "auth.account.change_email": "off", "auth.account.delete_user": "off" },
    reference: { changeEmail: "off", deleteUser: "off" },
  },

  // Rate limits are on. The address is the one that a trusted proxy names, so that each test has its own.
  limits: {
    gateway: { "auth.rate_limit.enabled": true, "server.trusted_proxies": ["127.0.0.1"] },
    reference: { rateLimit: true },
  },

  // People sign in at providers, of a kind each.
  social: {
    gateway: {},
    reference: {},
    providers: {
      google: { kind: "google" },
      github: { kind: "github" },
      apple: { kind: "apple" },
      acme: { kind: "oidc" },
      // Nobody gets an account who comes from there, or only where the app asks for it.
      closed: { kind: "oidc", signUp: "off" },
      asked: { kind: "oidc", signUp: "on-request" },
      // Its access tokens are as good as expired.
      brief: { kind: "oidc", options: { access_token_seconds: 3 } },
      // Tests have things go wrong there.
      ill: { kind: "oidc" },
    },
  },
};
