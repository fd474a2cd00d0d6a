//! Mails: what they say, how they are kept until they are sent, and who sends them.
//!
//! [`enqueue`] writes a mail into the transaction of what it announces: either both are there or neither. After the
//! commit [`OutboxBell::ring`] wakes this gateway's [`Outbox`]; should the gateway die before, the mail is found by
//! the next poll of any other. A mail arrives at least once; its Message-ID never changes, so that a second copy (the
//! gateway died between sending and writing that down) can be told.
//!
//! Links in mails are secrets: bodies are never logged, lie sealed in the table, and are erased once nobody needs them.

mod body;
mod message;
mod outbox;
mod smtp;

pub use message::Message;
pub use outbox::{Carrier, Outbox, OutboxBell, Postman};
pub use smtp::MailError;

use uuid::Uuid;

use self::body::Part;
use crate::{
    clock::Timestamp,
    db::{DbError, Transaction, outbox as table},
    secret::sealed::SealingKeys,
};

/// Renders `message` and puts it into the outbox, sealed by `keys`, as part of `tx`. Ring the bell after the commit.
pub async fn enqueue(
    tx: &Transaction<'_>,
    keys: &SealingKeys,
    to: &str,
    message: &Message<'_>,
    now: Timestamp,
) -> Result<(), DbError> {
    let rendered = message.render();
    let id = Uuid::now_v7();
    let mail = table::NewMail {
        id,
        message: message.name(),
        recipient: to,
        subject: &rendered.subject,
        text: &Part::Text.seal(keys, id, &rendered.text),
        html: &Part::Html.seal(keys, id, &rendered.html),
        useless_at: message.useful_for().map(|time| now.plus(time)),
    };
    table::insert(tx, mail, now).await
}

#[cfg(test)]
mod tests;
