//! One attempt to hand a mail to the SMTP server, and what its failure means.

use std::time::{Duration, SystemTime};

use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{
        Mailbox, MultiPart,
        header::{Header, HeaderName, HeaderValue},
    },
    transport::smtp::{
        PoolConfig,
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
    },
};

use super::body::Part;
use crate::{
    chain::Chain,
    config::{Mail, SmtpSecurity},
    db::outbox::Claimed,
    secret::sealed::SealingKeys,
};

/// For the whole of one attempt: connection, TLS, sign-in, and the server's word that it has the mail. Servers answer
/// within a second or two; one that takes longer than this is not well. RFC 5321's minutes are for relays that own
/// their queue's time; ours has a user waiting.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// For connecting and for each answer of the server; several fit into [`PATIENCE`].
const STEP: Duration = Duration::from_secs(10);

/// An open connection that nobody needs any more is closed after this; servers drop idle ones after minutes.
const IDLE: Duration = Duration::from_secs(30);

/// Mail can't be sent with these settings.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("mail.from is not a mailbox such as `Example <no-reply@example.com>`")]
    From(#[source] lettre::address::AddressError),
    #[error("TLS for mail.smtp can't be set up")]
    Tls(#[source] lettre::transport::smtp::Error),
}

/// Why one attempt failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// Trying again may help.
    #[error("{0}")]
    ForNow(String),
    /// This mail will never be taken.
    #[error("{0}")]
    ForGood(String),
}

/// The way to the SMTP server; keeps connections open while there is work.
#[derive(Debug)]
pub(super) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    /// Open the bodies.
    keys: SealingKeys,
}

impl Smtp {
    /// `connections`: how many mails are sent at once. `roots`: trusted besides the system's certificates.
    pub(super) fn new(
        settings: &Mail,
        keys: SealingKeys,
        connections: u32,
        roots: &[Certificate],
    ) -> Result<Self, MailError> {
        let from = settings.from.parse().map_err(MailError::From)?;
        let smtp = &settings.smtp;
        let tls = match smtp.security {
            SmtpSecurity::Plain => Tls::None,
            SmtpSecurity::StartTls => Tls::Required(tls(&smtp.host, roots)?),
            SmtpSecurity::Tls => Tls::Wrapper(tls(&smtp.host, roots)?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.host)
            .port(smtp.port)
            .tls(tls)
            .timeout(Some(STEP))
            .pool_config(PoolConfig::new().max_size(connections).idle_timeout(IDLE));
        if let Some((user, password)) = &smtp.credentials {
            builder = builder.credentials(Credentials::new(user.clone(), password.expose().clone()));
        }
        Ok(Self {
            transport: builder.build(),
            from,
            keys,
        })
    }

    pub(super) async fn send(&self, mail: &Claimed) -> Result<(), SendError> {
        let open = |part: Part, kept: &str| part.open(&self.keys, mail.id, kept).ok_or_else(unopened);
        let (text, html) = (open(Part::Text, &mail.text)?, open(Part::Html, &mail.html)?);
        let message = self.compose(mail, &text, &html)?;
        match tokio::time::timeout(PATIENCE, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(judge(&error, &text)),
            Err(_) => Err(SendError::ForNow(format!("no success within {PATIENCE:?}"))),
        }
    }

    /// The same bytes at every attempt, but for the boundary between the parts.
    fn compose(&self, mail: &Claimed, text: &str, html: &str) -> Result<Message, SendError> {
        let never = |error: &dyn std::error::Error| SendError::ForGood(format!("the mail can't be composed: {error}"));
        let to: Address = mail.recipient.parse().map_err(|error| never(&error))?;
        let created = u64::try_from(mail.created_at.micros()).unwrap_or(0);
        Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(mail.subject.as_str())
            .date(SystemTime::UNIX_EPOCH + Duration::from_micros(created))
            .message_id(Some(format!("<{}@{}>", mail.id, self.from.email.domain())))
            .header(AutoSubmitted)
            .multipart(MultiPart::alternative_plain_html(text.to_owned(), html.to_owned()))
            .map_err(|error| never(&error))
    }
}

fn tls(host: &str, roots: &[Certificate]) -> Result<TlsParameters, MailError> {
    let mut builder = TlsParameters::builder(host.to_owned());
    for root in roots {
        builder = builder.add_root_certificate(root.clone());
    }
    builder.build_rustls().map_err(MailError::Tls)
}

/// Only an answer about this very recipient ends a mail. Servers also say 5xx to a wrong password, a host on a block
/// list or a sender that they don't relay for: that is for an administrator to mend, and the mail should still be there
/// then.
fn judge(error: &lettre::transport::smtp::Error, body: &str) -> SendError {
    let text = without_links(&Chain(error).to_string(), body);
    let ends = error
        .status()
        .is_some_and(|status| recipient_is_refused(status.into(), &text));
    if ends {
        SendError::ForGood(text)
    } else {
        SendError::ForNow(text)
    }
}

/// Another gateway may have the secret, or this one after a reload.
fn unopened() -> SendError {
    SendError::ForNow("it was sealed by an auth.secret that this gateway does not have".to_owned())
}

/// What a server said, which is logged and kept. Filters quote the link that they object to, and it is a secret: words of
/// the answer that have a link of the mail in them, or as much of one as has its token, are left out.
fn without_links(said: &str, body: &str) -> String {
    let links: Vec<&str> = body.split_whitespace().filter(|word| word.contains("://")).collect();
    // Shorter pieces of a link are its host and its path, which are no secret.
    let is_secret = |piece: &str| piece.len() >= 16 && links.iter().any(|link| link.contains(piece));
    let hides = |word: &&str| {
        let pieces = word.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')));
        links.iter().any(|link| word.contains(link)) || pieces.into_iter().any(is_secret)
    };
    let words = said
        .split(' ')
        .map(|word| if hides(&word) { "[withheld]" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Whether an answer says that its recipient will never get mail: by its enhanced status code (RFC 3463) if it has one.
/// The bare codes are those that RFC 5321, 4.2.2, has for mailboxes and not for transactions as a whole, as 554 is.
fn recipient_is_refused(status: u16, text: &str) -> bool {
    if !(500..600).contains(&status) {
        return false;
    }
    match text.split_whitespace().find_map(enhanced_code) {
        // No such mailbox, no such domain, not an address, has moved, takes no mail at all; mailbox disabled.
        Some((subject, detail)) => matches!((subject, detail), (1, 1 | 2 | 3 | 6 | 10) | (2, 1)),
        None => matches!(status, 550 | 551 | 553),
    }
}

/// Subject and detail of `5.1.1`, also in the spellings `#5.1.1` and `(#5.1.1)`.
fn enhanced_code(word: &str) -> Option<(u16, u16)> {
    let mut numbers = word
        .trim_matches(|c: char| c.is_ascii_punctuation())
        .strip_prefix("5.")?
        .split('.')
        .map(|digits| digits.parse().ok());
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(subject), Some(detail), None) => Some((subject?, detail?)),
        _ => None,
    }
}

/// RFC 3834: so that no holiday notice comes back.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_a_server_quotes_is_left_out() {
        let link =
            "https://app.example.com/api/auth/reset-password/abcdefghijklmnopqrstuvwxyz0123456789-_ABCDE?callbackURL=";
        let body = format!("Hello Ada,\n\nfollow this link:\n{link}\n");
        for (said, kept) in [
            (
                format!("554 5.7.1 <{link}> is blocked"),
                "554 5.7.1 [withheld] is blocked",
            ),
            (
                "550 url=abcdefghijklmnopqrstuvwxyz0123456789-_ABCDE; bad".to_owned(),
                "550 [withheld] bad",
            ),
            ("550 abcdefghijklmnopqrstuv…".to_owned(), "550 [withheld]"),
            (
                "554 app.example.com is on a list".to_owned(),
                "554 app.example.com is on a list",
            ),
            ("452 4.2.2 full".to_owned(), "452 4.2.2 full"),
        ] {
            assert_eq!(without_links(&said, &body), kept);
        }
    }

    #[test]
    fn only_a_refused_recipient_ends_a_mail() {
        for (status, text) in [
            (550, "permanent error (550): 5.1.1 no such user"),
            (550, "permanent error (550): no such user"),
            (551, "not here"),
            (553, "not an address"),
            (501, "5.1.3 not an address"),
            (556, "5.1.10 takes no mail"),
            (550, "no mailbox of that name (#5.1.1)"),
            (550, "5.2.1 disabled"),
        ] {
            assert!(recipient_is_refused(status, text), "{status} {text}");
        }
        for (status, text) in [
            (450, "4.1.1 greylisted"),
            (451, "5.1.1 a contradiction"),
            (530, "5.7.0 sign in first"),
            (535, "5.7.8 wrong password"),
            (550, "5.7.1 client host [192.0.2.1] blocked"),
            (550, "5.1.8 sender's domain does not exist"),
            (552, "message too large"),
            (553, "5.7.1 sender not owned by user"),
            (554, "no SMTP service here"),
            (554, "5.7.1 relay access denied"),
            (503, "5.5.1 bad sequence of commands"),
        ] {
            assert!(!recipient_is_refused(status, text), "{status} {text}");
        }
    }
}
