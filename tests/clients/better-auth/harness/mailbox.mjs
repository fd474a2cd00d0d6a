// The mail server: what the target sends is read from the SMTP conversation.

import { simpleParser } from "mailparser";
import { SMTPServer } from "smtp-server";

/** The mail worker of a busy target may take a moment. */
const PATIENCE_MS = 15_000;

export class Mailbox {
  /** By recipient: what has arrived and nobody has read. */
  #unread = new Map();
  /** By recipient: who waits. */
  #waiting = new Map();
  #server;

  static async start() {
    const mailbox = new Mailbox();
    mailbox.#server = new SMTPServer({
      disabledCommands: ["STARTTLS", "AUTH"],
      onData(stream, session, done) {
        simpleParser(stream).then((mail) => {
          for (const { address } of session.envelope.rcptTo) mailbox.#deliver(address, mail);
          done();
        }, done);
      },
    });
    await new Promise((resolve, reject) => {
      mailbox.#server.on("error", reject);
      mailbox.#server.listen(0, "127.0.0.1", resolve);
    });
    return mailbox;
  }

  get port() {
    return this.#server.server.address().port;
  }

  /** The oldest unread mail to an address; waits for it. */
  async next(address) {
    const mail = this.#unread.get(address)?.shift();
    if (mail) return mail;
    const { promise, resolve, reject } = withResolvers();
    const timer = setTimeout(() => reject(new Error(`no mail to ${address} has come`)), PATIENCE_MS);
    append(this.#waiting, address, (arrived) => {
      clearTimeout(timer);
      resolve(arrived);
    });
    return promise;
  }

  /** How many have arrived that nobody has read. */
  unread(address) {
    return this.#unread.get(address)?.length ?? 0;
  }

  #deliver(address, { subject, text }) {
    const link = text.match(/https?:\/\/\S+/)?.[0];
    const mail = { subject, text, link };
    const waiting = this.#waiting.get(address)?.shift();
    if (waiting) waiting(mail);
    else append(this.#unread, address, mail);
  }

  stop() {
    return new Promise((resolve) => this.#server.close(resolve));
  }
}

function append(map, key, value) {
  if (map.has(key)) map.get(key).push(value);
  else map.set(key, [value]);
}

/** Node 20 has no `Promise.withResolvers`. */
function withResolvers() {
  const resolvers = {};
  resolvers.promise = new Promise((resolve, reject) => Object.assign(resolvers, { resolve, reject }));
  return resolvers;
}
