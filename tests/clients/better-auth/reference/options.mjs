// better-auth's own options for a scenario: what the gateway does by default is said here in better-auth's words.

import { admin, bearer, multiSession, twoFactor } from "better-auth/plugins";

import { TRUSTED, scenarios } from "../scenarios.mjs";
import { providerOptions } from "./providers.mjs";

const MINUTE = 60;

/**
 * @param {object} server
 * @param {string} server.scenario a name from `scenarios.mjs`
 * @param {string} server.url where browsers find it
 * @param {import("pg").Pool} server.pool its database
 * @param {string} server.secret signs cookies and links
 * @param {object[]} [server.providers] as `harness/providers.mjs` registers them
 * @param {(mail: {to: string, subject: string, link: string}) => Promise<unknown>} server.send
 */
export function options({ scenario, url, pool, secret, providers = [], send }) {
  const {
    changeEmail = "both",
    deleteUser = "session",
    rateLimit = false,
    requireEmailVerification = true,
    signUp = true,
  } = scenarios[scenario].reference;
  const { socialProviders, plugins } = providerOptions(providers);
  return {
    baseURL: url,
    secret,
    database: pool,
    trustedOrigins: TRUSTED,
    telemetry: { enabled: false },
    logger: { level: "error" },
    emailAndPassword: {
      enabled: true,
      disableSignUp: !signUp,
      requireEmailVerification,
      revokeSessionsOnPasswordReset: true,
      sendResetPassword: ({ user, url }) => send({ to: user.email, subject: "Reset your password", link: url }),
    },
    emailVerification: {
      sendOnSignIn: true,
      autoSignInAfterVerification: true,
      expiresIn: 15 * MINUTE,
      sendVerificationEmail: ({ user, url }) => send({ to: user.email, subject: "Verify your address", link: url }),
    },
    user: {
      changeEmail: {
        enabled: changeEmail !== "off",
        ...(changeEmail === "both" && {
          sendChangeEmailConfirmation: ({ user, url }) =>
            send({ to: user.email, subject: "Approve your new address", link: url }),
        }),
      },
      deleteUser: {
        enabled: deleteUser !== "off",
        ...(deleteUser === "mail" && {
          sendDeleteAccountVerification: ({ user, url }) =>
            send({ to: user.email, subject: "Delete your account", link: url }),
        }),
      },
    },
    rateLimit: { enabled: rateLimit },
    // The server in front sets it: see `server.mjs`.
    advanced: { ipAddress: { ipAddressHeaders: ["x-forwarded-for"] } },
    socialProviders,
    plugins: [bearer(), admin(), twoFactor(), multiSession(), ...plugins],
  };
}
