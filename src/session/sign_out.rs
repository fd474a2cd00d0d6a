//! Ending sessions for somebody other than their user's own request to the auth API: an upstream that asks for it.
//!
//! As everywhere: committed, then forgotten here and its streams told to end, then answered. Other gateways hear of it from
//! the trigger. What was asked for is forgotten, also if it turns out to have ended before: word of that may still be under
//! way. What has begun is finished, even if the client that waits for the answer leaves.

use std::{net::IpAddr, sync::Arc};

use super::{LookupError, Sessions};
use crate::{
    clock::Timestamp,
    db::{self, DbError, audit, sessions as table, users},
    identity::{Session, SessionId, UserId, new_id},
};

/// Which sessions are to end.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Scope {
    /// The one.
    Session,
    /// All of its user's.
    User,
}

/// Why, and in which request: for the audit log.
#[derive(Debug)]
pub struct Because {
    pub reason: String,
    pub client: IpAddr,
    pub request_id: String,
}

impl Sessions {
    /// Ends `session`, or all of its user's. It is no mistake if it has ended already.
    pub async fn sign_out(
        self: &Arc<Self>,
        session: &Session,
        scope: Scope,
        because: Because,
        now: Timestamp,
    ) -> Result<(), LookupError> {
        let this = Arc::clone(self);
        let (id, user) = (session.id, session.identity.id);
        let ending = self
            .cold
            .spawn(async move { this.end_them(id, user, scope, &because, now).await });
        match ending.await {
            Ok(ended) => ended.map_err(|error| LookupError::Db(Arc::new(error))),
            // It panicked, or the runtime is going down.
            Err(_) => Err(LookupError::Unreachable),
        }
    }

    /// Each step is bounded by the pool's and the statements' time-outs.
    async fn end_them(
        &self,
        session: SessionId,
        user: UserId,
        scope: Scope,
        because: &Because,
        now: Timestamp,
    ) -> Result<(), DbError> {
        let mut client = self.db.client().await?;
        let tx = db::begin(&mut client).await?;
        // Who acts in one of them locks the user, too, and has done so or will find it ended.
        users::lock(&tx, user).await?;
        let ended = match scope {
            Scope::Session => Vec::from_iter(table::revoke(&tx, session, user, now).await?),
            Scope::User => table::revoke_all(&tx, user, None, now).await?,
        };
        let lines: Vec<_> = ended
            .iter()
            .map(|ended| audit::End {
                id: new_id(now),
                user: ended.user_id,
                session: ended.id,
            })
            .collect();
        let origin = audit::Origin {
            ip_address: Some(because.client),
            user_agent: "",
            request_id: &because.request_id,
        };
        audit::insert_ends(&tx, &lines, &because.reason, origin, now).await?;
        db::commit(tx).await?;
        for ended in &ended {
            self.end(&ended.token_hash);
        }
        if scope == Scope::User || ended.is_empty() {
            self.forget_user(user);
        }
        Ok(())
    }
}
