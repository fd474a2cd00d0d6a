use std::{
    convert::Infallible,
    sync::atomic::{AtomicBool, AtomicI64},
};

use uuid::Uuid;

use super::*;
use crate::identity::{Assertions, Identity, Rendered, SessionId};

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

fn session(user: UserId) -> Arc<Session> {
    named(user, "Ada")
}

pub(in crate::session) fn named(user: UserId, name: &str) -> Arc<Session> {
    Arc::new(Session {
        id: SessionId(Uuid::now_v7()),
        identity: Arc::new(Identity {
            id: user,
            email: "ada@example.com".to_owned(),
            email_verified: true,
            name: name.to_owned(),
            roles: Vec::new(),
        }),
        created_at: NOW,
        expires_at: NOW.plus(Duration::from_mins(1)),
        refresh_at: None,
        extending: AtomicBool::new(false),
        last_seen: AtomicI64::new(0),
        headers: Rendered::default(),
        methods: Vec::new(),
        assertions: Assertions::default(),
    })
}

impl<L: Locks> SessionCache<L> {
    /// What a scheduler has to see happen.
    pub(in crate::session) fn tidy_up(&self) {
        L::step(&self.gate, || self.stored.run_pending_tasks());
    }

    /// When nobody is at work: no look-up is listed, and the index says what is stored, neither more nor less.
    pub(in crate::session) fn check(&self) {
        self.tidy_up();
        assert!(self.flights.iter().all(|shard| shard.locked().is_empty()));
        let index = self.of_user.locked();
        for (hash, entry) in &self.stored {
            let of_user = index.get(&entry.session.identity.id).into_iter().flatten();
            let stands = of_user.filter(|stored| **stored == (*hash, address(&entry.session)));
            assert_eq!(stands.count(), 1, "{hash:?}");
        }
        assert_eq!(index.values().map(Vec::len).sum::<usize>(), self.stored.iter().count());
    }
}

fn cache() -> SessionCache {
    SessionCache::new(Duration::from_secs(10), 100)
}

fn answer(session: Arc<Session>, checked_at: Timestamp) -> Answer {
    Answer {
        found: Some(session),
        checked_at,
    }
}

async fn found(cache: &SessionCache, hash: TokenHash, what: Found) -> Found {
    cache
        .find(hash, NOW, async { Ok::<_, Infallible>(what) })
        .await
        .unwrap()
}

#[tokio::test]
async fn a_session_is_remembered_for_the_ttl_and_never_past_its_expiry() {
    let cache = cache();
    let hash = TokenHash::of(b"a");
    found(&cache, hash, Some(session(UserId(Uuid::now_v7())))).await;
    assert!(cache.get(&hash, NOW).unwrap().is_some());
    assert!(
        cache.get(&hash, NOW.plus(Duration::from_secs(10))).is_none(),
        "past the ttl"
    );

    let long: SessionCache = SessionCache::new(Duration::from_hours(1), 100);
    found(&long, hash, Some(session(UserId(Uuid::now_v7())))).await;
    assert!(long.get(&hash, NOW.plus(Duration::from_secs(59))).unwrap().is_some());
    assert!(
        long.get(&hash, NOW.plus(Duration::from_mins(1))).is_none(),
        "past the expiry"
    );
}

#[tokio::test]
async fn an_unknown_token_is_remembered_briefly() {
    let cache = cache();
    let hash = TokenHash::of(b"junk");
    assert!(found(&cache, hash, None).await.is_none());
    assert!(matches!(cache.get(&hash, NOW), Some(None)));
    assert!(cache.get(&hash, NOW.plus(UNKNOWN_FOR)).is_none());
}

#[tokio::test]
async fn a_lookup_that_a_revocation_overtook_is_not_stored() {
    let user = UserId(Uuid::now_v7());
    let hash = TokenHash::of(b"a");
    for revoke in [
        (|cache: &SessionCache, hash: &TokenHash, _: UserId| cache.forget(hash)) as fn(&_, &_, _),
        |cache, _, user| cache.forget_user(user),
        |cache, _, _| cache.clear(),
    ] {
        let cache = cache();
        let answer = cache
            .find(hash, NOW, async {
                revoke(&cache, &hash, user);
                Ok::<_, Infallible>(Some(session(user)))
            })
            .await
            .unwrap();
        assert!(
            answer.is_some(),
            "who asked before the revocation may have the old answer"
        );
        assert!(cache.get(&hash, NOW).is_none(), "nobody else may");
    }
}

#[tokio::test]
async fn a_lookup_begun_after_a_revocation_does_not_join_the_one_before_it() {
    let cache = Arc::new(cache());
    let hash = TokenHash::of(b"a");
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let slow = tokio::task::LocalSet::new();
    let early = {
        let cache = Arc::clone(&cache);
        slow.spawn_local(async move {
            cache
                .find(hash, NOW, async {
                    let _ = wait.await;
                    Ok::<_, Infallible>(Some(session(UserId(Uuid::now_v7()))))
                })
                .await
        })
    };
    slow.run_until(async {
        tokio::task::yield_now().await;
        cache.forget(&hash);
        assert!(found(&cache, hash, None).await.is_none(), "it asked for itself");
        go.send(()).unwrap();
        assert!(early.await.unwrap().unwrap().is_some());
    })
    .await;
    assert!(!matches!(cache.get(&hash, NOW), Some(Some(_))));
}

#[tokio::test]
async fn concurrent_misses_share_one_lookup() {
    let cache = cache();
    let hash = TokenHash::of(b"a");
    let lookups = std::cell::Cell::new(0);
    let ask = || {
        cache.find(hash, NOW, async {
            lookups.set(lookups.get() + 1);
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Some(session(UserId(Uuid::now_v7()))))
        })
    };
    let (a, b, c) = tokio::join!(ask(), ask(), ask());
    assert!(a.unwrap().is_some() && b.unwrap().is_some() && c.unwrap().is_some());
    assert_eq!(lookups.get(), 1);
}

#[tokio::test]
async fn a_lookup_that_failed_or_was_dropped_leaves_nothing_behind() {
    let cache = cache();
    let hash = TokenHash::of(b"a");
    let failed = cache.find(hash, NOW, async { Err::<Found, _>("away") }).await;
    assert_eq!(failed.unwrap_err(), "away");
    {
        let mut never = Box::pin(cache.find(hash, NOW, std::future::pending::<Result<Found, Infallible>>()));
        assert!(futures_util::poll!(never.as_mut()).is_pending());
    }
    assert!(cache.listed(&hash).is_empty());
    assert!(found(&cache, hash, None).await.is_none());
}

#[tokio::test]
async fn a_session_stored_again_is_still_known_as_its_users() {
    let cache = cache();
    let user = UserId(Uuid::now_v7());
    let hash = TokenHash::of(b"a");
    found(&cache, hash, Some(session(user))).await;
    cache.clear();
    // Now the old entry is evicted, under the same token.
    found(&cache, hash, Some(session(user))).await;
    assert!(cache.get(&hash, NOW).unwrap().is_some());
    cache.forget_user(user);
    assert!(cache.get(&hash, NOW).is_none());
}

#[tokio::test]
async fn a_session_stored_twice_is_still_known_as_its_users() {
    let cache = cache();
    let user = UserId(Uuid::now_v7());
    let hash = TokenHash::of(b"a");
    let answer = answer(session(user), NOW);
    cache.store(hash, &answer);
    cache.store(hash, &answer);
    assert!(cache.get(&hash, NOW).unwrap().is_some());
    cache.forget_user(user);
    assert!(cache.get(&hash, NOW).is_none());
}

#[tokio::test]
async fn of_those_who_share_a_lookup_one_stores_it_and_ends_it() {
    let cache = cache();
    let hash = TokenHash::of(b"a");
    let (first, second) = (cache.board(hash, NOW), cache.board(hash, NOW));
    let answer = answer(session(UserId(Uuid::now_v7())), NOW);
    second.store(&answer);
    assert!(cache.listed(&hash).is_empty(), "nobody joins what has an answer");
    cache.stored.invalidate(&hash);
    first.store(&answer);
    assert!(cache.get(&hash, NOW).is_none(), "it is not stored again");
}

/// The two halves of storing, and what can come between them: both know nothing of the look-up any more.
#[tokio::test]
async fn what_a_revocation_found_indexed_but_not_stored_yet_is_not_kept() {
    let user = UserId(Uuid::now_v7());
    let hash = TokenHash::of(b"a");
    for revoke in [
        (|cache: &SessionCache, user: UserId| cache.forget_user(user)) as fn(&_, _),
        |cache, _| cache.clear(),
    ] {
        let cache = cache();
        let session = session(user);
        cache.index(hash, &session);
        revoke(&cache, user);
        cache.keep(hash, &session, NOW);
        assert!(cache.get(&hash, NOW).is_none(), "the next revocation would not find it");
    }
}

#[tokio::test]
async fn an_answer_is_as_old_as_its_lookup_whoever_joined_it() {
    let cache = cache();
    let hash = TokenHash::of(b"a");
    // Whoever asked has the answer, and has not come to storing it.
    let asked = cache.board(hash, NOW);
    asked.flight.set(answer(session(UserId(Uuid::now_v7())), NOW)).unwrap();
    let join = |now| cache.find(hash, now, std::future::pending::<Result<Found, Infallible>>());
    assert!(join(NOW.plus(Duration::from_secs(5))).await.unwrap().is_some());
    assert!(cache.get(&hash, NOW.plus(Duration::from_secs(9))).is_some());
    assert!(
        cache.get(&hash, NOW.plus(Duration::from_secs(10))).is_none(),
        "past the ttl"
    );
}

#[tokio::test]
async fn nobody_joins_a_lookup_that_is_older_than_what_may_be_remembered() {
    let cache = cache();
    let hash = TokenHash::of(b"a");
    let slow = cache.board(hash, NOW);
    slow.flight.set(answer(session(UserId(Uuid::now_v7())), NOW)).unwrap();
    let load = async { Ok::<_, Infallible>(None) };
    let later = NOW.plus(Duration::from_secs(10));
    assert!(
        cache.find(hash, later, load).await.unwrap().is_none(),
        "it asked for itself"
    );
    slow.store(slow.flight.get().unwrap());
    assert!(
        matches!(cache.get(&hash, later), Some(None)),
        "nor is the other's stored"
    );
}

#[tokio::test]
async fn who_joins_a_lookup_gets_no_session_whose_time_is_over() {
    let cache = cache();
    let hash = TokenHash::of(b"a");
    let ask = |now| {
        cache.find(hash, now, async {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Some(session(UserId(Uuid::now_v7()))))
        })
    };
    let (asked, joined) = tokio::join!(ask(NOW), ask(NOW.plus(Duration::from_mins(1))));
    assert!(asked.unwrap().is_some() && joined.unwrap().is_none());
}

#[tokio::test]
async fn whoever_leaves_last_ends_a_lookup_however_many_are_still_on_their_way_out() {
    let cache = cache();
    let hash = TokenHash::of(b"a");
    let boarded = cache.board(hash, NOW);
    // Somebody on another thread has left, and has not let go of it yet.
    let _leaving = Arc::clone(&boarded.flight);
    let other = cache.board(hash, NOW);
    drop(boarded);
    assert!(!cache.listed(&hash).is_empty(), "somebody waits still");
    drop(other);
    assert!(cache.listed(&hash).is_empty());
}

#[tokio::test]
async fn what_is_stored_is_forgotten_once_it_says_more_than_is_true() {
    let cache = cache();
    let hash = TokenHash::of(b"a");
    let user = UserId(Uuid::now_v7());
    let known = session(user);
    let with = |roles: &[&str], lives: Duration| {
        let mut session = Arc::into_inner(session(user)).unwrap();
        let identity = Arc::get_mut(&mut session.identity).unwrap();
        identity.roles = roles.iter().map(|role| (*role).to_owned()).collect();
        session.expires_at = NOW.plus(lives);
        session
    };
    for (found, stays) in [
        (Some(with(&[], Duration::from_mins(1))), true),
        (Some(with(&[], Duration::from_mins(2))), true),
        (Some(with(&[], Duration::from_secs(59))), false),
        (Some(with(&["admin"], Duration::from_mins(1))), false),
        (None, false),
    ] {
        cache.store(hash, &answer(Arc::clone(&known), NOW));
        cache.correct(&hash, found.as_ref());
        assert_eq!(cache.get(&hash, NOW).is_some(), stays, "{found:?}");
    }
    // Nor is anybody unknown who was found.
    cache.forget(&hash);
    cache.unknown.insert(hash, NOW.plus(UNKNOWN_FOR));
    cache.correct(&hash, Some(&known));
    assert!(cache.get(&hash, NOW).is_none());
    // Nor does what began before it come back.
    let begun = cache.board(hash, NOW);
    cache.correct(&hash, Some(&known));
    begun.store(&answer(Arc::clone(&known), NOW));
    assert!(cache.get(&hash, NOW).is_none());
}

#[tokio::test]
async fn a_token_that_has_died_is_unknown_from_then_on() {
    let cache = cache();
    let hash = TokenHash::of(b"a");
    found(&cache, hash, Some(session(UserId(Uuid::now_v7())))).await;
    let later = NOW.plus(Duration::from_secs(11));
    let load = async { Ok::<_, Infallible>(None) };
    assert!(cache.find(hash, later, load).await.unwrap().is_none());
    assert!(
        matches!(cache.get(&hash, later), Some(None)),
        "Postgres is not asked twice"
    );
    cache.forget(&hash);
    assert!(cache.get(&hash, later).is_none(), "nor is what changed overlooked");
}

#[tokio::test]
async fn revoking_a_user_takes_all_of_theirs_and_nobody_elses() {
    let cache = cache();
    let (ada, bob) = (UserId(Uuid::now_v7()), UserId(Uuid::now_v7()));
    let [first, second, other] = [b"1", b"2", b"3"].map(|token| TokenHash::of(token));
    found(&cache, first, Some(session(ada))).await;
    found(&cache, second, Some(session(ada))).await;
    found(&cache, other, Some(session(bob))).await;
    cache.forget_user(ada);
    assert!(cache.get(&first, NOW).is_none() && cache.get(&second, NOW).is_none());
    assert!(cache.get(&other, NOW).unwrap().is_some());
}
