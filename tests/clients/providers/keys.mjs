// Keys and signed tokens (RFC 7515), with nothing checked that a test may want wrong.

import { createHmac, generateKeyPair, randomBytes, sign as signBytes, verify as verifyBytes } from "node:crypto";
import { promisify } from "node:util";

const generate = promisify(generateKeyPair);

/** For RS256. */
export async function rsaKey() {
  const { privateKey, publicKey } = await generate("rsa", { modulusLength: 2048 });
  const kid = randomBytes(8).toString("hex");
  const about = { kid, alg: "RS256", use: "sig" };
  return {
    kid,
    privateKey,
    publicPem: publicKey.export({ type: "spki", format: "pem" }),
    jwk: { ...publicKey.export({ format: "jwk" }), ...about },
    privateJwk: { ...privateKey.export({ format: "jwk" }), ...about },
  };
}

/** For ES256: PKCS #8 in PEM, and the public half. */
export async function ecKey() {
  const { privateKey, publicKey } = await generate("ec", { namedCurve: "P-256" });
  return { privatePem: privateKey.export({ type: "pkcs8", format: "pem" }), publicKey };
}

const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** RS256; a key without `kid` goes unnamed. */
export function sign(claims, { kid, privateKey }) {
  const signed = `${part({ alg: "RS256", kid, typ: "JWT" })}.${part(claims)}`;
  return `${signed}.${signBytes("sha256", Buffer.from(signed), privateKey).toString("base64url")}`;
}

/** HS256; without a secret there is no signature. */
export function hmac(claims, header, secret) {
  const signed = `${part({ ...header, typ: "JWT" })}.${part(claims)}`;
  return `${signed}.${secret === undefined ? "" : createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

export const unverified = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url"));

/** Claims of a token that this key signed with ES256; throws otherwise. */
export function verifyEs256(token, publicKey, kid) {
  const [header, payload, signature] = token.split(".");
  const { alg, kid: named } = JSON.parse(Buffer.from(header, "base64url"));
  if (alg !== "ES256") throw new Error(`alg is ${alg}`);
  if (named !== kid) throw new Error(`kid is ${named}`);
  const key = { key: publicKey, dsaEncoding: "ieee-p1363" };
  const isRight = verifyBytes("sha256", Buffer.from(`${header}.${payload}`), key, Buffer.from(signature, "base64url"));
  if (!isRight) throw new Error("the signature is wrong");
  return unverified(token);
}
