//! An SMTP server that keeps what it is given: behind the inbox of `vestibule dev`, and for tests of the mails' way.
//!
//! Each message is handed to a function, whose [`Verdict`] is the answer: tests script refusals and faults with it.

mod wire;

use std::{io, sync::Arc, time::Duration};

use base64ct::{Base64, Encoding};
use rustls::ServerConfig;
use smtp_proto::{AUTH_PLAIN, Request};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use self::wire::{Asked, Wire};
use crate::lifecycle::Tasks;

/// A client that says nothing for this long is gone. RFC 5321, 4.5.3.2.7, allows five minutes to clients across the
/// world; ours is on this machine.
const SILENCE: Duration = Duration::from_mins(1);

/// Larger than any mail of ours; what it holds is held in memory.
const MAX_MESSAGE: usize = 10 << 20;

const MAX_RECIPIENTS: usize = 100;

/// At once; others wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 64;

/// After `accept` failed, for want of file descriptors perhaps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the server behaves.
#[derive(Clone, Default)]
pub struct Options {
    pub tls: Option<Tls>,
    /// A user name and password without which it takes no mail.
    pub credentials: Option<(String, String)>,
}

crate::secret::unprinted!(Options);

/// What a connection is encrypted with, and when.
#[derive(Clone, Debug)]
pub struct Tls {
    pub config: Arc<ServerConfig>,
    pub mode: TlsMode,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsMode {
    /// When the client asks for it.
    StartTls,
    /// From the first byte.
    Implicit,
}

/// A message as it arrived.
#[derive(Clone, Eq, PartialEq)]
pub struct Received {
    pub from: String,
    pub to: Vec<String>,
    /// Header and body, as sent.
    pub data: Vec<u8>,
    pub encrypted: bool,
    /// Who signed in, if anybody.
    pub user: Option<String>,
}

crate::secret::unprinted!(Received);

/// What the sender hears.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    Accept,
    /// A status such as 451 or 550, and a text.
    Refuse(u16, String),
    /// The connection closes without an answer: the sender can't know.
    HangUp,
    /// No answer ever comes.
    Stall,
}

/// Serves `listener` until the soft stop of `tasks`. `receive` is called for each message; it must not block for long.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    receive: impl Fn(Received) -> Verdict + Send + Sync + 'static,
    tasks: Tasks,
) {
    let server = Arc::new(Server { options, receive });
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let soft = tasks.stop.soft.clone();
    let accepting = async {
        while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let server = Arc::clone(&server);
            let stop = soft.clone();
            tasks.spawn("dev.smtp", async move {
                if let Some(Err(error)) = stop.run_until_cancelled(server.converse(stream)).await {
                    debug!(%error, "a conversation with the mail server broke off");
                }
                drop(permit);
            });
        }
    };
    soft.run_until_cancelled(accepting).await;
}

struct Server<F> {
    options: Options,
    receive: F,
}

async fn greet(stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_all(b"220 localhost ESMTP Vestibule\r\n").await?;
    stream.flush().await
}

/// How a conversation, or its part before encryption, ends.
enum End {
    Quit,
    StartTls,
}

impl<F: Fn(Received) -> Verdict> Server<F> {
    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        // An answer is one small packet that the other side waits for.
        stream.set_nodelay(true)?;
        let implicit = match &self.options.tls {
            Some(tls) if tls.mode == TlsMode::Implicit => true,
            Some(_) | None => false,
        };
        if !implicit {
            greet(&mut stream).await?;
            match self.session(&mut stream, false).await? {
                End::Quit => return Ok(()),
                End::StartTls => {}
            }
        }
        let Some(tls) = &self.options.tls else {
            return Ok(());
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
        let mut stream = timeout(SILENCE, acceptor.accept(stream)).await??;
        if implicit {
            greet(&mut stream).await?;
        }
        self.session(&mut stream, true).await?;
        Ok(())
    }

    async fn session<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S, encrypted: bool) -> io::Result<End> {
        let mut wire = Wire::new(stream);
        let mut from = None;
        let mut to = Vec::new();
        let mut user = None;
        loop {
            let request = match wire.request().await? {
                Asked::Request(request) => request,
                Asked::Nonsense(answer) => {
                    wire.reply(answer).await?;
                    continue;
                }
                Asked::End => return Ok(End::Quit),
            };
            match request {
                Request::Ehlo { .. } => {
                    (from, to) = (None, Vec::new());
                    wire.reply(&self.extensions(encrypted)).await?;
                }
                Request::Helo { .. } => {
                    (from, to) = (None, Vec::new());
                    wire.reply("250 localhost").await?;
                }
                Request::StartTls if self.offers_starttls(encrypted) => {
                    wire.reply("220 2.0.0 Go ahead").await?;
                    // What was sent in the clear behind the command is not part of the encrypted conversation.
                    return Ok(End::StartTls);
                }
                Request::Auth {
                    mechanism: AUTH_PLAIN,
                    initial_response,
                } if self.options.credentials.is_some() => {
                    user = self.sign_in(&initial_response);
                    let answer = match user {
                        Some(_) => "235 2.7.0 Signed in",
                        None => "535 5.7.8 Wrong user name or password",
                    };
                    wire.reply(answer).await?;
                }
                Request::Mail { .. } if self.options.credentials.is_some() && user.is_none() => {
                    wire.reply("530 5.7.0 Sign in first").await?;
                }
                Request::Mail { from: sender } => {
                    (from, to) = (Some(sender.address), Vec::new());
                    wire.reply("250 2.1.0 OK").await?;
                }
                Request::Rcpt { to: recipient } if from.is_some() && to.len() < MAX_RECIPIENTS => {
                    to.push(recipient.address);
                    wire.reply("250 2.1.5 OK").await?;
                }
                Request::Data if !to.is_empty() => {
                    wire.reply("354 Go ahead; end with a dot").await?;
                    let Some(data) = wire.data().await? else {
                        wire.reply("552 5.3.4 The message is too large").await?;
                        return Ok(End::Quit);
                    };
                    let verdict = (self.receive)(Received {
                        from: from.take().unwrap_or_default(),
                        to: std::mem::take(&mut to),
                        data,
                        encrypted,
                        user: user.clone(),
                    });
                    match verdict {
                        Verdict::Accept => wire.reply("250 2.0.0 Kept").await?,
                        Verdict::Refuse(status, text) => wire.reply(&format!("{status} {text}")).await?,
                        Verdict::HangUp => return Ok(End::Quit),
                        Verdict::Stall => std::future::pending().await,
                    }
                }
                Request::Rset => {
                    (from, to) = (None, Vec::new());
                    wire.reply("250 2.0.0 OK").await?;
                }
                Request::Noop { .. } => wire.reply("250 2.0.0 OK").await?,
                Request::Quit => {
                    wire.reply("221 2.0.0 Bye").await?;
                    return Ok(End::Quit);
                }
                Request::Rcpt { .. } | Request::Data => wire.reply("503 5.5.1 Not now").await?,
                _ => wire.reply("502 5.5.1 Not here").await?,
            }
        }
    }

    fn offers_starttls(&self, encrypted: bool) -> bool {
        !encrypted
            && self
                .options
                .tls
                .as_ref()
                .is_some_and(|tls| tls.mode == TlsMode::StartTls)
    }

    fn extensions(&self, encrypted: bool) -> String {
        let mut lines = vec!["localhost".to_owned(), "8BITMIME".to_owned(), "SMTPUTF8".to_owned()];
        lines.push(format!("SIZE {MAX_MESSAGE}"));
        if self.offers_starttls(encrypted) {
            lines.push("STARTTLS".to_owned());
        }
        if self.options.credentials.is_some() {
            lines.push("AUTH PLAIN".to_owned());
        }
        let last = lines.len().saturating_sub(1);
        let lines = lines.iter().enumerate();
        let answer: Vec<String> = lines
            .map(|(at, line)| format!("250{}{line}", if at == last { ' ' } else { '-' }))
            .collect();
        answer.join("\r\n")
    }

    /// RFC 4616: base64 of an identity to act as, the user name and the password, with NUL between.
    fn sign_in(&self, response: &str) -> Option<String> {
        let bytes = Base64::decode_vec(response.trim()).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let mut parts = text.split('\0').skip(1);
        let (name, password) = (parts.next()?, parts.next()?);
        let (right_name, right_password) = self.options.credentials.as_ref()?;
        (name == right_name && password == right_password).then(|| name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::AsyncReadExt;

    use super::*;

    async fn say(stream: &mut TcpStream, text: &str) -> String {
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    #[tokio::test]
    async fn a_message_is_kept_without_its_dots_and_what_follows_is_heard() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let kept: Arc<Mutex<Vec<Received>>> = Arc::default();
        let keep = {
            let kept = Arc::clone(&kept);
            move |message| {
                kept.lock().unwrap().push(message);
                Verdict::Accept
            }
        };
        tasks.spawn("smtp", serve(listener, Options::default(), keep, tasks.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(say(&mut stream, "").await.starts_with("220 "));
        assert!(say(&mut stream, "EHLO me\r\n").await.ends_with("\r\n"));
        assert!(say(&mut stream, "DATA\r\n").await.starts_with("503 "));
        assert!(say(&mut stream, "FROB\r\n").await.starts_with("500 "));
        assert!(
            say(&mut stream, "MAIL FROM:<a@example.com>\r\n")
                .await
                .starts_with("250 ")
        );
        assert!(
            say(&mut stream, "RCPT TO:<b@example.com>\r\n")
                .await
                .starts_with("250 ")
        );
        assert!(say(&mut stream, "DATA\r\n").await.starts_with("354 "));
        let answer = say(&mut stream, "Subject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n").await;
        assert!(answer.starts_with("250 "), "{answer}");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert!(format!("{answer}{rest}").contains("221 "));
        let kept = std::mem::take(&mut *kept.lock().unwrap());
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].to, ["b@example.com"]);
        assert_eq!(String::from_utf8_lossy(&kept[0].data), "Subject: x\r\n\r\n.dot\r\n");
        tasks.stop.soft.cancel();
        tasks.ended().await;
    }
}
