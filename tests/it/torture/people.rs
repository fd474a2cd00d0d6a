//! People who sign in, and whose sessions end in every way there is.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;
use vestibule::secret::{OneTimeToken, ResetPassword, TokenHash};

use super::{
    chance::Chance,
    door::Reply,
    ending::Ending,
    hand::Hand,
    oracle::{Means, Session},
    upstream::LEAVE,
    world::{PATTERN, World, get, post},
};
use crate::harness::{desk::OPERATOR, people::PASSWORD, program};

/// `max_per_user`
pub(super) const MOST_SESSIONS: usize = 5;

/// How long a session has yet that is about to expire.
const NOT_LONG: Duration = Duration::from_millis(300);

/// How often each is chosen.
const MEANS: [(Means, usize); 20] = [
    (Means::SignOut, 24),
    (Means::RevokeOne, 12),
    (Means::RevokeOthers, 8),
    (Means::RevokeAll, 8),
    (Means::ChangePassword, 6),
    (Means::ResetPassword, 4),
    (Means::DeleteUser, 3),
    (Means::UpstreamAsks, 8),
    (Means::SqlRevoke, 10),
    (Means::SqlDelete, 10),
    (Means::SqlExpire, 6),
    (Means::SqlExpireSoon, 4),
    (Means::SqlNewHash, 4),
    (Means::SqlBan, 3),
    (Means::SqlDeleteUser, 3),
    (Means::SqlRoles, 8),
    (Means::CliRevoke, 1),
    (Means::CliBan, 1),
    (Means::CliDelete, 1),
    (Means::CliRoles, 1),
];

/// Somebody, with all their sessions, the oldest first.
struct Person {
    id: Uuid,
    email: String,
    password: String,
    is_admin: bool,
    sessions: Vec<Arc<Session>>,
}

/// A part of the people, looked after by one who does one thing at a time: what becomes of a person is never in dispute.
pub(super) async fn live(world: Arc<World>, number: u64, seed: u64, pace: Duration) {
    let mut chance = Chance::new(seed, 1_000 + number);
    let mut hand = Hand::new(world.db.url());
    let mut people: Vec<Person> = Vec::new();
    while !world.is_over() {
        world.pause(chance.between(Duration::ZERO, pace * 2)).await;
        let held = world.peace.read().await;
        // Whoever has no session for long has lost them all.
        for person in &mut people {
            person.sessions.retain(|session| !session.may_have_ended());
        }
        if people.len() < 3 {
            people.extend(newcomer(&world, &mut hand, &mut chance).await);
            continue;
        }
        let at = chance.below(people.len());
        let mut person = people.swap_remove(at);
        let is_known = if person.sessions.len() < 2 || chance.one_in(2) {
            sign_in(&world, &mut person, &mut chance).await
        } else {
            let means = choose(&mut chance);
            end(&world, &mut person, means, &mut chance, &mut hand).await
        };
        drop(held);
        if is_known {
            people.push(person);
        } else {
            // Gone, or nobody knows what they may do.
            for session in &person.sessions {
                if !session.may_have_ended() {
                    session.is_in_doubt();
                }
                world.has_ended(session);
            }
        }
    }
}

fn choose(chance: &mut Chance) -> Means {
    let mut at = chance.below(MEANS.iter().map(|(_, weight)| weight).sum());
    for (means, weight) in MEANS {
        if at < weight {
            return means;
        }
        at -= weight;
    }
    Means::SignOut
}

async fn newcomer(world: &World, hand: &mut Hand, chance: &mut Chance) -> Option<Person> {
    let id = Uuid::now_v7();
    let email = format!("person{}@example.com", world.number());
    let is_admin = chance.one_in(2);
    let roles: &[&str] = if is_admin { &["admin", "user"] } else { &["user"] };
    let user = "INSERT INTO users (id, email, email_verified, name, roles, created_at, updated_at)
                VALUES ($1, $2, true, 'Somebody', $3, now(), now())";
    hand.run(user, &[&id, &email, &roles]).await?;
    let account = "INSERT INTO accounts (id, user_id, provider_id, account_id, password_hash, password_set_at,
                       created_at, updated_at)
                   SELECT $1::uuid, $1, 'credential', $1::text, a.password_hash, now(), now(), now()
                   FROM accounts AS a JOIN users AS u ON u.id = a.user_id
                   WHERE u.email = $2";
    hand.run(account, &[&id, &PATTERN]).await?;
    Some(Person {
        id,
        email,
        password: PASSWORD.to_owned(),
        is_admin,
        sessions: Vec::new(),
    })
}

/// Whether it is known what came of it.
async fn sign_in(world: &Arc<World>, person: &mut Person, chance: &mut Chance) -> bool {
    let gateway = chance.below(world.gates.len());
    let number = person.sessions.len().saturating_sub(MOST_SESSIONS - 1);
    let oldest = Ending::begin(
        person.sessions.drain(..number).collect(),
        Means::MaxPerUser,
        Some(gateway),
    );
    let body = json!({ "email": person.email, "password": person.password });
    let reply = asked(world, gateway, &post("sign-in/email", None, &body)).await;
    oldest.conclude(world, reply.as_ref().map(|reply| reply.ended), chance);
    let Some(reply) = reply else { return false };
    world.oracle.tally().sign_ins += 1;
    enters(world, person, &reply)
}

/// A session that began with this answer.
fn enters(world: &World, person: &mut Person, reply: &Reply) -> bool {
    let cookies = reply.head.all("set-cookie");
    let cookie = cookies.iter().find(|cookie| cookie.contains(".session_token="));
    let body: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    let (Some(cookie), Some(token)) = (cookie, body["token"].as_str()) else {
        world.finds(format!("no session in {:?} {}", reply.head, reply.body));
        return false;
    };
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let session = Session::new(person.id.to_string(), cookie, token.to_owned(), person.is_admin);
    world.is_shown(&session);
    person.sessions.push(session);
    true
}

/// The answer, if it is that all is done.
async fn asked(world: &World, gateway: usize, request: &str) -> Option<Reply> {
    match world.gates[gateway].door.once(request).await {
        Ok(reply) if reply.status() == 200 => Some(reply),
        Ok(reply) if matches!(reply.status(), 503 | 504) => None,
        Ok(reply) => {
            let line = request.lines().next().unwrap_or_default();
            world.finds(format!(
                "gateway {gateway} answered {} to {line}: {}",
                reply.status(),
                reply.body
            ));
            None
        }
        Err(error) => {
            world.finds(format!("gateway {gateway} did not answer: {error}"));
            None
        }
    }
}

/// Whether the person is there afterwards, and it is known with which sessions.
async fn end(world: &Arc<World>, person: &mut Person, means: Means, chance: &mut Chance, hand: &mut Hand) -> bool {
    let is_of_roles = matches!(means, Means::SqlRoles | Means::CliRoles);
    if is_of_roles && !person.is_admin {
        return true;
    }
    let one = chance.below(person.sessions.len());
    let caller = Arc::clone(&person.sessions[one]);
    let other = Arc::clone(&person.sessions[(one + 1) % person.sessions.len()]);
    let targets = match means {
        Means::SignOut
        | Means::UpstreamAsks
        | Means::SqlRevoke
        | Means::SqlDelete
        | Means::SqlExpire
        | Means::SqlExpireSoon
        | Means::SqlNewHash => vec![Arc::clone(&caller)],
        Means::RevokeOne => vec![Arc::clone(&other)],
        Means::RevokeOthers => {
            let others = person.sessions.iter().filter(|session| !Arc::ptr_eq(session, &caller));
            others.cloned().collect()
        }
        _ => person.sessions.clone(),
    };
    let new_password = format!("password number {}", world.number());
    let (done, reply) = if let Some(request) = request(person, &caller, &other, means, &new_password, hand).await {
        let gateway = chance.below(world.gates.len());
        let ending = Ending::begin(targets, means, Some(gateway));
        let reply = asked(world, gateway, &request).await;
        let done = reply.as_ref().map(|reply| reply.ended);
        ending.conclude(world, done, chance);
        (done, reply)
    } else {
        let ending = Ending::begin(targets, means, None);
        let done = by_hand(world, person, &caller, means, hand).await;
        ending.conclude(world, done, chance);
        (done, None)
    };
    if done.is_none() {
        return false;
    }
    if is_of_roles {
        person.is_admin = false;
        return true;
    }
    person.sessions.retain(|session| !session.may_have_ended());
    if matches!(means, Means::ChangePassword | Means::ResetPassword) {
        person.password = new_password;
    }
    match (means, reply) {
        (Means::ChangePassword, Some(reply)) => enters(world, person, &reply),
        (Means::DeleteUser | Means::SqlBan | Means::SqlDeleteUser | Means::CliBan | Means::CliDelete, _) => false,
        _ => true,
    }
}

/// What a gateway is asked, if one is.
async fn request(
    person: &Person,
    caller: &Session,
    other: &Session,
    means: Means,
    new_password: &str,
    hand: &mut Hand,
) -> Option<String> {
    let (path, body) = match means {
        // The request itself has begun before, and passes.
        Means::UpstreamAsks => return Some(get(LEAVE, &caller.cookie)),
        Means::ResetPassword => {
            let token = OneTimeToken::<ResetPassword>::generate();
            let link = "INSERT INTO one_time_tokens (token_hash, purpose, user_id, email, created_at, expires_at)
                        VALUES ($1, 'reset-password', $2, $3, now(), now() + '1 hour'::interval)";
            let hash = token.hash();
            hand.run(link, &[&hash.as_bytes().as_slice(), &person.id, &person.email])
                .await?;
            let body = json!({ "token": token.as_str(), "newPassword": new_password });
            return Some(post("reset-password", None, &body));
        }
        Means::SignOut => ("sign-out", json!({})),
        Means::RevokeOne => ("revoke-session", json!({ "token": other.token })),
        Means::RevokeOthers => ("revoke-other-sessions", json!({})),
        Means::RevokeAll => ("revoke-sessions", json!({})),
        Means::ChangePassword => {
            let body = json!({
                "currentPassword": person.password, "newPassword": new_password, "revokeOtherSessions": true,
            });
            ("change-password", body)
        }
        Means::DeleteUser => ("delete-user", json!({ "password": person.password })),
        _ => return None,
    };
    Some(post(path, Some(&caller.cookie), &body))
}

/// Done in the database, or by a command; when it was.
async fn by_hand(world: &World, person: &Person, session: &Session, means: Means, hand: &mut Hand) -> Option<Instant> {
    let of_session = match means {
        Means::SqlRevoke => "UPDATE user_sessions SET revoked_at = now() WHERE token_hash = $1",
        Means::SqlDelete => "DELETE FROM user_sessions WHERE token_hash = $1",
        Means::SqlExpire => "UPDATE user_sessions SET expires_at = now() - '1 second'::interval WHERE token_hash = $1",
        // One that is not remembered is not extended by its use.
        Means::SqlExpireSoon => {
            "UPDATE user_sessions
             SET expires_at = clock_timestamp() + '300 milliseconds'::interval, remembered = false
             WHERE token_hash = $1"
        }
        Means::SqlNewHash => "UPDATE user_sessions SET token_hash = sha256(token_hash) WHERE token_hash = $1",
        _ => "",
    };
    if !of_session.is_empty() {
        let hash = TokenHash::of(session.token.as_bytes());
        let done = hand.run(of_session, &[&hash.as_bytes().as_slice()]).await?;
        if means == Means::SqlNewHash {
            // Its row would be one of the person's sessions still, of which nobody has the token.
            let rest = "DELETE FROM user_sessions WHERE token_hash = sha256($1)";
            hand.run(rest, &[&hash.as_bytes().as_slice()]).await?;
        }
        if means == Means::SqlExpireSoon {
            // Until then it is one of the person's sessions, and counts.
            sleep_until(done + NOT_LONG).await;
            return Some(done + NOT_LONG);
        }
        return Some(done);
    }
    let of_user = match means {
        Means::SqlBan => "UPDATE users SET banned = true WHERE id = $1",
        Means::SqlDeleteUser => "DELETE FROM users WHERE id = $1",
        Means::SqlRoles => "UPDATE users SET roles = array_remove(roles, 'admin') WHERE id = $1",
        _ => "",
    };
    if !of_user.is_empty() {
        return hand.run(of_user, &[&person.id]).await;
    }
    let email = person.email.as_str();
    let command: &[&str] = match means {
        Means::CliRevoke => &["session", "revoke", "--user", email, "--yes"],
        Means::CliBan => &["user", "ban", email],
        Means::CliDelete => &["user", "delete", email, "--yes"],
        Means::CliRoles => &["user", "set-role", email, "--remove", "admin"],
        _ => return None,
    };
    let args = [command, &["--config", world.config.to_str().unwrap()]].concat();
    let ended = program::run(&args, &[OPERATOR], world.folder.path()).await;
    (ended.code == Some(0)).then(Instant::now)
}
