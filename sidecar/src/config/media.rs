//! What is said of media: whether they are looked at, where they may be, and what each channel takes.

use serde::Deserialize;

use crate::domain::media::{fitness::Limits, place::Places};

/// Longest that looking at media may be allowed to take: within the time an attempt has beside its call.
const LONGEST_LOOK_MS: u64 = 15_000;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "defaults.toml documents every setting, once")]
pub struct Media {
    pub check: bool,
    pub timeout_ms: u64,
    pub remember_s: u64,
    pub redirects: u32,
    pub ports: Vec<String>,
    pub trust_addresses: Vec<String>,
    pub concurrency: usize,
    pub concurrency_per_account: usize,
    pub whatsapp: Limits,
    pub sms: Limits,
    pub rcs: Limits,
}

impl Media {
    /// What a channel takes; one that nobody speaks of, what RCS does.
    pub fn of(&self, channel: &str) -> &Limits {
        match channel {
            "whatsapp" => &self.whatsapp,
            "sms" => &self.sms,
            _ => &self.rcs,
        }
    }

    /// Where media may be fetched, or what is wrong with that.
    pub fn places(&self) -> Result<Places, String> {
        Places::new(&self.trust_addresses, &self.ports)
    }

    /// Everything that is wrong with it.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.places().err().into_iter().collect();
        let mut check = |good: bool, problem: &str| {
            if !good {
                problems.push(problem.to_owned());
            }
        };
        check(
            (100..=LONGEST_LOOK_MS).contains(&self.timeout_ms),
            "timeout_ms: must be 100 to 15000",
        );
        check(self.redirects <= 10, "redirects: must be 10 at most");
        check(self.concurrency > 0, "concurrency: must be at least 1");
        check(self.concurrency_per_account > 0, "concurrency_per_account: must be at least 1");
        for (channel, limits) in
            [("whatsapp", &self.whatsapp), ("sms", &self.sms), ("rcs", &self.rcs)]
        {
            for problem in limits.problems() {
                problems.push(format!("{channel}.{problem}"));
            }
        }
        problems
    }
}
