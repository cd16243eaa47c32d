//! Counters of requests, and the Prometheus text format.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of HTTP requests. Every field is an atomic: counting takes no lock.
#[derive(Debug)]
pub struct Metrics {
    active: AtomicU64,
    by_code: [AtomicU64; 500],
}

impl Default for Metrics {
    fn default() -> Self {
        Self { active: AtomicU64::new(0), by_code: [const { AtomicU64::new(0) }; 500] }
    }
}

/// A request that is being answered; counts it as active until dropped.
#[derive(Debug)]
pub struct Active<'a>(&'a Metrics);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a request as active.
    pub fn begin(&self) -> Active<'_> {
        self.active.fetch_add(1, Ordering::Relaxed);
        Active(self)
    }

    /// Counts an answer.
    pub fn record(&self, code: u16) {
        let Some(counter) = self.by_code.get(usize::from(code.saturating_sub(100))) else { return };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes the `kes_http_request_*` metrics.
    pub fn write(&self, text: &mut Text) {
        let class = |text: &mut Text, name: &str, help: &str, codes: std::ops::Range<u16>, always: &[u16]| {
            text.family(name, "counter", help);
            for code in codes {
                let count = self.by_code[usize::from(code) - 100].load(Ordering::Relaxed);
                if count > 0 || always.contains(&code) {
                    text.labelled(name, "code", &code, count);
                }
            }
        };
        class(text, "kes_http_request_success", "Requests answered with a 2xx status.", 200..300, &[200]);
        class(text, "kes_http_request_error", "Requests answered with a 4xx status.", 400..500, &[400, 403, 404]);
        class(text, "kes_http_request_failure", "Requests answered with a 5xx status.", 500..600, &[500, 502, 503]);
        text.gauge("kes_http_request_active", "Requests being answered.", self.active.load(Ordering::Relaxed));
    }
}

/// Metrics in the Prometheus text format, version 0.0.4.
#[derive(Debug, Default)]
pub struct Text {
    /// Each with its name. The samples of a metric stand together, in whatever order they are written.
    families: Vec<(String, String)>,
    /// The place of the one whose samples are written.
    current: usize,
    /// Whose samples they are; none: those of the listener that is asked.
    listener: Option<&'static str>,
}

impl Text {
    /// What the format is called in a `Content-Type` header.
    pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// A metric that may go up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, value);
    }

    /// A metric that only grows.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, value);
    }

    /// The head of a metric whose samples follow.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let known = self.families.iter().position(|(known, _)| known == name);
        self.current = known.unwrap_or_else(|| {
            self.families.push((name.to_owned(), format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")));
            self.families.len() - 1
        });
    }

    /// Has another listener of the process write its metrics: each sample gets a label with its name.
    pub fn of_listener(&mut self, name: &'static str, write: impl FnOnce(&mut Self)) {
        let before = self.listener.replace(name);
        write(self);
        self.listener = before;
    }

    /// One sample with a label. The label's value must need no escaping.
    pub fn labelled(&mut self, name: &str, label: &str, label_value: &dyn Display, value: impl Display) {
        self.sample(&format!("{name}{{{label}=\"{label_value}\"}}"), value);
    }

    /// One sample of the metric whose head was written last; `name` with its labels, if it has any.
    pub fn sample(&mut self, name: &str, value: impl Display) {
        let Some((_, text)) = self.families.get_mut(self.current) else { return };
        // Writing to a String cannot fail.
        let _ = match (self.listener, name.strip_suffix('}')) {
            (None, _) => writeln!(text, "{name} {value}"),
            (Some(listener), None) => writeln!(text, "{name}{{listener=\"{listener}\"}} {value}"),
            (Some(listener), Some(labelled)) => writeln!(text, "{labelled},listener=\"{listener}\"}} {value}"),
        };
    }

    /// The text.
    pub fn finish(self) -> String {
        self.families.into_iter().map(|(_, text)| text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_class() {
        let metrics = Metrics::default();
        for code in [200, 404, 502] {
            metrics.record(code);
        }
        let mut text = Text::default();
        metrics.write(&mut text);
        let text = text.finish();
        for line in [
            "kes_http_request_success{code=\"200\"} 1",
            "kes_http_request_error{code=\"404\"} 1",
            "kes_http_request_error{code=\"403\"} 0",
            "kes_http_request_failure{code=\"502\"} 1",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} in\n{text}");
        }
    }

    #[test]
    fn the_samples_of_all_listeners_stand_below_one_head() {
        let mut text = Text::default();
        let write = |text: &mut Text, count: u8| {
            text.gauge("one", "One.", count);
            text.family("two", "counter", "Two.");
            text.labelled("two", "code", &200, count);
        };
        write(&mut text, 1);
        text.of_listener("vault", |text| write(text, 2));
        let expected = "# HELP one One.\n# TYPE one gauge\none 1\none{listener=\"vault\"} 2\n\
                        # HELP two Two.\n# TYPE two counter\ntwo{code=\"200\"} 1\ntwo{code=\"200\",listener=\"vault\"} 2\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn active_requests_are_counted_while_they_last() {
        let metrics = Metrics::default();
        let request = metrics.begin();
        assert_eq!(metrics.active.load(Ordering::Relaxed), 1);
        drop(request);
        assert_eq!(metrics.active.load(Ordering::Relaxed), 0);
    }
}
