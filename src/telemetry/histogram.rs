//! Counts how long things take, in buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::metrics::Text;

/// The upper bounds, in microseconds: fine enough to tell a key from the cache (50 µs) from one of the key store (5 ms).
const BOUNDS: [u64; 18] = [
    25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 1_500_000,
    3_000_000, 5_000_000, 10_000_000,
];

/// The bounds that the archived server has, of its one histogram. All of them are bounds of ours.
const INHERITED: [u64; 10] =
    [10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 1_500_000, 3_000_000, 5_000_000, 10_000_000];

/// How long something took, each time. Counting takes two atomics and no lock.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Histogram {
    /// Counts one time.
    pub fn record(&self, took: Duration) {
        let bucket = BOUNDS.iter().position(|bound| took <= Duration::from_micros(*bound)).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Writes it as part of the family `name`, with a label. The label's value must need no escaping.
    pub fn write(&self, text: &mut Text, name: &str, label: &str, label_value: &str) {
        let label = format!("{label}=\"{label_value}\"");
        self.figures().write(text, name, &label, &BOUNDS);
    }

    fn figures(&self) -> Figures {
        let buckets = self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        Figures { buckets, nanoseconds: self.nanoseconds.load(Ordering::Relaxed) }
    }
}

/// Writes all of them as one, without labels and with the archived server's bounds.
pub fn write_inherited<'a>(histograms: impl IntoIterator<Item = &'a Histogram>, text: &mut Text, name: &str) {
    let all = histograms.into_iter().map(Histogram::figures).fold(Figures::default(), Figures::plus);
    all.write(text, name, "", &INHERITED);
}

/// What a histogram has counted at one moment.
#[derive(Default)]
struct Figures {
    buckets: [u64; BOUNDS.len() + 1],
    nanoseconds: u64,
}

impl Figures {
    fn plus(mut self, other: Self) -> Self {
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += more;
        }
        self.nanoseconds = self.nanoseconds.saturating_add(other.nanoseconds);
        self
    }

    /// Writes the buckets with these bounds, which are some of ours; `labels` are what a sample has beside its bound.
    fn write(&self, text: &mut Text, name: &str, labels: &str, bounds: &[u64]) {
        let (comma, braced) = if labels.is_empty() { ("", String::new()) } else { (",", format!("{{{labels}}}")) };
        let mut sum = 0;
        for (count, bound) in self.buckets.iter().zip(&BOUNDS) {
            sum += count;
            if bounds.contains(bound) {
                let seconds = Duration::from_micros(*bound).as_secs_f64();
                text.sample(&format!("{name}_bucket{{{labels}{comma}le=\"{seconds}\"}}"), sum);
            }
        }
        sum += self.buckets[BOUNDS.len()];
        text.sample(&format!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}}"), sum);
        text.sample(&format!("{name}_sum{braced}"), self.nanoseconds as f64 / 1e9);
        text.sample(&format!("{name}_count{braced}"), sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_key_and_one_of_the_key_store_are_in_different_buckets() {
        let histogram = Histogram::default();
        for microseconds in [50, 51, 5_000, 60_000_000] {
            histogram.record(Duration::from_micros(microseconds));
        }
        let mut text = Text::default();
        text.family("t", "histogram", "How long it took.");
        histogram.write(&mut text, "t", "operation", "/v1/key");
        let text = text.finish();
        for line in [
            "t_bucket{operation=\"/v1/key\",le=\"0.000025\"} 0",
            "t_bucket{operation=\"/v1/key\",le=\"0.00005\"} 1",
            "t_bucket{operation=\"/v1/key\",le=\"0.0025\"} 2",
            "t_bucket{operation=\"/v1/key\",le=\"0.005\"} 3",
            "t_bucket{operation=\"/v1/key\",le=\"10\"} 3",
            "t_bucket{operation=\"/v1/key\",le=\"+Inf\"} 4",
            "t_sum{operation=\"/v1/key\"} 60.005101",
            "t_count{operation=\"/v1/key\"} 4",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} in\n{text}");
        }
    }

    #[test]
    fn the_archived_servers_histogram_is_the_sum_of_all() {
        assert!(INHERITED.iter().all(|bound| BOUNDS.contains(bound)));
        let (one, other) = (Histogram::default(), Histogram::default());
        one.record(Duration::from_millis(9));
        one.record(Duration::from_millis(11));
        other.record(Duration::from_secs(60));
        let mut text = Text::default();
        text.family("t", "histogram", "How long it took.");
        write_inherited([&one, &other], &mut text, "t");
        let text = text.finish();
        assert_eq!(text.matches("_bucket").count(), INHERITED.len() + 1, "{text}");
        for line in [
            "t_bucket{le=\"0.01\"} 1",
            "t_bucket{le=\"0.05\"} 2",
            "t_bucket{le=\"10\"} 2",
            "t_bucket{le=\"+Inf\"} 3",
            "t_sum 60.02",
            "t_count 3",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} in\n{text}");
        }
    }
}
