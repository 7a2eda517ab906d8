//! Metrics of the process itself, under the names that all Prometheus clients use. They are read from /proc at each
//! scrape; values that cannot be read are omitted.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

const CPU: (&str, &str, &str) =
    ("process_cpu_seconds", "counter", "CPU time used by the process, in seconds");
const RESIDENT: (&str, &str, &str) =
    ("process_resident_memory_bytes", "gauge", "Resident memory of the process, in bytes");
const OPEN_FDS: (&str, &str, &str) =
    ("process_open_fds", "gauge", "Open file descriptors of the process, including connections");
const MAX_FDS: (&str, &str, &str) =
    ("process_max_fds", "gauge", "Limit of open file descriptors of the process");
const STARTED: (&str, &str, &str) =
    ("process_start_time_seconds", "gauge", "Start time of the process, in seconds since 1970");

/// Name, kind and meaning of each metric.
pub(super) const FAMILIES: [(&str, &str, &str); 5] = [CPU, RESIDENT, OPEN_FDS, MAX_FDS, STARTED];

/// Collector of this process.
#[derive(Debug)]
pub(super) struct Process {
    started_s: f64,
}

impl Default for Process {
    fn default() -> Process {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Process { started_s: since.as_secs_f64() }
    }
}

/// Parses /proc/self/stat: seconds of CPU, and bytes in memory.
fn cost(stat: &str) -> Option<(f64, i64)> {
    // The name of the program is the second field, in parentheses, and may contain any character; the state is the first
    // field after it.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |nth: usize| fields.get(nth)?.parse::<u64>().ok();
    let ticks = field(11)?.checked_add(field(12)?)?;
    let pages = i64::try_from(field(21)?).ok()?;
    let seconds = ticks as f64 / clock_ticks_per_second() as f64;
    Some((seconds, pages.saturating_mul(i64::try_from(page_size()).ok()?)))
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let mut tell = |(name, _, meaning): (&str, &str, &str), metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, meaning, None, metric.metric_type())?)
        };
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some((cpu_s, resident_bytes)) = cost(&stat) {
            tell(CPU, &ConstCounter::new(cpu_s))?;
            tell(RESIDENT, &ConstGauge::new(resident_bytes))?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is the folder that is being read.
            let count = open.count().saturating_sub(1);
            tell(OPEN_FDS, &ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX)))?;
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            tell(MAX_FDS, &ConstGauge::new(i64::try_from(most).unwrap_or(i64::MAX)))?;
        }
        tell(STARTED, &ConstGauge::new(self.started_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_may_have_any_name() {
        let after = " S 1 1 1 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 9 0 100 900000 5 1844";
        let expected = 400.0 / clock_ticks_per_second() as f64;
        let bytes = 5 * i64::try_from(page_size()).unwrap();
        for name in ["twilio-edge", "a) S 9 9 9 (b", ""] {
            assert_eq!(cost(&format!("12 ({name}){after}")), Some((expected, bytes)));
        }
        assert_eq!(cost("12 (twilio-edge) S 1"), None);
    }
}
