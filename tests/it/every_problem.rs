//! Every refusal that a client may meet, word for word: a leak or a changed code shows in review.

use std::fmt::Write;

use vestibule::problem::{Code, Form, Problem};

use crate::harness::golden;

#[test]
fn every_problem_is_written_as_the_golden_list_says() {
    let mut list = String::new();
    for &code in Code::ALL {
        let response = Problem::new(code).into_response(Form::Json, "REQUEST-ID");
        let body = std::str::from_utf8(response.body()).unwrap();
        writeln!(list, "{} {body}", response.status().as_u16()).unwrap();
    }
    golden::same("problems.txt", &list);
}

#[test]
fn a_page_says_the_same_as_the_json() {
    for &code in Code::ALL {
        let page = Problem::new(code).into_response(Form::Html, "REQUEST-ID");
        let body = std::str::from_utf8(page.body()).unwrap();
        assert_eq!(page.status(), code.status());
        assert!(body.contains("REQUEST-ID"), "{code:?} does not say its request id");
        assert!(!body.contains("<script"), "{code:?} brings a script");
        assert_eq!(page.headers()["cache-control"], "no-store", "{code:?}");
    }
}
