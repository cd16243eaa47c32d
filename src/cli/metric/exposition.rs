//! Parses the part of the Prometheus text format that key servers write.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

/// The samples of one scrape. Samples of one name are added up over their labels; of histograms the buckets are kept.
#[derive(Debug, Default)]
pub(super) struct Samples {
    values: BTreeMap<String, f64>,
    /// Upper bounds in nanoseconds and cumulative counts, in order.
    response_time: Vec<(u64, u64)>,
}

/// The metrics in the JSON lines, in their order.
const SUMMARY: [(&str, bool); 14] = [
    ("kes_http_request_success", true),
    ("kes_http_request_error", true),
    ("kes_http_request_failure", true),
    ("kes_http_request_active", true),
    ("kes_log_audit_events", true),
    ("kes_log_error_events", true),
    (RESPONSE_TIME, false),
    ("kes_system_up_time", true),
    ("kes_system_num_cpu", true),
    ("kes_system_num_cpu_used", true),
    ("kes_system_num_threads", true),
    ("kes_system_mem_heap_used", true),
    ("kes_system_mem_heap_objects", true),
    ("kes_system_mem_stack_used", true),
];

const RESPONSE_TIME: &str = "kes_http_response_time";

impl Samples {
    /// Parses all lines that it can, and skips the rest.
    pub(super) fn parse(text: &str) -> Self {
        let mut samples = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            match bucket(name, labels) {
                Some(bound) => samples.response_time.push((bound, whole(value))),
                None => *samples.values.entry(name.to_owned()).or_default() += value,
            }
        }
        samples.response_time.sort_unstable();
        samples
    }

    /// The value of a name; 0 when there is none.
    pub(super) fn get(&self, name: &str) -> f64 {
        self.values.get(name).copied().unwrap_or(0.0)
    }

    /// The value of a metric that not every server has.
    pub(super) fn find(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    /// The number of answers to requests.
    pub(super) fn answers(&self) -> f64 {
        self.get(&format!("{RESPONSE_TIME}_count"))
    }

    /// The upper bounds of response times, in nanoseconds, and how many answers took no longer.
    pub(super) fn response_time(&self) -> &[(u64, u64)] {
        &self.response_time
    }

    /// The summary for scripts.
    pub(super) fn summary(&self) -> Value {
        let entries = SUMMARY.into_iter().map(|(name, is_number)| {
            let value = if is_number { number(self.get(name)) } else { self.buckets() };
            (name.to_owned(), value)
        });
        Value::Object(Map::from_iter(entries))
    }

    fn buckets(&self) -> Value {
        Value::Object(self.response_time.iter().map(|(bound, count)| (bound.to_string(), (*count).into())).collect())
    }
}

/// The upper bound of a bucket of the response times, in nanoseconds.
fn bucket(name: &str, labels: &str) -> Option<u64> {
    if name.strip_suffix("_bucket") != Some(RESPONSE_TIME) {
        return None;
    }
    let bound = labels.split("le=\"").nth(1)?.split('"').next()?.parse::<f64>().ok()?;
    bound.is_finite().then(|| whole((bound * 1e9).round()))
}

fn whole(value: f64) -> u64 {
    // The conversion saturates.
    value as u64
}

fn number(value: f64) -> Value {
    match value.fract() == 0.0 && (0.0..9e15).contains(&value) {
        true => whole(value).into(),
        false => Number::from_f64(value).map_or(Value::Null, Value::Number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_added_up_and_buckets_kept() {
        let samples = Samples::parse(
            "# HELP x y\nkes_http_request_success{code=\"200\"} 3\nkes_http_request_success{code=\"201\"} 4\n\
             kes_http_response_time_bucket{le=\"0.01\"} 5\nkes_http_response_time_bucket{le=\"+Inf\"} 7\n\
             kes_http_response_time_count 7\nkes_system_up_time 1.5\nnonsense\nx NaNa\n",
        );
        assert_eq!(samples.get("kes_http_request_success"), 7.0);
        assert_eq!((samples.answers(), samples.response_time()), (7.0, &[(10_000_000, 5)][..]));
        let summary = samples.summary();
        assert_eq!(summary["kes_http_response_time"]["10000000"], 5);
        assert_eq!(summary["kes_system_up_time"], 1.5);
        assert_eq!(summary["kes_system_num_cpu"], 0);
    }
}
