// Where the gateway answers otherwise than better-auth on purpose: all of it, here. A test asks for the answer of the
// target that it runs against; everything else is asserted alike for both.

import { isGateway } from "./harness/site.mjs";

const table = {
  "another session's token in list-sessions": {
    why: "only the hash of a token is stored, so other sessions have a handle that revoke-session takes and nothing else",
    gateway: "handle",
    reference: "token",
  },
  "what list-sessions tells besides the session": {
    why: "people recognise their sessions by it; clients ignore fields that they don't know",
    gateway: ["current", "device", "lastSeenAt", "location"],
    reference: [],
  },
  "mails to the owner of an address that somebody signs up with": {
    why: "the owner should hear of it; whoever signs up learns nothing either way",
    gateway: 1,
    reference: 0,
  },
  "a protected flag in a sign-up is refused": {
    why: "as it is in update-user, and every other protected field in both; better-auth drops flags that have a default",
    gateway: true,
    reference: false,
  },
  "role of the user made up for a known address": {
    why: "a real new user has the role `user`: a made-up one without it gives away that the address is known",
    gateway: "user",
    reference: null,
  },
  "a verification link signs in a browser that did not ask for it": {
    why: "mail scanners open links: they must not get a session",
    gateway: false,
    reference: true,
  },
  "a verification link opened elsewhere first still signs in the browser that signed up": {
    why: "the person who comes after the mail scanner must get what the link promised",
    gateway: true,
    reference: false,
  },
  "a reset link works although a newer one was sent": {
    why: "a newer link voids the older ones: fewer that can be stolen",
    gateway: false,
    reference: true,
  },
  "a reset link works although the password was changed": {
    why: "who changed the password meanwhile has no need of a link that changes it again",
    gateway: false,
    reference: true,
  },
  "a reset link works although the address was changed": {
    why: "it was mailed to an address that may be somebody else's by now",
    gateway: false,
    reference: true,
  },
  "the last link of a change of address signs in a browser without a session": {
    why: "mail scanners open links: they must not get a session",
    gateway: false,
    reference: true,
  },
  "a remembered sign-in clears the mark of one that was not remembered": {
    why: "else the new session would never be extended",
    gateway: true,
    reference: false,
  },
  "a browser where one person is signed in has a companion cookie": {
    why: "it would repeat what the session cookie says, on every request; it comes when a second person signs in",
    gateway: false,
    reference: true,
  },
  "who has no companion cookie is listed on the device while active": {
    why: "whoever is signed in there is signed in there",
    gateway: true,
    reference: false,
  },
  "unlink-account takes a provider's id, as clients up to 1.6 send it": {
    why: "older clients should keep working",
    gateway: true,
    reference: false,
  },
  "an old session is enough to link an account": {
    why: "whoever finds a browser open must not get a way in that stays",
    gateway: false,
    reference: true,
  },
  "where two tabs end up that started together": {
    why: "the second to start must not cost the first its way back",
    gateway: ["/other", "/home"],
    reference: ["/other", "/sorry"],
  },
  "error for a token endpoint that gives no JSON": {
    why: "there are no tokens in it to get anything with, as in an answer that says no",
    gateway: "invalid_code",
    reference: "unable_to_get_user_info",
  },
  "endpoints beyond the contract are served": {
    why: "for applications without the client: signup, signin, me, verify-token; and what clients may do that 1.7.7 has for servers alone, or had before",
    gateway: true,
    reference: false,
  },
  "preflights of trusted origins are answered": {
    why: "an application on another origin can't call the API otherwise",
    gateway: true,
    reference: false,
  },
  "errors name the request": {
    why: "an operator finds the log line by it; clients ignore fields that they don't know",
    gateway: true,
    reference: false,
  },
};

/** What the target under test does. */
export function differs(what) {
  if (!(what in table)) throw new Error(`"${what}" is in no table of differences`);
  return table[what][isGateway ? "gateway" : "reference"];
}
