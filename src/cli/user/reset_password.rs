//! `vestibule user reset-password`: a link by which a user chooses a new password; links before it are void.
//!
//! The link is mailed by way of the outbox, which a running gateway empties; or it is printed, for whoever brings it to
//! the user in another way. A printed link is a secret, and proves nothing about the address.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{UserView, named};
use crate::{
    auth::reset_link,
    cli::{
        argument::Who,
        operator::{Operator, OperatorArgs, Stop, lock},
        output::time,
    },
    db::{self, Transaction, audit, users::User},
    policy::origin::TrustedOrigins,
    secret::Secret,
};

/// Where a link leads unless it is said: the front page, as verification links do.
const DEFAULT_TARGET: &str = "/";

#[derive(Args, Debug)]
pub(super) struct ResetPasswordArgs {
    #[command(flatten)]
    pub(super) operator: OperatorArgs,
    /// Id or e-mail address
    user: Who,
    #[command(flatten)]
    link: LinkArgs,
}

/// How a link reaches its user, and where it leads.
#[derive(Args, Debug)]
pub(super) struct LinkArgs {
    /// Print the link instead of mailing it
    #[arg(long)]
    print_link: bool,
    /// The page that asks for the new password: a path, or a URL of a trusted origin. The token is added to it
    #[arg(long, value_name = "URL")]
    redirect_to: Option<String>,
}

/// What became of a link.
pub(super) enum Sent {
    Mailed,
    Printed(Secret<String>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Issued<'a> {
    user: UserView<'a>,
    mailed: bool,
    reset_link: Option<&'a str>,
    expires_at: String,
}

crate::secret::unprinted!(Issued<'a>);

impl LinkArgs {
    /// Whether the page is one that a link may lead to, judged as the auth API judges `redirectTo`.
    pub(super) fn check(&self, operator: &Operator) -> Result<(), Stop> {
        let Some(target) = &self.redirect_to else {
            return Ok(());
        };
        let config = &operator.config;
        let trusted = TrustedOrigins::of(config);
        if trusted.allows_redirect(target) {
            return Ok(());
        }
        Err(Stop::Usage(format!(
            "--redirect-to leads neither to {} nor to an origin of auth.trusted_origins: write a path, or add the origin \
             there",
            config.server.public_url
        )))
    }

    /// Issues a link in `tx`, with its line in the audit log.
    pub(super) async fn send(&self, operator: &Operator, tx: &Transaction<'_>, user: &User) -> Result<Sent, Stop> {
        let target = self.redirect_to.as_deref().unwrap_or(DEFAULT_TARGET);
        let (sent, how) = if self.print_link {
            let link = reset_link::print(tx, &operator.config, user, Some(target), operator.now).await?;
            (Sent::Printed(link), "printed")
        } else {
            reset_link::mail(tx, &operator.config, user, Some(target), operator.now).await?;
            (Sent::Mailed, "mailed")
        };
        let entry = audit::Entry {
            reason: Some(how),
            ..audit::Entry::done(audit::Action::RequestPasswordReset, user.id)
        };
        operator.audit(tx, &entry).await?;
        Ok(sent)
    }
}

impl Sent {
    pub(super) fn link(&self) -> Option<&str> {
        match self {
            Self::Mailed => None,
            Self::Printed(link) => Some(link.expose()),
        }
    }

    /// For people; a link stands in a line of its own.
    pub(super) fn sentence(&self, operator: &Operator, user: &User) -> String {
        let until = operator.now.plus(operator.config.auth.password.reset_expires_in);
        let until = time(until);
        match self {
            Self::Mailed => format!(
                "a link to choose a password, good until {until} UTC, goes to {} as soon as a gateway runs\n",
                named(user)
            ),
            Self::Printed(link) => format!(
                "whoever has this link until {until} UTC chooses the password of {}:\n{}\n",
                named(user),
                link.expose()
            ),
        }
    }
}

pub(super) async fn run(operator: &Operator, args: &ResetPasswordArgs) -> Result<ExitCode, Stop> {
    args.link.check(operator)?;
    let mut client = operator.client().await?;
    let tx = db::begin(&mut client).await?;
    let user = lock(&tx, &args.user).await?;
    let sent = args.link.send(operator, &tx, &user).await?;
    db::commit(tx).await?;
    let expires_at = operator.now.plus(operator.config.auth.password.reset_expires_in);
    operator.print(
        || Issued {
            user: UserView::from(&user),
            mailed: sent.link().is_none(),
            reset_link: sent.link(),
            expires_at: expires_at.rfc3339(),
        },
        || sent.sentence(operator, &user),
    )?;
    Ok(ExitCode::SUCCESS)
}
