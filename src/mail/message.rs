//! What each mail says: one variant per message, three templates per variant.
//!
//! Values are escaped in HTML and left alone in text. What a stranger chose (a name) is greeted with only if it can't
//! smuggle a message of its own into a mail that we send to somebody else: see [`greeting`].

use std::{borrow::Cow, sync::LazyLock, time::Duration};

use minijinja::{Environment, UndefinedBehavior, Value, context};

/// A mail that the gateway sends.
#[derive(Clone, Copy)]
pub enum Message<'m> {
    /// Asks whether an address is the user's. Its `link` is a secret.
    VerifyEmail {
        name: &'m str,
        link: &'m str,
        expires_in: Duration,
    },
    /// Somebody signed up with an address that has an account. The page can't say so; this mail can.
    AlreadyRegistered { name: &'m str, sign_in_link: &'m str },
    /// Lets whoever reads it choose a password. Its `link` is a secret, as are those below.
    ResetPassword {
        name: &'m str,
        link: &'m str,
        expires_in: Duration,
    },
    /// Asks at the address that an account has whether it may be changed to another.
    ApproveEmailChange {
        name: &'m str,
        new_email: &'m str,
        link: &'m str,
        expires_in: Duration,
    },
    /// Asks at the address that an account is to have.
    ConfirmEmailChange {
        name: &'m str,
        link: &'m str,
        expires_in: Duration,
    },
    /// Tells the address that an account had that it has another one.
    EmailChanged { name: &'m str, new_email: &'m str },
    /// Tells that an account at a provider is a way to sign in from now on.
    AccountLinked { name: &'m str, provider: &'m str },
    /// Tells that one no longer is.
    AccountUnlinked { name: &'m str, provider: &'m str },
    /// Tells that an account at a provider is the only way to sign in that is left: it alone showed whose the address is.
    OtherWaysRemoved { name: &'m str, provider: &'m str },
    /// Asks whether an account is really to be deleted.
    DeleteAccount {
        name: &'m str,
        link: &'m str,
        expires_in: Duration,
    },
}

/// A message in words.
pub(super) struct Rendered {
    /// A single line.
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: String,
}

impl Message<'_> {
    /// As its templates are named.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::VerifyEmail { .. } => "verify_email",
            Self::AlreadyRegistered { .. } => "already_registered",
            Self::ResetPassword { .. } => "reset_password",
            Self::ApproveEmailChange { .. } => "approve_email_change",
            Self::ConfirmEmailChange { .. } => "confirm_email_change",
            Self::EmailChanged { .. } => "email_changed",
            Self::AccountLinked { .. } => "account_linked",
            Self::AccountUnlinked { .. } => "account_unlinked",
            Self::OtherWaysRemoved { .. } => "other_ways_removed",
            Self::DeleteAccount { .. } => "delete_account",
        }
    }

    /// How long it makes sense to send it; `None`: always.
    pub(super) const fn useful_for(&self) -> Option<Duration> {
        match *self {
            Self::VerifyEmail { expires_in, .. }
            | Self::ResetPassword { expires_in, .. }
            | Self::ApproveEmailChange { expires_in, .. }
            | Self::ConfirmEmailChange { expires_in, .. }
            | Self::DeleteAccount { expires_in, .. } => Some(expires_in),
            Self::AlreadyRegistered { .. }
            | Self::EmailChanged { .. }
            | Self::AccountLinked { .. }
            | Self::AccountUnlinked { .. }
            | Self::OtherWaysRemoved { .. } => None,
        }
    }

    pub(super) fn render(&self) -> Rendered {
        let values = self.values();
        Rendered {
            subject: single_line(&self.part("subject.txt", &values)),
            text: self.part("txt", &values),
            html: self.part("html", &values),
        }
    }

    fn values(&self) -> Value {
        match *self {
            Self::VerifyEmail { name, link, expires_in }
            | Self::ResetPassword { name, link, expires_in }
            | Self::ConfirmEmailChange { name, link, expires_in }
            | Self::DeleteAccount { name, link, expires_in } => context! {
                name => greeting(name),
                link => link,
                expires_in => in_words(expires_in),
            },
            Self::ApproveEmailChange {
                name,
                new_email,
                link,
                expires_in,
            } => context! {
                name => greeting(name),
                new_email => new_email,
                link => link,
                expires_in => in_words(expires_in),
            },
            Self::EmailChanged { name, new_email } => context! {
                name => greeting(name),
                new_email => new_email,
            },
            Self::AccountLinked { name, provider }
            | Self::AccountUnlinked { name, provider }
            | Self::OtherWaysRemoved { name, provider } => context! {
                name => greeting(name),
                provider => provider,
            },
            Self::AlreadyRegistered { name, sign_in_link } => context! {
                name => greeting(name),
                sign_in_link => sign_in_link,
            },
        }
    }

    #[expect(
        clippy::expect_used,
        reason = "templates are compiled in, each is rendered by a test, and values are always the same names"
    )]
    fn part(&self, part: &str, values: &Value) -> String {
        TEMPLATES
            .get_template(&format!("{}.{part}", self.name()))
            .and_then(|template| template.render(values))
            .expect("every message has three templates that need no other values than its own")
    }
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({})", self.name())
    }
}

macro_rules! templates {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("templates/", $name)))),*]
    };
}

/// Every file of the templates' folder.
const SOURCES: [(&str, &str); 30] = templates![
    "verify_email.subject.txt",
    "verify_email.txt",
    "verify_email.html",
    "already_registered.subject.txt",
    "already_registered.txt",
    "already_registered.html",
    "reset_password.subject.txt",
    "reset_password.txt",
    "reset_password.html",
    "approve_email_change.subject.txt",
    "approve_email_change.txt",
    "approve_email_change.html",
    "confirm_email_change.subject.txt",
    "confirm_email_change.txt",
    "confirm_email_change.html",
    "email_changed.subject.txt",
    "email_changed.txt",
    "email_changed.html",
    "account_linked.subject.txt",
    "account_linked.txt",
    "account_linked.html",
    "account_unlinked.subject.txt",
    "account_unlinked.txt",
    "account_unlinked.html",
    "other_ways_removed.subject.txt",
    "other_ways_removed.txt",
    "other_ways_removed.html",
    "delete_account.subject.txt",
    "delete_account.txt",
    "delete_account.html",
];

/// Escapes by the end of a template's name: `.html` is HTML, everything else is not.
static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    for (name, source) in SOURCES {
        #[expect(clippy::expect_used, reason = "templates are compiled in and parsed by a test")]
        environment.add_template(name, source).expect("a template parses");
    }
    environment
});

/// Longer names are a text, not a name.
const LONGEST_GREETING: usize = 60;

/// The name to greet with; empty for one that a mail program might turn into a link, or that is no name for its
/// length. Anybody can sign up with the address of somebody else, and choose the name.
fn greeting(name: &str) -> Cow<'_, str> {
    let line: String = single_line(name);
    let chars: Vec<char> = line.chars().collect();
    let dotted = chars
        .windows(3)
        .any(|w| matches!(w, ['.', a, b] if a.is_alphanumeric() && b.is_alphanumeric()));
    let like_a_link = dotted || line.contains(['/', ':', '@', '\\', '<', '>']);
    if like_a_link || chars.len() > LONGEST_GREETING {
        Cow::Borrowed("")
    } else {
        Cow::Owned(line)
    }
}

/// Without control or direction characters; white space in one piece. Nothing can begin a line of its own.
fn single_line(text: &str) -> String {
    let visible: String = text
        .chars()
        .map(|c| if c.is_control() || is_format(c) { ' ' } else { c })
        .collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Characters that reorder or hide what stands beside them.
const fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// `15 minutes`, `1 hour`: in the largest unit that says it without a fraction.
fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (count, unit) = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")]
        .into_iter()
        .find(|(length, _)| seconds >= *length && seconds.is_multiple_of(*length))
        .map_or((0, "second"), |(length, unit)| (seconds / length, unit));
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    const SAMPLES: [Message<'_>; 10] = [
        Message::VerifyEmail {
            name: "Ada & Söhne",
            link: "https://app.example.com/api/auth/verify-email?token=T0K3N&callbackURL=%2F",
            expires_in: Duration::from_mins(15),
        },
        Message::AlreadyRegistered {
            name: "Ada O'Lovelace",
            sign_in_link: "https://app.example.com/",
        },
        Message::ResetPassword {
            name: "Ada",
            link: "https://app.example.com/api/auth/reset-password/T0K3N?callbackURL=%2Freset",
            expires_in: Duration::from_hours(1),
        },
        Message::ApproveEmailChange {
            name: "Ada",
            new_email: "ada+new@example.com",
            link: "https://app.example.com/api/auth/verify-email?token=T0K3N&callbackURL=%2F",
            expires_in: Duration::from_mins(15),
        },
        Message::ConfirmEmailChange {
            name: "Ada",
            link: "https://app.example.com/api/auth/verify-email?token=T0K3N&callbackURL=%2F",
            expires_in: Duration::from_mins(15),
        },
        Message::EmailChanged {
            name: "Ada",
            new_email: "ada+new@example.com",
        },
        Message::AccountLinked {
            name: "Ada",
            provider: "google",
        },
        Message::AccountUnlinked {
            name: "Ada",
            provider: "google",
        },
        Message::OtherWaysRemoved {
            name: "Ada",
            provider: "google",
        },
        Message::DeleteAccount {
            name: "Ada",
            link: "https://app.example.com/api/auth/delete-user/callback?token=T0K3N&callbackURL=%2F",
            expires_in: Duration::from_hours(24),
        },
    ];

    /// To accept changes: delete the file, run the test until it passes, read the difference.
    #[test]
    fn every_message_reads_as_its_golden_text() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/mail");
        for message in SAMPLES {
            let Rendered { subject, text, html } = message.render();
            let got = format!("Subject: {subject}\n\n--- text ---\n{text}\n\n--- html ---\n{html}\n");
            let path = folder.join(format!("{}.txt", message.name()));
            let Ok(golden) = fs::read_to_string(&path) else {
                fs::write(&path, got).unwrap();
                panic!("{} was missing and is written now: read it, run again", path.display());
            };
            assert_eq!(got, golden, "{} differs", path.display());
        }
        let files: BTreeSet<String> = file_names(&folder);
        let expected = SAMPLES.map(|m| format!("{}.txt", m.name()));
        assert_eq!(files, BTreeSet::from(expected), "a golden text is of no message");
    }

    #[test]
    fn no_template_is_unused_and_none_is_missing() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mail/templates");
        let used: BTreeSet<String> = SAMPLES
            .iter()
            .flat_map(|m| ["subject.txt", "txt", "html"].map(|part| format!("{}.{part}", m.name())))
            .collect();
        assert_eq!(file_names(&folder), used, "files and messages differ");
        let embedded: BTreeSet<String> = SOURCES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(embedded, used, "embedded templates and messages differ");
    }

    fn file_names(folder: &Path) -> BTreeSet<String> {
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn html_is_escaped_and_text_is_not() {
        let message = Message::VerifyEmail {
            name: "Tom & Co",
            link: "https://a.example/?x=1&y=\"2\"",
            expires_in: Duration::from_mins(1),
        };
        let rendered = message.render();
        assert!(rendered.html.contains("Tom &amp; Co") && !rendered.html.contains("y=\"2\""));
        assert!(rendered.text.contains("Tom & Co") && rendered.text.contains("https://a.example/?x=1&y=\"2\""));
    }

    #[test]
    fn a_name_can_neither_begin_a_line_nor_carry_a_link() {
        assert_eq!(greeting("Ada\r\nBcc: x"), "");
        assert_eq!(greeting("Ada\r\n\r\nYou won"), "Ada You won");
        assert_eq!(greeting("J. R. R. Tolkien Jr."), "J. R. R. Tolkien Jr.");
        assert_eq!(greeting("\u{202e}Ada\u{2028}"), "Ada");
        for smuggled in ["evil.example", "http://evil", "a@b", "<a>", &"x".repeat(61)] {
            assert_eq!(greeting(smuggled), "", "{smuggled}");
        }
    }

    #[test]
    fn durations_read_well() {
        for (seconds, words) in [
            (900, "15 minutes"),
            (3600, "1 hour"),
            (7200, "2 hours"),
            (86_400, "1 day"),
            (5400, "90 minutes"),
            (1, "1 second"),
            (0, "0 seconds"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }
}
