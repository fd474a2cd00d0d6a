//! `strip_prefix` and `add_prefix`: how the path that leaves differs from the one that was matched.

use crate::config::{
    PathPattern, Segment,
    found::Wrong,
    kind::{Kind, parsed},
    path_pattern::normal_literal,
    section::Section,
};

/// What is taken off the front of a path, and what comes there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rewrite {
    /// So many segments. The route's pattern begins with them, so every path that it matches does.
    pub strip: usize,
    /// Empty, or `/v2`: in normal form, without a slash at its end.
    pub add: String,
}

impl Rewrite {
    pub(super) fn read(s: &mut Section<'_>, path: Option<&PathPattern>) -> Option<Self> {
        let strip = s
            .key_of_many(
                "strip_prefix",
                "What is taken off the front of the path before it leaves; `path` begins with it.",
                prefix,
            )
            .optional("/api");
        let add = s
            .key_of_many(
                "add_prefix",
                "What is put in front of the path, after `strip_prefix`. The query stays as it is.",
                prefix,
            )
            .optional("/v2");
        let strip = match strip? {
            None => 0,
            Some(prefix) => {
                let segments: Vec<&str> = prefix.split('/').skip(1).collect();
                if let Some(path) = path
                    && !begins_with(path, &segments)
                {
                    s.report(
                        s.wrong("strip_prefix", "not what `path` begins with")
                            .found(format!("{prefix:?}"))
                            .allowed(format!("the plain segments that {:?} begins with", path.text)),
                    );
                }
                segments.len()
            }
        };
        Some(Self {
            strip,
            add: add?.unwrap_or_default(),
        })
    }

    pub const fn is_nothing(&self) -> bool {
        self.strip == 0 && self.add.is_empty()
    }
}

/// Segments are compared decoded, as in matching.
fn begins_with(pattern: &PathPattern, prefix: &[&str]) -> bool {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    prefix.len() <= pattern.segments.len()
        && prefix
            .iter()
            .zip(&pattern.segments)
            .all(|(prefix, segment)| match segment {
                Segment::Literal(text) => decoded(text) == decoded(prefix),
                Segment::Parameter(_) => false,
            })
}

fn prefix() -> Kind<String> {
    parsed("a path such as \"/api\", without a slash at its end", |text| {
        if text.contains(['*', '{', '}', '?', '#']) {
            return Err("taken literally: it has no placeholders".into());
        }
        normal_literal(text)?;
        if let Some(bare) = text.strip_suffix('/') {
            return Err(if bare.is_empty() {
                "the root is no prefix: leave it out".into()
            } else {
                Wrong::but("a slash at its end", bare)
            });
        }
        Ok(text.to_owned())
    })
}
