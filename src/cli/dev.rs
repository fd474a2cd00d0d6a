//! `vestibule dev`: everything on one machine, without set-up.
//!
//! A private Postgres, a mail server whose inbox is a page, the gateway, and behind it the user's application or an
//! upstream that shows what it received. A changed configuration is taken over as `serve` does it. What it keeps is in one
//! folder; nothing of the system's is touched. Whatever is started here ends with this process, however it ends.

mod command;
mod welcome;

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use base64ct::{Base64UrlUnpadded, Encoding};
use clap::Args;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use self::welcome::{App, Welcome};
use super::{EXIT_CONFIG, argument, cold_runtime, serve::Signals};
use crate::{
    app::{self, Options, activation::Passed},
    clock::Clock,
    config::{self, Config, Endpoint, LogFormat, Migrate, Overrides, Pooler, SmtpSecurity, SmtpUrl},
    dev::{
        self, http,
        inbox::{self, Inbox},
        postgres::{self, Cluster},
        supervised::Supervised,
        upstream,
    },
    lifecycle::Tasks,
    secret::{Secret, random},
    telemetry::Events,
};

/// What a project without a configuration is run with.
const BUILT_IN: &str = include_str!("dev/built_in.toml");

/// How often we look whether a process of ours has ended by itself.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Args)]
pub struct DevArgs {
    /// The configuration file [default: gateway.toml, or a built-in one if there is none]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Use this database instead of a private Postgres; "-" reads the URL from standard input, out of the sight of others
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Where Postgres' programs are, if not in a usual place
    #[arg(long, value_name = "DIR", conflicts_with = "database_url")]
    postgres: Option<PathBuf>,
    /// Where data, mails and the secret are kept
    #[arg(long, value_name = "DIR", default_value = ".vestibule")]
    dir: PathBuf,
    /// Where the inbox page listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8025")]
    inbox: SocketAddr,
    /// Run this command too, with DATABASE_URL in its environment: the application behind the gateway
    #[arg(long, value_name = "COMMAND")]
    with: Option<String>,
}

crate::secret::unprinted!(DevArgs);

pub fn run(args: &DevArgs) -> anyhow::Result<ExitCode> {
    prepare_home(&args.dir)?;
    let database_url = args.database_url.as_deref().map(argument::url).transpose()?;
    let (file, built_in) = match &args.config {
        Some(file) => (file.clone(), false),
        None if Path::new("gateway.toml").exists() => (PathBuf::from("gateway.toml"), false),
        None => (write_built_in(&args.dir)?, true),
    };
    // What is put in place of these below is not known yet; the rest is checked before anything is started.
    let overrides = Overrides::default()
        .set(
            "database.url",
            database_url
                .as_ref()
                .map_or("postgres://127.0.0.1/", |url| url.expose()),
        )
        .set("mail.smtp", "smtp://127.0.0.1:25")
        .set("auth.secret", &kept_secret(&args.dir.join("secret"))?);
    let mut config = match config::load(&file, &overrides) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return Ok(ExitCode::from(EXIT_CONFIG));
        }
    };
    let mut here = Here::default();
    here.put_into(&mut config);
    let _events = Events::init(&config.log).context("can't start a thread for the log")?;

    let cluster = match &database_url {
        Some(_) => None,
        None => Some(Cluster::durable(&args.dir, args.postgres.as_deref())?),
    };
    if let Some(cluster) = &cluster {
        here.database = Some(cluster.url(postgres::DATABASE));
        say_if_elsewhere(cluster, &args.dir)?;
    }
    let runtime = cold_runtime().context("can't start a runtime")?;
    let outcome = runtime.block_on(
        Dev {
            args,
            file,
            overrides,
            built_in,
            cluster,
        }
        .run(config, here),
    );
    runtime.shutdown_background();
    outcome
}

/// What is put in place of what a configuration says, each time that it is read.
#[derive(Clone, Default)]
struct Here {
    database: Option<String>,
    smtp: Option<SmtpUrl>,
    /// Of all upstreams.
    endpoint: Option<Endpoint>,
}

impl Here {
    fn put_into(&self, config: &mut Config) {
        config.log.format = LogFormat::Text;
        // Nobody balances load here.
        config.server.drain_delay = Duration::ZERO;
        // Everybody has one address here, and whoever tries things out signs in more often than people do.
        config.auth.rate_limit.enabled = false;
        if let Some(url) = &self.database {
            config.database.url = Secret::new(url.clone());
            // What the file says of the way to another one.
            config.database.listen_url = None;
            config.database.ca = None;
            config.database.pooler = Pooler::None;
            config.database.migrate = Migrate::OnStart;
        }
        if let Some(smtp) = &self.smtp {
            config.mail.smtp = smtp.clone();
        }
        if let Some(endpoint) = &self.endpoint {
            for upstream in &mut config.upstreams {
                upstream.endpoints = vec![endpoint.clone()];
            }
        }
    }
}

/// What runs beside the gateway.
struct Dev<'d> {
    args: &'d DevArgs,
    file: PathBuf,
    overrides: Overrides,
    built_in: bool,
    cluster: Option<Cluster>,
}

impl Dev<'_> {
    async fn run(mut self, mut config: Config, mut here: Here) -> anyhow::Result<ExitCode> {
        let signals = Signals::listen()?;
        // Of a terminal that is closed: by itself it would end this process alone, in the middle of everything.
        let mut hangup = signal(SignalKind::hangup()).context("can't listen for SIGHUP")?;
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let (inbox, smtp) = self.start_inbox(&tasks).await?;
        here.smtp = Some(smtp);
        let app = match &self.args.with {
            Some(line) => App::Started(line),
            None if self.built_in => App::Mirror,
            None => App::Elsewhere,
        };
        if matches!(app, App::Mirror) {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            here.endpoint = Some(Endpoint::http(listener.local_addr()?));
            tasks.spawn("dev.upstream", upstream::run(listener, tasks.clone()));
        }
        here.put_into(&mut config);
        let database_url = config.database.url.expose().clone();
        let mut command = match &self.args.with {
            Some(line) => Some(command::start(line, &database_url)?),
            None => None,
        };

        let options = Options {
            clock: Clock::System,
            cold: tokio::runtime::Handle::current(),
            access_log: Box::new(io::stdout()),
            cancel: signals.first.clone(),
            passed: Passed::nothing(),
        };
        let running = match app::start(config.clone(), options).await {
            Err(_) if signals.first.is_cancelled() => return Ok(ExitCode::SUCCESS),
            started => started?,
        };
        let (file, overrides) = (self.file.clone(), self.overrides.clone());
        let load = move || {
            let mut config = config::load(&file, &overrides)?;
            here.put_into(&mut config);
            Ok(config)
        };
        running.watch(self.file.clone(), config.read_from.held(), load, None);
        let working = async {
            if let (Some(command), Some(endpoint)) = (command.as_mut(), first_endpoint(&config)) {
                command::listening(endpoint, command).await?;
            }
            let welcome = Welcome {
                config: &config,
                inbox,
                app,
                database_url: &database_url,
                data: self.cluster.as_ref().map(Cluster::folder),
                home: &self.args.dir,
            };
            println!("{welcome}");
            self.watch(command.as_mut()).await
        };
        let outcome = tokio::select! {
            () = signals.first.cancelled() => Ok(()),
            _ = hangup.recv() => Ok(()),
            () = running.failed() => Err(anyhow::anyhow!("the gateway stopped because an essential task ended")),
            failure = working => failure,
        };

        // In this order: requests in flight still need the application, both need the database.
        println!("\nStopping.");
        running.stop(signals.second.clone()).await;
        tasks.stop.soft.cancel();
        if let Some(mut command) = command {
            command.stop().context("the command of --with did not stop")?;
        }
        tasks.stop.hard.cancel();
        if let Some(cluster) = self.cluster.take() {
            cluster.stop().context("Postgres did not stop")?;
        }
        outcome.map(|()| ExitCode::SUCCESS)
    }

    /// The page and the mail server, by where they are.
    async fn start_inbox(&self, tasks: &Tasks) -> anyhow::Result<(SocketAddr, SmtpUrl)> {
        let address = self.args.inbox;
        let pages = TcpListener::bind(address)
            .await
            .with_context(|| format!("can't listen on {address} for the inbox; choose another address with --inbox"))?;
        let mails = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let smtp_address = mails.local_addr()?;
        let smtp = SmtpUrl {
            security: SmtpSecurity::Plain,
            host: smtp_address.ip().to_string(),
            port: smtp_address.port(),
            credentials: None,
        };
        let folder = self.args.dir.join("inbox");
        let inbox = Inbox::open(&folder).with_context(|| format!("can't open the inbox in {}", folder.display()))?;
        let address = pages.local_addr()?;
        let kept = inbox.clone();
        let receiving = dev::smtp::serve(
            mails,
            dev::smtp::Options::default(),
            move |mail| kept.keep(&mail),
            tasks.clone(),
        );
        tasks.spawn("dev.smtp", receiving);
        let answer = move |request| inbox::answer(inbox.clone(), request);
        tasks.spawn("dev.inbox", http::serve(pages, "dev.inbox", answer, tasks.clone()));
        Ok((address, smtp))
    }

    /// Ends only when something else has.
    async fn watch(&mut self, mut command: Option<&mut Supervised>) -> anyhow::Result<()> {
        loop {
            if let Some(command) = command.as_mut()
                && let Some(status) = command.ended()?
            {
                bail!("the command of --with has ended ({status}): see its output above");
            }
            if self.cluster.as_mut().is_some_and(Cluster::ended) {
                let log = self.args.dir.join("postgres.log");
                bail!("Postgres has ended by itself: see {}", log.display());
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Where the application of `--with` is expected: the upstream that is named first.
fn first_endpoint(config: &Config) -> Option<&Endpoint> {
    config.upstreams.first()?.endpoints.first()
}

/// The folder for everything that is kept; never part of a repository.
fn prepare_home(home: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(home).with_context(|| format!("can't create {}", home.display()))?;
    let ignore = home.join(".gitignore");
    if !ignore.exists() {
        fs::write(&ignore, "*\n").with_context(|| format!("can't write {}", ignore.display()))?;
    }
    Ok(())
}

fn write_built_in(home: &Path) -> anyhow::Result<PathBuf> {
    let file = home.join("gateway.toml");
    fs::write(&file, BUILT_IN).with_context(|| format!("can't write {}", file.display()))?;
    Ok(file)
}

/// The secret of before, so that cookies of before still work.
fn kept_secret(file: &Path) -> anyhow::Result<String> {
    match fs::read_to_string(file) {
        Ok(secret) => return Ok(secret.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("can't read {}", file.display())),
    }
    let secret = Base64UrlUnpadded::encode_string(&random::<32>());
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut file| writeln!(file, "{secret}"))
        .with_context(|| format!("can't write {}", file.display()))?;
    Ok(secret)
}

fn say_if_elsewhere(cluster: &Cluster, home: &Path) -> anyhow::Result<()> {
    let home = home.canonicalize()?;
    if !cluster.folder().starts_with(&home) {
        println!(
            "Postgres can't run as root, and the user that it runs as can't reach {}: its data is in {}.",
            home.display(),
            cluster.folder().display()
        );
    }
    Ok(())
}
