//! One attempt to hand a mail to the SMTP server, and what its failure means.

mod connections;

use std::time::{Duration, SystemTime};

use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart,
        header::{Header, HeaderName, HeaderValue},
    },
    transport::smtp::{
        self,
        authentication::Credentials,
        client::{AsyncSmtpConnection, Certificate, TlsParameters},
        commands::{Data, Mail as MailFrom, Rcpt},
        extension::{Extension, MailBodyParameter, MailParameter},
        response::Severity,
    },
};

use self::connections::{Connections, Failed, Privacy, say_goodbye};
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
    /// The recipient is refused, and it isn't said why: servers refuse those whom they don't know with a bare 550, and
    /// everybody's while they are not set up to relay for us.
    #[error("{0}")]
    Unexplained(String),
    /// This mail will never be taken.
    #[error("{0}")]
    ForGood(String),
}

/// Why a mail was not handed over.
enum Refused {
    /// When the server was told who it is to.
    Recipient(smtp::Error),
    /// When it had all of it.
    Message(smtp::Error),
    /// At any other moment.
    Else(Failed),
}

/// The way to the SMTP server; keeps connections open while there is work.
#[derive(Debug)]
pub(super) struct Smtp {
    connections: Connections,
    from: Mailbox,
    /// Open the bodies.
    keys: SealingKeys,
}

impl Smtp {
    /// `roots`: trusted besides the system's certificates.
    pub(super) fn new(settings: &Mail, keys: SealingKeys, roots: &[Certificate]) -> Result<Self, MailError> {
        let from = settings.from.parse().map_err(MailError::From)?;
        let smtp = &settings.smtp;
        let privacy = match smtp.security {
            SmtpSecurity::Plain => Privacy::None,
            SmtpSecurity::StartTls => Privacy::StartTls(tls(&smtp.host, roots)?),
            SmtpSecurity::Tls => Privacy::Tls(tls(&smtp.host, roots)?),
        };
        let credentials = smtp.credentials.as_ref();
        let credentials = credentials.map(|(user, password)| Credentials::new(user.clone(), password.expose().clone()));
        Ok(Self {
            connections: Connections::new(smtp.host.clone(), smtp.port, privacy, credentials),
            from,
            keys,
        })
    }

    pub(super) async fn send(&self, mail: &Claimed) -> Result<(), SendError> {
        let open = |part: Part, kept: &str| part.open(&self.keys, mail.id, kept).ok_or_else(unopened);
        let (text, html) = (open(Part::Text, &mail.text)?, open(Part::Html, &mail.html)?);
        let message = self.compose(mail, &text, &html)?;
        match tokio::time::timeout(PATIENCE, self.hand_over(&message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refused)) => Err(judge(&refused, &text)),
            Err(_) => Err(SendError::ForNow(format!("no success within {PATIENCE:?}"))),
        }
    }

    /// Closes connections that nobody has needed for long.
    pub(super) async fn close_idle(&self) {
        self.connections.close_idle().await;
    }

    /// Closes connections that carry no mail.
    pub(super) async fn close_all(&self) {
        self.connections.close_all().await;
    }

    /// Cancelled in the middle, it closes the connection.
    async fn hand_over(&self, message: &Message) -> Result<(), Refused> {
        let mut connection = self.connections.get().await.map_err(Refused::Else)?;
        let outcome = converse(&mut connection, message).await;
        match &outcome {
            Ok(()) => self.connections.keep(connection),
            // It waits for the next command.
            Err(refused) if refused.status().is_some() => say_goodbye(connection).await,
            Err(_) => {}
        }
        outcome
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

impl Refused {
    fn otherwise(error: smtp::Error) -> Self {
        Self::Else(error.into())
    }

    /// What the server answered, if it did.
    fn status(&self) -> Option<u16> {
        let error = match self {
            Self::Recipient(error) | Self::Message(error) | Self::Else(Failed::Smtp(error)) => error,
            Self::Else(_) => return None,
        };
        error.status().map(Into::into)
    }

    /// What it means, if these are its words.
    fn means(&self, text: String) -> SendError {
        let status = self.status().filter(|status| (500..600).contains(status));
        match (self, status, says_never(&text)) {
            (Self::Recipient(_) | Self::Message(_), Some(_), Some(true)) => SendError::ForGood(text),
            (Self::Recipient(_), Some(status), None) if is_of_mailbox(status) => SendError::Unexplained(text),
            _ => SendError::ForNow(text),
        }
    }
}

/// A transaction (RFC 5321, 3.3), to the server's word that it has the mail.
async fn converse(connection: &mut AsyncSmtpConnection, message: &Message) -> Result<(), Refused> {
    let (envelope, bytes) = (message.envelope(), message.formatted());
    let mut parameters = Vec::new();
    if !bytes.is_ascii() && connection.server_info().supports_feature(Extension::EightBitMime) {
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    let from = MailFrom::new(envelope.from().cloned(), parameters);
    connection.command(from).await.map_err(Refused::otherwise)?;
    for to in envelope.to() {
        let to = Rcpt::new(to.clone(), Vec::new());
        connection.command(to).await.map_err(Refused::Recipient)?;
    }
    connection.command(Data).await.map_err(Refused::otherwise)?;
    let answer = connection.message(&bytes).await.map_err(Refused::Message)?;
    if answer.code().severity != Severity::PositiveCompletion {
        return Err(Refused::Else(Failed::OutOfStep));
    }
    Ok(())
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
/// then. So do those on the way, before TLS, who must not be able to end mails.
fn judge(refused: &Refused, body: &str) -> SendError {
    let said = match refused {
        Refused::Recipient(error) | Refused::Message(error) => Chain(error).to_string(),
        Refused::Else(error) => Chain(error).to_string(),
    };
    refused.means(without_links(&said, body))
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

/// Whether a refusal says, by an enhanced status code (RFC 3463), that its recipient will never get mail. `None`: it has none.
fn says_never(text: &str) -> Option<bool> {
    let (subject, detail) = text.split_whitespace().find_map(enhanced_code)?;
    // No such mailbox, no such domain, not an address, has moved, takes no mail at all; mailbox disabled.
    Some(matches!((subject, detail), (1, 1 | 2 | 3 | 6 | 10) | (2, 1)))
}

/// The codes that RFC 5321, 4.2.2, has for mailboxes and not for transactions as a whole, as 554 is.
const fn is_of_mailbox(status: u16) -> bool {
    matches!(status, 550 | 551 | 553)
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
    fn a_refusal_says_itself_whether_it_is_for_good() {
        for (text, never) in [
            ("permanent error (550): 5.1.1 no such user", Some(true)),
            ("5.1.3 not an address", Some(true)),
            ("5.1.10 takes no mail", Some(true)),
            ("no mailbox of that name (#5.1.1)", Some(true)),
            ("5.2.1 disabled", Some(true)),
            ("5.7.0 sign in first", Some(false)),
            ("5.7.1 client host [192.0.2.1] blocked", Some(false)),
            ("5.1.8 sender's domain does not exist", Some(false)),
            ("5.5.1 bad sequence of commands", Some(false)),
            ("permanent error (550): no such user", None),
            ("4.1.1 greylisted", None),
        ] {
            assert_eq!(says_never(text), never, "{text}");
        }
        for (status, of_mailbox) in [
            (550, true),
            (551, true),
            (553, true),
            (552, false),
            (554, false),
            (535, false),
        ] {
            assert_eq!(is_of_mailbox(status), of_mailbox, "{status}");
        }
    }
}
