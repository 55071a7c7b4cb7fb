//! How fast work goes, and lines that fit.

use std::time::Instant;

use console::{measure_text_width, truncate_str};

/// Columns of a line where there is no terminal to say.
pub const COLUMNS: usize = 80;

/// Least seconds that a rate is measured over: less says nothing.
const LEAST: f64 = 1.0;

/// The rate of work. What was there before it began, and the first of it, which warms up, do not count.
#[derive(Debug, Default)]
pub struct Pace {
    first: Option<(u64, Instant)>,
}

impl Pace {
    /// Things per second and seconds left, once enough is done to know.
    pub fn at(&mut self, done: u64, of: u64) -> Option<(f64, f64)> {
        self.at_time(done, of, Instant::now())
    }

    fn at_time(&mut self, done: u64, of: u64, now: Instant) -> Option<(f64, f64)> {
        let (before, since) = *self.first.get_or_insert((done, now));
        let seconds = now.duration_since(since).as_secs_f64();
        if done <= before || seconds < LEAST {
            return None;
        }
        let rate = (done - before) as f64 / seconds;
        Some((rate, of.saturating_sub(done) as f64 / rate))
    }
}

/// A rate of things as people say it: `12 images/s`, `1.5 images/s`, `8.2 s/image`.
pub fn rate(per_second: f64, things: &str) -> String {
    match per_second {
        rate if rate >= 9.95 => format!("{rate:.0} {things}/s"),
        rate if rate >= 0.95 => format!("{rate:.1} {things}/s"),
        rate => format!("{:.1} s/{}", 1.0 / rate, things.strip_suffix('s').unwrap_or(things)),
    }
}

/// Seconds in few letters: `42s`, `3m05s`, `2h07m`.
pub fn brief(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
    }
}

/// Parts of a line, each with its rank: the least important go first where columns are few.
pub fn fitting(parts: &[(u8, String)], columns: usize) -> String {
    let mut least = parts.iter().map(|(rank, _)| *rank).max().unwrap_or(0);
    loop {
        let shown: Vec<&str> =
            parts.iter().filter(|(rank, _)| *rank <= least).map(|(_, part)| part.as_str()).collect();
        let line = shown.join(" ");
        if measure_text_width(&line) <= columns {
            return line;
        }
        if least == 0 {
            return truncate_str(&line, columns, "").into_owned();
        }
        least -= 1;
    }
}

/// A line with a bar in front of it, if there is room for one.
pub fn with_bar(line: &str, fraction: f64, columns: usize) -> String {
    const LEAST_CELLS: usize = 8;
    const MOST_CELLS: usize = 40;
    let room = columns.saturating_sub(measure_text_width(line) + 1).min(MOST_CELLS);
    if room < LEAST_CELLS {
        return line.to_owned();
    }
    let full = (fraction.clamp(0.0, 1.0) * room as f64) as usize;
    format!("{}{} {line}", "█".repeat(full), "░".repeat(room - full))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_rate_is_said_before_one_is_known() {
        let (mut pace, began) = (Pace::default(), Instant::now());
        let after = |seconds: f64| began + Duration::from_secs_f64(seconds);
        // Forty were there before, and the first took long.
        assert_eq!(pace.at_time(41, 100, after(30.0)), None);
        assert_eq!(pace.at_time(42, 100, after(30.001)), None);
        let (rate, left) = pace.at_time(51, 100, after(35.0)).unwrap();
        assert_eq!((rate, left), (2.0, 24.5));
    }

    #[test]
    fn rates_are_never_zero_per_second() {
        let said = [32.4, 1.49, 0.01].map(|per_second| rate(per_second, "images"));
        assert_eq!(said, ["32 images/s", "1.5 images/s", "100.0 s/image"]);
        assert_eq!([41.6, 185.0, 7620.0].map(brief), ["42s", "3m05s", "2h07m"]);
    }

    #[test]
    fn lines_fit_their_columns_and_lose_the_least_first() {
        let parts = [
            (0, "generating 12/96 images,".to_owned()),
            (2, "1.5 images/s,".into()),
            (1, "2m05s left".into()),
        ];
        assert_eq!(fitting(&parts, 80), "generating 12/96 images, 1.5 images/s, 2m05s left");
        assert_eq!(fitting(&parts, 40), "generating 12/96 images, 2m05s left");
        assert_eq!(fitting(&parts, 10), "generating");
        for parts in [&parts[..], &[(0, "fetching 1 MiB of 2 MiB, 模型/権重.safetensors".to_owned())]] {
            for columns in 0..120 {
                let line = fitting(parts, columns);
                assert!(measure_text_width(&with_bar(&line, 0.5, columns)) <= columns, "{columns}");
            }
        }
    }
}
