//! `state` and the cookie that binds it to a browser.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use serde_json::json;

use super::{ADA, ADA_SUB, EVE_SUB, World, location, person};
use crate::harness::{Browser, people::PASSWORD};

const ERROR_PAGE: &str = "https://app.example.com/api/auth/error?error=";
/// Of the right form, and nobody's.
const NEVER_GIVEN_OUT: &str = "Zx4mR0bW7sQh1TnV9cKdLuYp2gAeJf8iMo5tBwNqXrE";

/// OAUTH-01.
#[tokio::test]
async fn oauth_01_a_state_that_is_missing_wrong_or_expired_ends_the_flow_before_the_provider_is_asked() {
    let world = World::new().await;
    let browser = Browser::default();
    for (state, error) in [
        (None, "state_not_found"),
        (Some(""), "state_not_found"),
        (Some("x"), "state_mismatch"),
        (Some(NEVER_GIVEN_OUT), "state_mismatch"),
    ] {
        let back = world.back(&browser, ADA_SUB).await.with("state", state);
        let end = world.land(&browser, &back).await;
        assert_eq!(end, format!("{ERROR_PAGE}{error}"), "{state:?}");
    }
    let back = world.back(&browser, ADA_SUB).await;
    world.gateway.clock().advance(Duration::from_mins(10));
    let end = world.land(&browser, &back).await;
    assert_eq!(end, format!("{ERROR_PAGE}state_mismatch"));
    assert!(browser.who(&world.gateway).await.is_null());
    assert_eq!((world.asked("token").await, world.count("users").await), (0, 0));
}

/// OAUTH-01: what was used is used up, also by an answer that came to nothing.
#[tokio::test]
async fn oauth_01_a_state_works_once() {
    let world = World::new().await;
    let browser = Browser::default();
    let back = world.back(&browser, ADA_SUB).await;
    assert_eq!(world.land(&browser, &back).await, "/home");
    assert_eq!(world.land(&browser, &back).await, format!("{ERROR_PAGE}state_mismatch"));
    assert_eq!((world.asked("token").await, world.count("user_sessions").await), (1, 1));

    let eve = Browser::default();
    let back = eve.deny(&world.start(&eve).await, EVE_SUB).await;
    assert_eq!(
        location(&eve.land(&world.gateway, &back).await).split('&').next(),
        Some("/sorry?error=access_denied")
    );
    assert_eq!(world.land(&eve, &back).await, format!("{ERROR_PAGE}state_mismatch"));
}

/// OAUTH-01, at the same moment: the provider sees the code once.
#[tokio::test]
async fn of_many_who_come_back_with_one_answer_at_once_one_gets_in() {
    let world = World::new().await;
    let browser = Browser::default();
    let back = world.back(&browser, ADA_SUB).await;
    let ends = join_all((0..20).map(|_| world.land(&browser, &back))).await;
    let inside = ends.iter().filter(|end| *end == "/home").count();
    assert_eq!(inside, 1, "{ends:?}");
    assert_eq!((world.asked("token").await, world.count("user_sessions").await), (1, 1));
}

/// COOKIE-11. Of tabs that start at the same moment each gets a cookie, and the later ones overwrite the earlier.
#[tokio::test]
async fn cookie_11_two_hundred_starts_at_once_leave_a_few_cookies_and_signing_in_works() {
    let world = World::new().await;
    let browser = Browser::default();
    join_all((0..200).map(|_| world.start(&browser))).await;
    let names: BTreeSet<_> = browser.cookie_names(&world.gateway).into_iter().collect();
    assert!((1..=8).contains(&names.len()), "{names:?}");
    let bytes: usize = names
        .iter()
        .map(|name| name.len() + browser.cookie(&world.gateway, name).unwrap().len() + 3)
        .sum();
    assert!(bytes < 1300, "{bytes} bytes of cookies");
    let back = world.back(&browser, ADA_SUB).await;
    assert_eq!(world.land(&browser, &back).await, "/home");
    assert_eq!(browser.who(&world.gateway).await["user"]["email"], ADA);
}

/// A good signature is not enough: it must be of this kind of cookie.
#[tokio::test]
async fn no_other_cookie_of_ours_stands_in_for_the_flows_nor_the_flows_for_another() {
    let world = World::new().await;
    let gateway = &world.gateway;
    let signed_in = gateway.signed_in("bob@example.com").await;
    let (_, session) = signed_in.cookie.split_once('=').unwrap();
    let stranger = Browser::default();
    let body = json!({ "name": "Eve", "email": "eve@example.com", "password": PASSWORD });
    stranger.post(gateway, "/api/auth/sign-up/email", &body).await;
    let mark = stranger.cookie(gateway, "__Host-vestibule.sign_up").expect("a mark");
    for other in [session, &mark] {
        let browser = Browser::default();
        for slot in ["__Host-vestibule.state", "__Host-vestibule.state_1"] {
            browser.plant(gateway, slot, other);
        }
        let back = world.back(&browser, ADA_SUB).await;
        let given: Vec<_> = browser.cookie_names(gateway);
        let given = given.iter().filter_map(|name| browser.cookie(gateway, name));
        assert!(given.into_iter().any(|value| value != other), "it is a browser's name");
        // Whoever has that other cookie only is not the browser of the flow.
        let elsewhere = Browser::default();
        elsewhere.plant(gateway, "__Host-vestibule.state", other);
        assert_eq!(world.land(&elsewhere, &back).await, "/sorry?error=state_mismatch");
    }

    let browser = Browser::default();
    world.start(&browser).await;
    let name = browser.cookie_names(gateway).pop().unwrap();
    let state = browser.cookie(gateway, &name).unwrap();
    browser.plant(gateway, gateway.session_cookie(), &state);
    assert!(browser.who(gateway).await.is_null());
    assert_eq!(browser.get(gateway, "/api/x").await.status(), 401);
}

#[tokio::test]
async fn the_upstream_sees_neither_the_flows_cookie_nor_anything_of_the_callback() {
    let world = World::new().await;
    let gateway = &world.gateway;
    let browser = Browser::default();
    browser.plant(gateway, "theme", "dark");
    let back = world.back(&browser, ADA_SUB).await;
    for path in ["/public/x", "/optional/x"] {
        assert_eq!(browser.get(gateway, path).await.status(), 200);
        let seen = gateway.upstream().last();
        assert_eq!(seen.head.all("cookie"), ["theme=dark"], "{path}");
    }
    assert_eq!(world.land(&browser, &back).await, "/home");
    assert_eq!(gateway.upstream().requests().len(), 2);
}

/// OAUTH-12: 200 people are under way at once, and each session is that of who began the flow.
#[tokio::test]
async fn oauth_12_two_hundred_people_who_sign_in_at_once_are_each_themselves() {
    let world = World::new().await;
    let world = &world;
    let name = |n: usize| (format!("{}", 2000 + n), format!("person{n}@example.com"));
    for n in 0..200 {
        let (sub, email) = name(n);
        world.provider.admit(person(&sub, &email)).await;
    }
    let under_way = (0..200).map(async |n| {
        let (sub, email) = name(n);
        let browser = Browser::default();
        let back = world.back(&browser, &sub).await;
        (email, browser, back)
    });
    let under_way = join_all(under_way).await;
    // As many at a moment as the usual gateway's four connections serve in time on a busy machine.
    for some in under_way.chunks(25) {
        join_all(some.iter().map(async |(email, browser, back)| {
            assert_eq!(world.land(browser, back).await, "/home", "{email}");
            let who = browser.who(&world.gateway).await;
            assert_eq!(who["user"]["email"], email.as_str());
        }))
        .await;
    }
    assert_eq!(
        (world.count("users").await, world.count("user_sessions").await),
        (200, 200)
    );
}

/// Who is signed in already becomes somebody else only by a flow of their own.
#[tokio::test]
async fn a_callback_of_somebody_else_changes_nothing_for_who_is_signed_in() {
    let world = World::new().await;
    let (ada, eve) = (Browser::default(), Browser::default());
    let own = world.back(&ada, ADA_SUB).await;
    world.land(&ada, &own).await;
    let planted = world.back(&eve, EVE_SUB).await;
    assert_eq!(world.land(&ada, &planted).await, "/sorry?error=state_mismatch");
    assert_eq!(ada.who(&world.gateway).await["user"]["email"], ADA);
    assert_eq!(world.count("users").await, 1);
}

/// A flow row that somebody wrote into the table, or copied to another state, opens for nobody.
#[tokio::test]
async fn what_is_remembered_of_a_flow_does_not_open_for_another_state() {
    let world = World::new().await;
    let (ada, eve) = (Browser::default(), Browser::default());
    let back = world.back(&ada, ADA_SUB).await;
    world.start(&eve).await;
    let swap = "UPDATE auth.oauth_flows AS a SET payload = b.payload FROM auth.oauth_flows AS b
                WHERE a.state_hash <> b.state_hash";
    world.gateway.db().run(swap).await;
    let end = world.land(&ada, &back).await;
    assert_eq!(end, format!("{ERROR_PAGE}state_mismatch"));
    assert!(ada.who(&world.gateway).await.is_null());
}
