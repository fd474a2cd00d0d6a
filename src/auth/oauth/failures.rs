//! What came back from a provider and ended before anybody knew who it was: for the audit log.
//!
//! Best effort. The person is told either way, and the log of the gateway has the cause: that Postgres is away for a moment
//! must not turn one failure into another.

use tracing::warn;

use super::flow::Link;
use crate::{auth::http::Call, chain::Chain, db::audit};

/// Writes down why somebody could not sign in, or `link` an account.
pub(super) async fn note(call: &Call<'_>, link: Option<Link>, code: &str) {
    let entry = match link {
        None => audit::Entry::refused(audit::Action::SignIn, code),
        Some(Link { user, session }) => audit::Entry {
            session: Some(session),
            ..audit::Entry::refused_to(user, audit::Action::LinkAccount, code)
        },
    };
    let noted = async { call.audit(&call.auth.db.client().await?, &entry).await };
    if let Err(error) = noted.await {
        warn!(
            error = %Chain(&error),
            request_id = call.request_id,
            "could not write down in the audit log that a sign-in at a provider failed"
        );
    }
}
