//! The mail server that the gateway speaks SMTP with.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use mail_parser::MessageParser;
use tokio::{net::TcpListener, runtime::Handle};
use vestibule::{
    dev::smtp::{self, Options, Received, Verdict},
    lifecycle::Tasks,
};

use super::canary;

/// Before the token, in a link that lets somebody choose a new password.
const RESET: &str = "/reset-password/";

/// A mail as a person would read it.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) to: Vec<String>,
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) html: String,
    pub(crate) raw: String,
}

impl Mail {
    fn read(received: &Received) -> Self {
        let message = MessageParser::default()
            .parse(&received.data)
            .expect("a mail that can be read");
        let part = |text: Option<std::borrow::Cow<'_, str>>| text.expect("both parts are there").into_owned();
        Self {
            to: received.to.clone(),
            subject: message.subject().expect("a subject").to_owned(),
            text: part(message.body_text(0)),
            html: part(message.body_html(0)),
            raw: String::from_utf8_lossy(&received.data).into_owned(),
        }
    }

    /// The line that tells a second copy from another mail.
    #[track_caller]
    pub(crate) fn message_id(&self) -> &str {
        let line = self.raw.lines().find(|line| line.starts_with("Message-ID:"));
        line.unwrap_or_else(|| panic!("no Message-ID in {}", self.raw))
    }

    /// The first link of the text part.
    #[track_caller]
    pub(crate) fn link(&self) -> String {
        let mut words = self.text.split_whitespace();
        let link = words.find(|word| word.starts_with("http://") || word.starts_with("https://"));
        link.unwrap_or_else(|| panic!("no link in {:?}", self.text)).to_owned()
    }

    /// Whether that link lets somebody choose a new password.
    pub(crate) fn resets(&self) -> bool {
        self.link().contains(RESET)
    }

    /// The token in that link.
    #[track_caller]
    pub(crate) fn token(&self) -> String {
        let link = self.link();
        let rest = link.split_once(RESET).or_else(|| link.split_once("token="));
        let token = rest.and_then(|(_, rest)| rest.split(['?', '&']).next());
        token.unwrap_or_else(|| panic!("no token in {link}")).to_owned()
    }
}

#[derive(Default)]
struct Shared {
    mails: Vec<Mail>,
    /// How many of them [`Mailbox::next_to`] has handed out.
    read: Vec<usize>,
    /// What the next ones hear instead of yes.
    verdicts: Vec<Verdict>,
}

pub(crate) struct Mailbox {
    addr: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    tasks: Tasks,
}

impl Mailbox {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    /// Where a gateway knows it to be already.
    pub(crate) async fn start_at(addr: SocketAddr) -> Self {
        Self::start_with(addr, Options::default()).await
    }

    /// It takes mails from this user alone.
    pub(crate) async fn demanding(user: &str, password: &str) -> Self {
        let options = Options {
            credentials: Some((user.to_owned(), password.to_owned())),
            ..Options::default()
        };
        Self::start_with("127.0.0.1:0".parse().unwrap(), options).await
    }

    async fn start_with(addr: SocketAddr, options: Options) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let tasks = Tasks::new(Handle::current());
        let keep = Arc::clone(&shared);
        let receive = move |received: Received| {
            let mut shared = keep.lock().unwrap();
            if let Some(verdict) = shared.verdicts.pop() {
                return verdict;
            }
            let mail = Mail::read(&received);
            for word in mail.text.split_whitespace().filter(|word| word.contains("://")) {
                canary::of_url(word);
            }
            shared.mails.push(mail);
            Verdict::Accept
        };
        tasks.spawn("mailbox", smtp::serve(listener, options, receive, tasks.clone()));
        Self { addr, shared, tasks }
    }

    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every mail to this address so far.
    pub(crate) fn to(&self, email: &str) -> Vec<Mail> {
        let shared = self.shared.lock().unwrap();
        let mails = shared.mails.iter().filter(|mail| mail.to.iter().any(|to| to == email));
        mails.cloned().collect()
    }

    /// Everybody who got a mail so far.
    pub(crate) fn recipients(&self) -> BTreeSet<String> {
        let shared = self.shared.lock().unwrap();
        shared.mails.iter().flat_map(|mail| mail.to.iter().cloned()).collect()
    }

    /// The first mail to this address that was not handed out yet; waits for it.
    pub(crate) async fn next_to(&self, email: &str) -> Mail {
        let deadline = Instant::now() + super::SOON;
        loop {
            if let Some(mail) = self.take(email) {
                return mail;
            }
            assert!(Instant::now() < deadline, "no mail to {email} came");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// As [`Mailbox::next_to`], passing over all that lets nobody choose a new password.
    pub(crate) async fn next_reset_to(&self, email: &str) -> Mail {
        loop {
            let mail = self.next_to(email).await;
            if mail.resets() {
                return mail;
            }
        }
    }

    fn take(&self, email: &str) -> Option<Mail> {
        let mut shared = self.shared.lock().unwrap();
        let found = shared
            .mails
            .iter()
            .enumerate()
            .find(|(index, mail)| mail.to.iter().any(|to| to == email) && !shared.read.contains(index));
        let (index, mail) = found.map(|(index, mail)| (index, mail.clone()))?;
        shared.read.push(index);
        Some(mail)
    }

    /// What the next mails hear, in this order; after them all are accepted again.
    pub(crate) fn will_say(&self, verdicts: impl IntoIterator<Item = Verdict>) {
        let mut verdicts: Vec<_> = verdicts.into_iter().collect();
        verdicts.reverse();
        self.shared.lock().unwrap().verdicts = verdicts;
    }

    /// How many verdicts nobody has heard yet.
    pub(crate) fn verdicts_left(&self) -> usize {
        self.shared.lock().unwrap().verdicts.len()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.tasks.stop.soft.cancel();
        self.tasks.stop.hard.cancel();
    }
}
