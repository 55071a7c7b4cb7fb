//! Numbers and names as a reader sees them: the same value always gives the same text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Text made safe for HTML, both between tags and inside quoted attributes.
pub fn escape(text: &str) -> String {
    let special = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&quot;"), ("'", "&#39;")];
    special.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Bytes in base64 with padding (RFC 4648, section 4).
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A share as a whole percentage.
pub fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.0}%", share * 100.0) } else { "not finite".to_owned() }
}

/// A difference of shares in percentage points, without a sign.
pub fn points(difference: f64) -> String {
    format!("{:.1} points", difference.abs() * 100.0)
}

/// A signed difference of shares in percentage points.
pub fn signed_points(difference: f64) -> String {
    let tenths = (difference * 1000.0).round() / 10.0;
    if !tenths.is_finite() {
        "not finite".to_owned()
    } else if tenths > 0.0 {
        format!("+{tenths:.1}")
    } else if tenths < 0.0 {
        format!("\u{2212}{:.1}", -tenths)
    } else {
        "\u{b1}0.0".to_owned()
    }
}

/// A ratio around one.
pub fn ratio(value: f64) -> String {
    if value.is_finite() { format!("{value:.2}\u{d7}") } else { "not finite".to_owned() }
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
    const MIB: f64 = 1024.0 * 1024.0;
    let mib = bytes as f64 / MIB;
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.2} GiB", mib / 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_always_shown() {
        assert_eq!(
            [0.021, -0.034, 0.0001, -0.0001].map(signed_points),
            ["+2.1", "\u{2212}3.4", "\u{b1}0.0", "\u{b1}0.0"]
        );
    }

    #[test]
    fn durations_and_memory_change_unit_with_size() {
        assert_eq!([12.34, 75.0, 3725.0].map(duration), ["12.3 s", "1 min 15 s", "1 h 02 min"]);
        assert_eq!([734_003_200, 3 << 30].map(memory), ["700 MiB", "3.00 GiB"]);
    }
}
