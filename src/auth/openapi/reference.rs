//! The document as a page.
//!
//! The template shows what the document says and knows nothing of its own, so that the page can't tell another story.

use std::sync::LazyLock;

use minijinja::{Environment, UndefinedBehavior, Value, context, value::Serde};
use utoipa::openapi::OpenApi;

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.add_filter("pretty", |value: Value| pretty(&value));
    #[expect(clippy::expect_used, reason = "the template is compiled in and rendered by a test")]
    environment
        .add_template("reference.html", include_str!("reference.html"))
        .expect("the template parses");
    environment
});

pub(super) fn page(document: &OpenApi) -> String {
    #[expect(clippy::expect_used, reason = "the template is compiled in and rendered by a test")]
    let page = TEMPLATES
        .get_template("reference.html")
        .and_then(|template| template.render(context! { doc => Value::from(Serde(document)) }))
        .expect("the template needs nothing but the document");
    // What the template's own lines leave behind is a third of it.
    let lines = page.lines().map(str::trim_end).filter(|line| !line.is_empty());
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// As JSON is read best.
fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
