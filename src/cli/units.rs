//! Formats amounts for people: bytes, durations, counts.

use std::time::Duration;

/// A span of time: `350µs`, `1.5ms`, `12.0s`, `3m 5s`, `2d 4h`.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match time.as_micros() {
        micros @ 0..1_000 => format!("{micros}µs"),
        micros @ 1_000..1_000_000 => format!("{:.1}ms", micros as f64 / 1e3),
        micros @ 1_000_000..60_000_000 => format!("{:.1}s", micros as f64 / 1e6),
        _ if hours == 0 => format!("{minutes}m {}s", seconds % 60),
        _ if days == 0 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// An amount of memory: `512 B`, `1.5 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut amount, mut unit) = (bytes as f64, 0);
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_at_most_two_parts() {
        for (micros, text) in [
            (0, "0µs"),
            (999, "999µs"),
            (1_500, "1.5ms"),
            (12_000_000, "12.0s"),
            (185_000_000, "3m 5s"),
            (7_260_000_000, "2h 1m"),
            (187_200_000_000, "2d 4h"),
        ] {
            assert_eq!(span(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn bytes_have_the_largest_unit_that_fits() {
        for (amount, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")] {
            assert_eq!(bytes(amount), text);
        }
    }
}
