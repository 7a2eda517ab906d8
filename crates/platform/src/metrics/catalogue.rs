//! Every family there is, with what it means: registered and described in one call, so that what is served, what
//! `twilio-edge reference metrics` prints and what docs/METRICS.md has are the same list. Knows nothing of what is
//! counted.

use std::{fmt::Write as _, hash::Hash, sync::atomic::AtomicU64};

use prometheus_client::{
    collector::Collector,
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};

/// What every name of ours begins with.
const PREFIX: &str = "twilio_edge";

/// The labels of one series: each name with its value.
pub(super) type Labels<const N: usize> = [(&'static str, &'static str); N];

/// A gauge of seconds or bytes that are no whole number.
pub(super) type Measure = Gauge<f64, AtomicU64>;

/// All families, in the order in which they are described.
#[derive(Debug)]
pub(super) struct Catalogue {
    ours: Registry,
    /// Those whose names are everybody's, without our prefix.
    common: Registry,
    told: Vec<Told>,
}

/// One family, as it is described.
#[derive(Debug)]
struct Told {
    name: String,
    kind: &'static str,
    labels: String,
    meaning: &'static str,
}

impl Default for Catalogue {
    fn default() -> Catalogue {
        let (ours, common) = (Registry::with_prefix(PREFIX), Registry::default());
        Catalogue { ours, common, told: Vec::new() }
    }
}

impl Catalogue {
    pub(super) fn counter(&mut self, name: &str, meaning: &'static str) -> Counter {
        self.add(name, "counter", &[], meaning, Counter::default())
    }

    /// Counters that differ in these labels.
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

    /// Gauges that differ in these labels.
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

    /// Histograms that differ in these labels.
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

    /// Something that is the same as long as the process lives.
    pub(super) fn info(&mut self, name: &str, meaning: &'static str, labels: Labels<1>) {
        let info = prometheus_client::metrics::info::Info::new(labels);
        self.ours.register(name, meaning, info);
        let label = labels.map(|(name, _)| name);
        self.tell(format!("{PREFIX}_{name}"), "info", &label, meaning);
    }

    /// Families that are read off when they are asked for: name, kind and meaning of each, under names without our prefix.
    pub(super) fn read_off(
        &mut self,
        families: &[(&'static str, &'static str, &'static str)],
        collector: impl Collector,
    ) {
        self.common.register_collector(Box::new(collector));
        for (name, kind, meaning) in families {
            self.tell((*name).to_owned(), kind, &[], meaning);
        }
    }

    /// Registers and describes one.
    pub(super) fn add<M: Metric + Clone>(
        &mut self,
        name: &str,
        kind: &'static str,
        labels: &[&str],
        meaning: &'static str,
        metric: M,
    ) -> M {
        self.ours.register(name, meaning, metric.clone());
        self.tell(format!("{PREFIX}_{name}"), kind, labels, meaning);
        metric
    }

    fn tell(&mut self, name: String, kind: &'static str, labels: &[&str], meaning: &'static str) {
        // As the series are called, which is what a query names.
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let labels = labels.iter().map(|label| format!("{label}=\"..\"")).collect::<Vec<_>>();
        self.told.push(Told { name: name + suffix, kind, labels: labels.join(","), meaning });
    }

    /// All series, as OpenMetrics text.
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

    /// Every family, as the table of docs/METRICS.md.
    pub(super) fn reference(&self) -> String {
        let mut table = String::from("| metric | kind | tells |\n|---|---|---|\n");
        for Told { name, kind, labels, meaning } in &self.told {
            let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            let _ = writeln!(table, "| `{name}{labels}` | {kind} | {meaning} |");
        }
        table
    }
}
