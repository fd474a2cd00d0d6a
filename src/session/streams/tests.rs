use std::{
    sync::atomic::{AtomicBool, AtomicI64},
    time::Duration,
};

use futures_util::task::noop_waker_ref;
use http::{Method, uri::PathAndQuery};
use uuid::Uuid;

use super::{doubt::GIVE_UP_AFTER, *};
use crate::{
    identity::{Assertions, Identity, Rendered, Session, SessionId},
    secret::TokenHash,
};

const NOW: Timestamp = Timestamp::from_secs(1_000);
const LATER: Timestamp = Timestamp::from_secs(2_000);

fn user(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

fn hash(number: u8) -> TokenHash {
    TokenHash::of(&[number])
}

fn about(session: Option<(u8, u128)>) -> About {
    About {
        session: session.map(|(token, owner)| Holder {
            hash: hash(token),
            session: SessionId(Uuid::from_u128(token.into())),
            user: user(owner),
            expires_at: LATER,
        }),
        signed_by: None,
        page: None,
        host: "app.example.com".into(),
        path: PathAndQuery::from_static("/api/ws?ticket=x"),
        method: Method::GET,
        upgrade: true,
        since: NOW,
        era: Era::default(),
    }
}

fn session(owner: u128, roles: &[&str], expires_at: Timestamp) -> Session {
    Session {
        id: SessionId(Uuid::nil()),
        identity: Arc::new(Identity {
            id: user(owner),
            email: "ada@example.test".to_owned(),
            email_verified: true,
            name: "Ada".to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        }),
        created_at: NOW,
        expires_at,
        refresh_at: None,
        extending: AtomicBool::new(false),
        last_seen: AtomicI64::new(0),
        headers: Rendered::default(),
        assertions: Assertions::default(),
        methods: Vec::new(),
    }
}

/// What is looked up at that time.
fn taken(streams: &Streams, now: Timestamp) -> Vec<TokenHash> {
    streams.notice_expiries(now);
    streams.take_doubtful(usize::MAX)
}

fn why(guard: &StreamGuard) -> Option<Why> {
    match guard.poll_closed(&Context::from_waker(noop_waker_ref())) {
        Poll::Ready(why) => Some(why),
        Poll::Pending => None,
    }
}

#[test]
fn a_revoked_session_s_streams_end_and_nobody_else_s() {
    let streams = Streams::new(true);
    let [own, also, other, nobodys] =
        [Some((1, 1)), Some((1, 1)), Some((2, 1)), None].map(|session| streams.register(about(session)));
    streams.close_session(&hash(1));
    assert_eq!(
        [&own, &also, &other, &nobodys].map(why),
        [Some(Why::Revoked), Some(Why::Revoked), None, None]
    );
    streams.close_user(user(2));
    assert_eq!(why(&other), None);
    streams.close_user(user(1));
    assert_eq!([&other, &nobodys].map(why), [Some(Why::Revoked), None]);
    assert_eq!(streams.closed()[0], (Why::Revoked, 3), "each is counted once");
}

#[test]
fn what_else_is_to_be_done_is_done_before_the_closing_returns() {
    let streams = Streams::new(true);
    let [early, late] = [(); 2].map(|()| streams.register(about(Some((1, 1)))));
    let done = Arc::new([const { AtomicBool::new(false) }; 2]);
    let is_done = || done.each_ref().map(|done| done.load(Ordering::Relaxed));
    let notes = |number: usize| {
        let done = Arc::clone(&done);
        move || done[number].store(true, Ordering::Relaxed)
    };
    early.at_its_end(notes(0));
    assert_eq!(is_done(), [false, false]);
    streams.close_session(&hash(1));
    assert_eq!(is_done(), [true, false]);
    late.at_its_end(notes(1));
    assert_eq!(is_done(), [true, true], "it had ended already");
}

#[tokio::test]
async fn whoever_waits_is_woken() {
    let streams = Streams::new(true);
    let guard = streams.register(about(Some((1, 1))));
    let closing = async {
        tokio::task::yield_now().await;
        streams.close_session(&hash(1));
    };
    let (why, ()) = tokio::join!(guard.closed(), closing);
    assert_eq!(why, Why::Revoked);
}

#[test]
fn nothing_is_left_of_a_stream_that_ended() {
    let streams = Streams::new(true);
    let guards = [Some((1, 1)), Some((1, 1)), Some((2, 1)), None].map(|session| streams.register(about(session)));
    streams.doubt_everything();
    assert_eq!(streams.open(), 4);
    drop(guards);
    let state = streams.shared.state();
    assert!(state.open.is_empty() && state.sessions.is_empty() && state.users.is_empty());
    assert!(state.doubtful.is_empty());
    drop(state);
    assert_eq!(taken(&streams, NOW), []);
}

#[test]
fn a_doubt_is_resolved_by_what_is_found() {
    let streams = Streams::new(true);
    let guard = streams.register(about(Some((1, 1))));
    assert_eq!(taken(&streams, NOW), []);
    streams.doubt(&hash(2));
    streams.doubt_user(user(2));
    assert_eq!(taken(&streams, NOW), [], "they have no streams");
    streams.doubt_user(user(1));
    assert_eq!(taken(&streams, NOW), [hash(1)]);
    assert_eq!(taken(&streams, NOW), []);

    let is_admin = |_: &About, session: &Session| session.identity.roles.contains(&"admin".to_owned());
    let found = session(1, &["admin"], LATER);
    streams.looked_up(&hash(1), Some(&found), &is_admin, NOW);
    assert_eq!(why(&guard), None);
    streams.looked_up(&hash(1), Some(&session(1, &[], LATER)), &is_admin, NOW);
    assert_eq!(why(&guard), Some(Why::NotAllowed));

    let guard = streams.register(about(Some((3, 1))));
    streams.looked_up(&hash(3), None, &is_admin, NOW);
    assert_eq!(why(&guard), Some(Why::Revoked));
}

#[test]
fn each_session_is_rechecked_once_in_a_round_however_long_that_takes() {
    let streams = Streams::new(true);
    let mut guards: Vec<_> = (0..100)
        .map(|token| streams.register(about(Some((token, 1)))))
        .collect();
    streams.recheck_everything();
    assert_eq!(taken(&streams, NOW), [], "nothing happened to anybody");
    let mut rechecked = streams.take_to_recheck(60);
    assert_eq!(rechecked.len(), 60);
    guards.push(streams.register(about(Some((100, 1)))));
    streams.recheck_everything();
    rechecked.extend(streams.take_to_recheck(usize::MAX));
    rechecked.sort_unstable_by_key(TokenHash::hex);
    rechecked.dedup();
    assert_eq!(rechecked.len(), 100);
    streams.recheck_everything();
    guards.truncate(1);
    assert_eq!(
        streams.take_to_recheck(usize::MAX),
        [hash(0)],
        "the others have no streams any more"
    );
    let unfollowed = Streams::new(false);
    let _guard = unfollowed.register(about(Some((1, 1))));
    unfollowed.recheck_everything();
    assert_eq!(unfollowed.take_to_recheck(usize::MAX), []);
}

#[test]
fn what_something_was_heard_of_comes_before_what_is_in_doubt_with_everybody() {
    let streams = Streams::new(true);
    let guards: Vec<_> = (0..100)
        .map(|token| streams.register(about(Some((token, 1)))))
        .collect();
    streams.doubt_everything();
    streams.doubt(&hash(70));
    assert_eq!(streams.take_doubtful(1), [hash(70)]);
    let first = streams.take_doubtful(50);
    let [failed, heard_of, ..] = first[..] else {
        panic!("{} of 50", first.len());
    };
    assert_eq!(first.len(), 50);
    streams.not_looked_up(failed, NOW);
    streams.doubt(&heard_of);
    let rest = streams.take_doubtful(usize::MAX);
    assert_eq!(
        (rest[0], rest[rest.len() - 1]),
        (heard_of, failed),
        "what failed is last"
    );
    let all: HashSet<_> = first.into_iter().chain(rest).collect();
    assert_eq!(all.len(), guards.len());
}

#[test]
fn an_expiry_counts_unless_it_has_moved() {
    let streams = Streams::new(true);
    let guard = streams.register(about(Some((1, 1))));
    let anybody = |_: &About, _: &Session| true;
    assert_eq!(taken(&streams, LATER), [hash(1)]);
    assert_eq!(taken(&streams, LATER), [], "it is being looked up");
    let moved = LATER.plus(Duration::from_hours(1));
    streams.looked_up(&hash(1), Some(&session(1, &[], moved)), &anybody, LATER);
    assert_eq!((taken(&streams, LATER), why(&guard)), (vec![], None));
    assert_eq!(taken(&streams, moved), [hash(1)]);
    streams.looked_up(&hash(1), None, &anybody, moved);
    assert_eq!(why(&guard), Some(Why::Expired));
}

#[test]
fn a_doubt_that_nobody_resolves_stays_one_until_the_session_is_long_over() {
    let streams = Streams::new(true);
    let guard = streams.register(about(Some((1, 1))));
    for now in [NOW, LATER] {
        streams.not_looked_up(hash(1), now);
        assert_eq!((taken(&streams, now), why(&guard)), (vec![hash(1)], None));
    }
    streams.not_looked_up(hash(1), LATER.plus(GIVE_UP_AFTER));
    assert_eq!(why(&guard), Some(Why::Expired));
}

#[test]
fn new_rules_are_judged_by_what_a_stream_is() {
    let streams = Streams::new(false);
    let [own, nobodys] = [Some((1, 1)), None].map(|session| streams.register(about(session)));
    let rules = |about: &About| about.session.is_some() && &*about.host == "app.example.com";
    streams.judge(Era::default().following(), Arc::new(rules));
    assert_eq!([&own, &nobodys].map(why), [None, Some(Why::Reloaded)]);
    assert_eq!(taken(&streams, NOW), [hash(1)], "who they are is judged next");
}

#[test]
fn new_rules_are_those_of_a_stream_that_began_before_them_and_is_registered_later() {
    let streams = Streams::new(false);
    let second = Era::default().following();
    streams.judge(second, Arc::new(|about: &About| about.session.is_some()));
    let [own, nobodys] = [Some((1, 1)), None].map(|session| streams.register(about(session)));
    assert_eq!([&own, &nobodys].map(why), [None, Some(Why::Reloaded)]);
    assert_eq!(taken(&streams, NOW), [hash(1)], "who they are is judged next");

    let [own, nobodys] = [Some((2, 1)), None].map(|session| {
        streams.register(About {
            era: second,
            ..about(session)
        })
    });
    assert_eq!(
        [&own, &nobodys].map(why),
        [None, None],
        "their requests were judged by them"
    );
    assert_eq!(taken(&streams, NOW), []);
}

#[test]
fn no_stream_begins_once_all_were_closed() {
    let streams = Streams::new(true);
    let early = streams.register(about(None));
    streams.close_everything();
    let late = streams.register(about(Some((1, 1))));
    assert_eq!([&early, &late].map(why), [Some(Why::Stopping); 2]);
    assert_eq!(streams.closed()[4], (Why::Stopping, 2));
}

#[test]
fn told_not_to_follow_sessions_it_does_not() {
    let streams = Streams::new(false);
    let guard = streams.register(about(Some((1, 1))));
    streams.close_session(&hash(1));
    streams.close_user(user(1));
    streams.doubt_everything();
    assert_eq!((taken(&streams, LATER), why(&guard)), (vec![], None));
}
