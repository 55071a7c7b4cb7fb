//! Numbers and names as a reader sees them: the same value always gives the same text.

const NOT_FINITE: &str = "not finite";

/// A fraction as a whole percentage.
pub fn percent(fraction: f64) -> String {
    if fraction.is_finite() { format!("{:.0}%", fraction * 100.0) } else { NOT_FINITE.to_owned() }
}

/// A fraction in percent, with one decimal.
pub fn tenths(fraction: f64) -> String {
    if fraction.is_finite() { format!("{:.1}%", fraction * 100.0) } else { "\u{2013}".to_owned() }
}

/// A difference of fractions in percentage points, without a sign.
pub fn points(difference: f64) -> String {
    format!("{:.1} points", difference.abs() * 100.0)
}

/// A signed difference of fractions in percentage points.
pub fn signed_points(difference: f64) -> String {
    let tenths = (difference * 1000.0).round() / 10.0;
    match tenths {
        t if !t.is_finite() => NOT_FINITE.to_owned(),
        0.0 => "\u{b1}0.0".to_owned(),
        t => signed(t, 1),
    }
}

/// A ratio around one.
pub fn ratio(value: f64) -> String {
    if value.is_finite() { format!("{value:.2}\u{d7}") } else { NOT_FINITE.to_owned() }
}

/// A number, with a true minus; what rounds to nothing has none.
pub fn plain(value: f64, digits: usize) -> String {
    let text = signed(value, digits);
    text.strip_prefix('+').map(str::to_owned).unwrap_or(text)
}

/// A number with its sign, a true minus; what rounds to nothing has none.
pub fn signed(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", value.abs());
    match (text.bytes().any(|byte| (b'1'..=b'9').contains(&byte)), value < 0.0) {
        (false, _) => text,
        (true, true) => format!("\u{2212}{text}"),
        (true, false) => format!("+{text}"),
    }
}

/// A duration.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "unknown".to_owned();
    }
    match seconds {
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{:.0} min {:02.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
        s => format!("{:.0} h {:02.0} min", (s / 3600.0).floor(), (s % 3600.0 / 60.0).floor()),
    }
}

/// An amount of memory, in powers of 1024.
pub fn memory(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.2} GiB", mib / 1024.0) }
}

/// A count with thin spaces between thousands.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// With a capital in front and a full stop at the end.
pub fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

/// The first so many characters.
pub fn shortened(text: &str, n: usize) -> String {
    match text.char_indices().nth(n) {
        Some((end, _)) => format!("{}\u{2026}", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_always_shown() {
        let points = [0.021, -0.034, 0.0001, -0.0001].map(signed_points);
        assert_eq!(points, ["+2.1", "\u{2212}3.4", "\u{b1}0.0", "\u{b1}0.0"]);
        assert_eq!([0.004, -0.004, -1.25].map(|value| signed(value, 2)), ["0.00", "0.00", "\u{2212}1.25"]);
        assert_eq!(plain(3.5, 1), "3.5");
    }

    #[test]
    fn durations_and_memory_change_unit_with_size() {
        assert_eq!([12.34, 75.0, 3725.0].map(duration), ["12.3 s", "1 min 15 s", "1 h 02 min"]);
        assert_eq!([734_003_200, 3 << 30].map(memory), ["700 MiB", "3.00 GiB"]);
    }

    #[test]
    fn counts_and_sentences_read_well() {
        assert_eq!([7, 1234, 1_234_567].map(count), ["7", "1\u{202f}234", "1\u{202f}234\u{202f}567"]);
        assert_eq!([sentence("no winner"), sentence("why?")], ["No winner.", "Why?"]);
        assert_eq!([shortened("caption", 3), shortened("cap", 3)], ["cap\u{2026}", "cap"]);
    }
}
