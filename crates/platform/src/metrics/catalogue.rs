//! Catalogue of all metric families with their meaning. One call registers and describes a family, so that the served
//! metrics, the output of `twilio-edge reference metrics` and docs/METRICS.md are the same list. Does not know the code
//! that counts.

use std::{fmt::Write as _, hash::Hash, sync::atomic::AtomicU64};

use prometheus_client::{
    collector::Collector,
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};

/// Prefix of all our metric names.
const PREFIX: &str = "twilio_edge";

/// Labels of one series: each name with its value.
pub(super) type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Gauge of fractional seconds or bytes.
pub(super) type Measure = Gauge<f64, AtomicU64>;

/// Converts milliseconds to the value of a [`Measure`].
pub(super) fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// All families, in the order of their description.
#[derive(Debug)]
pub(super) struct Catalogue {
    ours: Registry,
    /// Families with common names, without our prefix.
    common: Registry,
    families: Vec<Description>,
}

/// Description of one family.
#[derive(Debug)]
struct Description {
    name: String,
    kind: &'static str,
    labels: String,
    meaning: &'static str,
}

impl Default for Catalogue {
    fn default() -> Catalogue {
        let (ours, common) = (Registry::with_prefix(PREFIX), Registry::default());
        Catalogue { ours, common, families: Vec::new() }
    }
}

impl Catalogue {
    pub(super) fn counter(&mut self, name: &str, meaning: &'static str) -> Counter {
        self.add(name, "counter", &[], meaning, Counter::default())
    }

    /// Registers counters with these labels.
    pub(super) fn counters<
        L: EncodeLabelSet + Clone + Hash + Eq + Send + Sync + std::fmt::Debug + 'static,
    >(
        &mut self,
        name: &str,
        labels: &[&str],
        meaning: &'static str,
    ) -> Family<L, Counter> {
        self.add(name, "counter", labels, meaning, Family::default())
    }

    pub(super) fn gauge(&mut self, name: &str, meaning: &'static str) -> Gauge {
        self.add(name, "gauge", &[], meaning, Gauge::default())
    }

    /// Registers gauges with these labels.
    pub(super) fn gauges<const N: usize>(
        &mut self,
        name: &str,
        labels: [&str; N],
        meaning: &'static str,
    ) -> Family<Labels<N>, Gauge> {
        self.add(name, "gauge", &labels, meaning, Family::default())
    }

    pub(super) fn measure(&mut self, name: &str, meaning: &'static str) -> Measure {
        self.add(name, "gauge", &[], meaning, Measure::default())
    }

    pub(super) fn histogram(
        &mut self,
        name: &str,
        meaning: &'static str,
        buckets: &'static [f64],
    ) -> Histogram {
        self.add(name, "histogram", &[], meaning, Histogram::new(buckets.iter().copied()))
    }

    /// Registers histograms with these labels.
    pub(super) fn histograms<
        L: EncodeLabelSet + Clone + Hash + Eq + Send + Sync + std::fmt::Debug + 'static,
    >(
        &mut self,
        name: &str,
        labels: &[&str],
        meaning: &'static str,
        new: fn() -> Histogram,
    ) -> Family<L, Histogram, fn() -> Histogram> {
        self.add(name, "histogram", labels, meaning, Family::new_with_constructor(new))
    }

    /// Registers an info metric, which is constant for the life of the process.
    pub(super) fn info(&mut self, name: &str, meaning: &'static str, labels: Labels<1>) {
        let info = prometheus_client::metrics::info::Info::new(labels);
        self.ours.register(name, meaning, info);
        let label = labels.map(|(name, _)| name);
        self.describe(format!("{PREFIX}_{name}"), "info", &label, meaning);
    }

    /// Registers families that a collector reads at each scrape: name, kind and meaning of each, without our prefix.
    pub(super) fn read_off(
        &mut self,
        families: &[(&'static str, &'static str, &'static str)],
        collector: impl Collector,
    ) {
        self.common.register_collector(Box::new(collector));
        for (name, kind, meaning) in families {
            self.describe((*name).to_owned(), kind, &[], meaning);
        }
    }

    /// Registers and describes one family.
    pub(super) fn add<M: Metric + Clone>(
        &mut self,
        name: &str,
        kind: &'static str,
        labels: &[&str],
        meaning: &'static str,
        metric: M,
    ) -> M {
        self.ours.register(name, meaning, metric.clone());
        self.describe(format!("{PREFIX}_{name}"), kind, labels, meaning);
        metric
    }

    fn describe(
        &mut self,
        name: String,
        kind: &'static str,
        labels: &[&str],
        meaning: &'static str,
    ) {
        // Name of the series, as queries use it.
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let labels = labels.iter().map(|label| format!("{label}=\"..\"")).collect::<Vec<_>>();
        self.families.push(Description {
            name: name + suffix,
            kind,
            labels: labels.join(","),
            meaning,
        });
    }

    /// Renders all series as OpenMetrics text.
    pub(super) fn text(&self) -> String {
        let mut written = String::new();
        let encoded = text::encode_registry(&mut written, &self.ours)
            .and_then(|()| text::encode_registry(&mut written, &self.common))
            .and_then(|()| text::encode_eof(&mut written));
        if encoded.is_err() {
            let _ = writeln!(written, "# incomplete");
        }
        written
    }

    /// Renders every family as the table of docs/METRICS.md.
    pub(super) fn reference(&self) -> String {
        let mut table = String::from("| metric | kind | meaning |\n|---|---|---|\n");
        for Description { name, kind, labels, meaning } in &self.families {
            let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            let _ = writeln!(table, "| `{name}{labels}` | {kind} | {meaning} |");
        }
        table
    }
}
