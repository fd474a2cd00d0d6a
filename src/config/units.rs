//! Durations and sizes: numbers that are nothing without their unit.

use std::{ops::RangeInclusive, time::Duration};

use bytesize::ByteSize;
use jiff::{
    SpanRelativeTo,
    fmt::friendly::{SpanParser, SpanPrinter},
};
use serde_json::json;

use super::{
    found::Wrong,
    kind::{Kind, parsed, text_schema},
    source::Value,
};

/// No wait, life or age is longer: sums with the clock can't overflow.
const MAX_DURATION: Duration = Duration::from_hours(24 * 3650);

const A_DURATION: &str = "a duration such as \"250ms\", \"15m\" or \"7d\"";

/// As configuration values are written, for arguments of commands: `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    read_duration(text).map_err(|wrong| match wrong.nearest {
        Some(nearest) => format!("{}: did you mean {nearest}?", wrong.problem),
        None => format!("{}: write {A_DURATION}", wrong.problem),
    })
}

/// As people write it: `10m`, not `600s`.
pub fn write_duration(duration: Duration) -> String {
    static PRINTER: SpanPrinter = SpanPrinter::new();
    PRINTER.unsigned_duration_to_string(&duration)
}

pub(super) fn read_duration(text: &str) -> Result<Duration, Wrong> {
    static PARSER: SpanParser = SpanParser::new();
    let unitless = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if unitless {
        return Err(Wrong::but("a duration without a unit", format!("{text}s")));
    }
    let span = PARSER.parse_span(text).map_err(|_| "not a duration")?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| "months and years have no fixed length")?;
    let duration = Duration::try_from(duration).map_err(|_| "a duration below zero")?;
    if duration > MAX_DURATION {
        return Err("longer than ten years (3650d)".into());
    }
    Ok(duration)
}

/// A span of time; a day has 24 hours.
pub(super) fn duration() -> Kind<Duration> {
    let mut kind = parsed(A_DURATION, read_duration);
    kind.schema = text_schema(&json!({ "type": "string", "pattern": "^[0-9]", "examples": ["250ms", "15m", "7d"] }));
    number_means(kind, "s")
}

/// A span of time that passes.
pub(super) fn nonzero_duration() -> Kind<Duration> {
    let kind = duration();
    let allowed = format!("{}, above zero", kind.allowed);
    kind.check(allowed, |duration| {
        if duration.is_zero() {
            return Err("zero is senseless here".into());
        }
        Ok(())
    })
}

/// A number of bytes.
pub(super) fn size(range: RangeInclusive<u64>) -> Kind<u64> {
    let (low, high) = range.into_inner();
    let mut allowed = "a size such as \"512KiB\" or \"100MiB\"".to_owned();
    if low > 0 {
        allowed = format!("{allowed}, from {}", write_size(low));
    }
    allowed = format!("{allowed}, up to {}", write_size(high));
    let mut kind = parsed(allowed, move |text| {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Wrong::but("a size without a unit", format!("{text}B")));
        }
        let size = text.parse::<ByteSize>().map_err(|_| "not a size")?.as_u64();
        if (low..=high).contains(&size) {
            Ok(size)
        } else {
            Err("out of range".into())
        }
    });
    kind.schema = text_schema(&json!({ "type": "string", "pattern": "^[0-9]", "examples": ["512KiB", "100MiB"] }));
    number_means(kind, "B")
}

/// A limit as people write it: they are all round.
pub fn write_size(size: u64) -> String {
    ByteSize(size).to_string().replace(".0 ", " ")
}

/// Guesses the unit in the error for a bare number.
fn number_means<T: 'static>(kind: Kind<T>, unit: &'static str) -> Kind<T> {
    let words = kind.allowed.clone();
    Kind::new(words.clone(), kind.schema.clone(), move |found| {
        match &found.node.value {
            Value::Integer(Some(number)) if *number >= 0 => {
                let meant = format!("{:?}", format!("{number}{unit}"));
                found.report(
                    Wrong::but("a number without a unit", meant),
                    Some(found.shown()),
                    &words,
                );
                None
            }
            _ => kind.read(found),
        }
    })
}
