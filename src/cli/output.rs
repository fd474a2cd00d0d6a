//! What the operator's commands print: tables for people, JSON for scripts.
//!
//! Names, addresses and user agents were chosen by strangers, and a terminal obeys what it is shown. So nothing of
//! theirs reaches one as it is: control characters, and those that reorder or hide text, are written as `\u{1b}` in
//! tables and as `\u001b` in JSON, where it means the same (threat LOG-01). Every table and line is made here.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write as _},
};

use anyhow::Context;
use comfy_table::{ColumnConstraint, ContentArrangement, presets::NOTHING};
use dialoguer::console::Term;
use serde::Serialize;

use crate::clock::Timestamp;

/// What stands where there is nothing to say.
const NOTHING_THERE: &str = "-";

/// Bold, and back.
const BOLD: (&str, &str) = ("\u{1b}[1m", "\u{1b}[0m");

/// Between columns.
const GAP: u16 = 2;

/// A column that may be wrapped can still be read at this width.
const READABLE: u16 = 16;

/// What tables show of a text that may have any length; JSON has it whole.
const GLANCE: usize = 60;

/// `text` as a terminal may be shown it.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if is_unsafe(c) => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Whether a terminal may do something else with it than show it where it stands: control characters (C0, C1), and
/// Unicode's format characters, which reorder text, join it or can't be seen; separators of lines; tags.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{8e2}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}')
}

/// `2026-11-21 07:15:08`; columns say that it is UTC.
pub(super) fn time(at: Timestamp) -> String {
    let text = at.rfc3339();
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

/// `2026-11-21 07:15`, where seconds tell nothing.
pub(super) fn minute(at: Timestamp) -> String {
    let mut text = time(at);
    text.truncate(16);
    text
}

/// The beginning of a text that may have any length.
pub(super) fn glance(text: &str) -> String {
    match text.char_indices().nth(GLANCE) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// What is there, or a sign that nothing is.
pub(super) fn or_nothing(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NOTHING_THERE.to_owned(), |value| value.to_string())
}

/// Whether a column may be wrapped where the terminal is too narrow for all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Width {
    /// An id, a time: of no use in pieces.
    Whole,
    Wraps,
}

/// Rows below a heading.
pub(super) struct Table {
    columns: &'static [(&'static str, Width)],
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) const fn new(columns: &'static [(&'static str, Width)]) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row, a cell for each column. Cells may hold what strangers wrote.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter();
        self.rows.push(cells.map(|cell| cell_of(&cell)).collect());
    }

    /// As wide as it needs to be; on a terminal, no wider than that.
    pub(super) fn render(&self) -> String {
        let terminal = Term::stdout();
        let size = terminal.is_term().then(|| terminal.size_checked()).flatten();
        let in_colour = terminal.is_term() && terminal.features().colors_supported();
        self.render_for(size.map(|(_, columns)| columns), in_colour)
    }

    fn render_for(&self, width: Option<u16>, in_colour: bool) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING);
        table.set_header(self.columns.iter().map(|(name, _)| name.to_uppercase()));
        table.add_rows(&self.rows);
        if let Some(width) = width {
            if self.least_width(&table.column_max_content_widths()) > width {
                return self.records();
            }
            table.set_width(width);
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        for (column, (_, width)) in table.column_iter_mut().zip(self.columns) {
            column.set_padding((0, GAP));
            if *width == Width::Whole {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        let mut text = String::new();
        for (number, line) in table.lines().enumerate() {
            let line = line.trim_end();
            let (on, off) = if number == 0 && in_colour { BOLD } else { ("", "") };
            let _ = writeln!(text, "{on}{line}{off}");
        }
        text
    }

    /// How narrow it can be, given what its columns hold.
    fn least_width(&self, contents: &[u16]) -> u16 {
        let columns = self.columns.iter().zip(contents);
        let least = columns.map(|((_, width), content)| match width {
            Width::Whole => content.saturating_add(GAP),
            Width::Wraps => READABLE.min(*content).saturating_add(GAP),
        });
        least.fold(0, u16::saturating_add)
    }

    /// Where columns don't fit beside each other: a block for each row.
    fn records(&self) -> String {
        let names = || self.columns.iter().map(|(name, _)| *name);
        let longest = names().map(str::len).max().unwrap_or(0);
        let records = self.rows.iter().map(|row| {
            let lines = names()
                .zip(row)
                .map(|(name, cell)| format!("{name:<longest$}  {cell}\n"));
            lines.collect::<String>()
        });
        records.collect::<Vec<_>>().join("\n")
    }
}

fn cell_of(text: &str) -> String {
    if text.is_empty() {
        NOTHING_THERE.to_owned()
    } else {
        plain(text).into_owned()
    }
}

/// What is known of one thing: a line for each fact. Values may hold what strangers wrote.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let longest = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in facts {
        let _ = writeln!(text, "{name:<longest$}  {}", cell_of(value));
    }
    text
}

/// One document. Characters that a terminal would obey are written by their numbers: JSON means the same by them.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(value).context("could not write JSON")?;
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || !is_unsafe(c) {
            safe.push(c);
            continue;
        }
        // Beyond strings nothing of the kind is in a document.
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(safe, "\\u{unit:04x}");
        }
    }
    safe.push('\n');
    Ok(safe)
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no failure.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("could not write to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_shown_as_it_is() {
        for (text, shown) in [
            ("Ada Lovelace", "Ada Lovelace"),
            ("Zoë 🦀 雪", "Zoë 🦀 雪"),
            ("\u{1b}[2J\u{1b}]0;x\u{7}", "\\u{1b}[2J\\u{1b}]0;x\\u{7}"),
            ("a\r\nb\tc\0", "a\\r\\nb\\tc\\u{0}"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("\u{202e}nimda\u{2066}", "\\u{202e}nimda\\u{2066}"),
            ("a\u{200b}d\u{2028}a\u{e0041}", "a\\u{200b}d\\u{2028}a\\u{e0041}"),
        ] {
            assert_eq!(plain(text), shown);
            let document = json(&text).unwrap();
            assert!(!document.trim_end().contains(is_unsafe), "{document:?}");
            assert_eq!(serde_json::from_str::<String>(&document).unwrap(), text);
        }
    }

    #[test]
    fn a_table_wraps_what_may_be_wrapped() {
        let mut table = Table::new(&[("id", Width::Whole), ("user agent", Width::Wraps)]);
        table.row(["0199".to_owned(), "one two three four".to_owned()]);
        table.row(["0200".to_owned(), String::new()]);
        assert_eq!(
            table.render_for(None, false),
            "ID    USER AGENT\n0199  one two three four\n0200  -\n"
        );
        assert_eq!(
            table.render_for(Some(24), false),
            "ID    USER AGENT\n0199  one two three\n      four\n0200  -\n"
        );
        // Too narrow for an id and something readable beside it.
        assert_eq!(
            table.render_for(Some(20), false),
            "id          0199\nuser agent  one two three four\n\nid          0200\nuser agent  -\n"
        );
        assert!(
            table
                .render_for(None, true)
                .starts_with("\u{1b}[1mID    USER AGENT\u{1b}[0m\n")
        );
    }

    #[test]
    fn wide_characters_keep_their_columns() {
        let mut table = Table::new(&[("name", Width::Wraps), ("id", Width::Whole)]);
        table.row(["雪".to_owned(), "1".to_owned()]);
        table.row(["Ada".to_owned(), "2".to_owned()]);
        assert_eq!(table.render_for(None, false), "NAME  ID\n雪    1\nAda   2\n");
    }

    #[test]
    fn a_long_text_is_shown_by_its_beginning() {
        assert_eq!(glance(&"é".repeat(60)), "é".repeat(60));
        assert_eq!(glance(&"é".repeat(61)), format!("{}…", "é".repeat(60)));
    }

    #[test]
    fn facts_stand_below_each_other() {
        let shown = facts(&[
            ("id", "1".to_owned()),
            ("e-mail", String::new()),
            ("name", "a\nb".to_owned()),
        ]);
        assert_eq!(shown, "id      1\ne-mail  -\nname    a\\nb\n");
    }
}
