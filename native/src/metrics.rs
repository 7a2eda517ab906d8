//! The metrics of a configuration, under the names that the wasm filter has.

use twilio_edge_filter::metrics::{Counter, Gauge, HOOK_PANICS, Histogram, Tally};

use crate::envoy::{EnvoyConfig, EnvoyStream};

/// Ids of the metrics.
pub(crate) struct Metrics {
    envoy: EnvoyConfig,
    counters: Vec<(Counter, usize)>,
    gauges: Vec<(Gauge, usize)>,
    histograms: Vec<(Histogram, usize)>,
    panics: Option<usize>,
}

impl Metrics {
    /// Defines all metrics, so that they are visible from the start. Only in `config_new`.
    pub(crate) fn define(envoy: EnvoyConfig) -> Self {
        let counter = |it: Counter| Some((it, envoy.define_counter(&it.name())?));
        let gauge = |it: Gauge| Some((it, envoy.define_gauge(it.name())?));
        let histogram = |it: Histogram| Some((it, envoy.define_histogram(it.name())?));
        let metrics = Self {
            envoy,
            counters: Counter::all().into_iter().filter_map(counter).collect(),
            gauges: Gauge::ALL.into_iter().filter_map(gauge).collect(),
            histograms: Histogram::ALL.into_iter().filter_map(histogram).collect(),
            panics: envoy.define_counter(HOOK_PANICS),
        };
        // A metric of a dynamic module exists from its first value on.
        let counters = metrics.counters.iter().map(|(_, id)| *id).chain(metrics.panics);
        counters.for_each(|id| envoy.increment_counter(id, 0));
        metrics.gauges.iter().for_each(|(_, id)| envoy.change_gauge(*id, 0));
        metrics
    }

    /// Adds the counts of a tally.
    pub(crate) fn add(&self, tally: &mut Tally) {
        for (counter, count) in tally.take() {
            let defined = self.counters.iter().find(|(defined, _)| *defined == counter);
            if let Some((_, id)) = defined {
                self.envoy.increment_counter(*id, count);
            }
        }
    }

    /// Counts panics.
    pub(crate) fn add_panics(&self, count: u64) {
        if let Some(id) = self.panics.filter(|_| count > 0) {
            self.envoy.increment_counter(id, count);
        }
    }

    fn gauge(&self, gauge: Gauge) -> Option<usize> {
        let defined = self.gauges.iter().find(|(defined, _)| *defined == gauge);
        defined.map(|(_, id)| *id)
    }

    /// Changes the share of this configuration in a gauge.
    pub(crate) fn change(&self, gauge: Gauge, by: i64) {
        if let Some(id) = self.gauge(gauge).filter(|_| by != 0) {
            self.envoy.change_gauge(id, by);
        }
    }

    /// Sets a gauge whose value is the same for all configurations.
    pub(crate) fn set(&self, gauge: Gauge, value: u32) {
        if let Some(id) = self.gauge(gauge) {
            self.envoy.set_gauge(id, value.into());
        }
    }

    /// Records one value of a histogram, in a hook of `stream`.
    pub(crate) fn record(&self, stream: EnvoyStream, histogram: Histogram, value: u64) {
        if let Some((_, id)) = self.histograms.iter().find(|(defined, _)| *defined == histogram) {
            stream.record(*id, value);
        }
    }
}
