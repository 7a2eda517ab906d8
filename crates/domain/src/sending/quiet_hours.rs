//! Quiet hours: local times at which messages of some categories wait, by country of the recipient. They hold a message, and
//! refuse none. A country with several time zones is quiet while it is quiet in one of the listed zones. Pure: the caller
//! passes the time; the time zones are part of the program.

use std::collections::BTreeSet;

use jiff::{ToSpan, civil::Time, tz::TimeZone};
use serde::Deserialize;

use crate::{phone::Region, policy::Category};

/// Largest number of rules and of time zones in one rule.
const MAX: usize = 300;

/// Largest number of quiet periods that follow each other without a gap.
const MAX_PERIODS: usize = 64;

/// Quiet hours of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuietHours(Vec<Rule>);

/// Quiet hours of some countries.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// Countries; empty for every country.
    countries: BTreeSet<String>,
    categories: BTreeSet<Category>,
    from: Time,
    to: Time,
    zones: Vec<TimeZone>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    #[serde(default)]
    countries: Vec<String>,
    #[serde(default = "only_marketing")]
    categories: Vec<Category>,
    from: String,
    to: String,
    time_zones: Vec<String>,
}

fn only_marketing() -> Vec<Category> {
    vec![Category::Marketing]
}

impl QuietHours {
    /// Reads the rules, a list of tables.
    ///
    /// # Errors
    /// Every problem, with the index of its rule.
    pub fn read(value: &serde_json::Value) -> Result<QuietHours, Vec<String>> {
        let Some(rules) = value.as_array().filter(|rules| rules.len() <= MAX) else {
            return Err(vec![format!(": must be a list of at most {MAX} tables")]);
        };
        let mut problems = Vec::new();
        let mut read = Vec::new();
        for (n, rule) in rules.iter().enumerate() {
            match serde_json::from_value::<RuleText>(rule.clone()) {
                Ok(text) => match text.read() {
                    Ok(rule) => read.push(rule),
                    Err(problem) => problems.push(format!("[{n}].{problem}")),
                },
                Err(error) => problems.push(format!("[{n}]: {error}")),
            }
        }
        if problems.is_empty() { Ok(QuietHours(read)) } else { Err(problems) }
    }

    /// Returns the end of the quiet hours, in milliseconds since 1970, if a message may not be sent at this time.
    pub fn held_until_ms(
        &self,
        country: Option<&str>,
        category: Category,
        now_ms: i64,
    ) -> Option<i64> {
        let mut at_ms = now_ms;
        // The end of one period may be inside of another one.
        for _ in 0..MAX_PERIODS {
            let ends = self.0.iter().filter(|rule| rule.is_about(country, category));
            match ends.filter_map(|rule| rule.ends_ms(at_ms)).max() {
                Some(end_ms) => at_ms = end_ms,
                None => break,
            }
        }
        (at_ms > now_ms).then_some(at_ms)
    }
}

impl RuleText {
    fn read(self) -> Result<Rule, String> {
        let is_country = |country: &String| {
            country.bytes().all(|byte| byte.is_ascii_uppercase())
                && country.parse::<Region>().is_ok()
        };
        if !self.countries.iter().all(is_country) {
            return Err("countries: must be country codes of two capital letters, as in FR".into());
        }
        if self.categories.is_empty() || self.categories.contains(&Category::Authentication) {
            let must = "categories: must be marketing, utility or service; a one-time password cannot wait";
            return Err(must.into());
        }
        let time = |field: &str, text: &str| {
            let must = || format!("{field}: must be a time such as \"21:00\"");
            let (hour, minute) = text.split_once(':').ok_or_else(must)?;
            let is_two = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
            let (Ok(hour), Ok(minute)) = (hour.parse(), minute.parse()) else { return Err(must()) };
            let is_written = text.split(':').all(is_two);
            Time::new(hour, minute, 0, 0).ok().filter(|_| is_written).ok_or_else(must)
        };
        let (from, to) = (time("from", &self.from)?, time("to", &self.to)?);
        if from == to {
            return Err("to: must differ from `from`".into());
        }
        if !(1..=MAX).contains(&self.time_zones.len()) {
            return Err(format!("time_zones: must be a list of 1 to {MAX} time zones"));
        }
        let zone = |name: &String| {
            let must = |_| format!("time_zones: {name}: is no time zone such as Europe/Berlin");
            TimeZone::get(name).map_err(must)
        };
        let zones = self.time_zones.iter().map(zone).collect::<Result<_, _>>()?;
        Ok(Rule {
            countries: self.countries.into_iter().collect(),
            categories: self.categories.into_iter().collect(),
            from,
            to,
            zones,
        })
    }
}

impl Rule {
    fn is_about(&self, country: Option<&str>, category: Category) -> bool {
        let is_there = self.countries.is_empty()
            || country.is_some_and(|country| self.countries.contains(country));
        is_there && self.categories.contains(&category)
    }

    /// Returns the end of the quiet period that contains this time, the latest of all zones.
    fn ends_ms(&self, at_ms: i64) -> Option<i64> {
        self.zones.iter().filter_map(|zone| self.ends_in_ms(zone, at_ms)).max()
    }

    fn ends_in_ms(&self, zone: &TimeZone, at_ms: i64) -> Option<i64> {
        let local = jiff::Timestamp::from_millisecond(at_ms).ok()?.to_zoned_datetime(zone.clone());
        let (time, date) = (local.time(), local.date());
        let is_overnight = self.from > self.to;
        let (is_quiet, end_date) = match is_overnight {
            true if time >= self.from => (true, date.checked_add(1.day()).ok()?),
            true => (time < self.to, date),
            false => (time >= self.from && time < self.to, date),
        };
        let end = end_date.to_datetime(self.to);
        let end = end.to_zoned_datetime(zone.clone()).ok()?;
        // A time that the clock skips or repeats never ends before it begins.
        let end_ms = end.timestamp().as_millisecond();
        (is_quiet && end_ms > at_ms).then_some(end_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
    }

    fn rules() -> QuietHours {
        let value = json!([
            {"countries": ["DE"], "from": "21:00", "to": "08:00", "time_zones": ["Europe/Berlin"]},
            {"countries": ["US"], "categories": ["marketing", "utility"], "from": "20:00", "to": "09:00",
             "time_zones": ["America/New_York", "America/Los_Angeles"]},
            {"countries": ["FR"], "from": "12:00", "to": "14:00", "time_zones": ["Europe/Paris"]},
        ]);
        QuietHours::read(&value).unwrap()
    }

    #[test]
    fn message_is_held_until_the_end_of_the_local_night() {
        let held = |country: &str, category, time: &str| {
            let held = rules().held_until_ms(Some(country), category, at(time));
            held.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).map(|at| at.to_string())
        };
        let marketing = |country: &str, time: &str| held(country, Category::Marketing, time);
        // Winter in Berlin is UTC+1, summer is UTC+2.
        assert_eq!(marketing("DE", "2026-01-10T19:59:59Z"), None);
        assert_eq!(
            marketing("DE", "2026-01-10T20:00:00Z").as_deref(),
            Some("2026-01-11T07:00:00Z")
        );
        assert_eq!(
            marketing("DE", "2026-01-11T06:59:59Z").as_deref(),
            Some("2026-01-11T07:00:00Z")
        );
        assert_eq!(marketing("DE", "2026-01-11T07:00:00Z"), None);
        assert_eq!(
            marketing("DE", "2026-07-10T19:30:00Z").as_deref(),
            Some("2026-07-11T06:00:00Z")
        );
        // The night in which the clocks change.
        assert_eq!(
            marketing("DE", "2026-03-28T22:00:00Z").as_deref(),
            Some("2026-03-29T06:00:00Z")
        );
        // It is still night in Los Angeles when New York wakes up.
        assert_eq!(
            marketing("US", "2026-01-10T13:00:00Z").as_deref(),
            Some("2026-01-10T17:00:00Z")
        );
        assert_eq!(
            held("US", Category::Utility, "2026-01-10T02:00:00Z").as_deref(),
            Some("2026-01-10T17:00:00Z")
        );
        assert_eq!(
            marketing("FR", "2026-01-10T11:30:00Z").as_deref(),
            Some("2026-01-10T13:00:00Z")
        );
        for (country, category) in [
            ("DE", Category::Service),
            ("DE", Category::Authentication),
            ("AT", Category::Marketing),
        ] {
            assert_eq!(held(country, category, "2026-01-10T23:00:00Z"), None, "{country}");
        }
        assert_eq!(
            rules().held_until_ms(None, Category::Marketing, at("2026-01-10T23:00:00Z")),
            None
        );
    }

    #[test]
    fn rules_without_countries_apply_to_all() {
        let value = json!([{"from": "00:00", "to": "12:00", "time_zones": ["UTC"]},
            {"from": "11:00", "to": "13:30", "time_zones": ["UTC"]}]);
        let quiet = QuietHours::read(&value).unwrap();
        let held = quiet.held_until_ms(None, Category::Marketing, at("2026-01-10T01:00:00Z"));
        assert_eq!(held, Some(at("2026-01-10T13:30:00Z")), "the second period follows the first");
    }

    #[test]
    fn wrong_rules_are_refused_with_their_index() {
        let rule = |change: serde_json::Value| {
            let mut rule = json!({"from": "21:00", "to": "08:00", "time_zones": ["Europe/Berlin"]});
            rule.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            QuietHours::read(&json!([rule])).err().map(|problems| problems.join("; "))
        };
        assert_eq!(rule(json!({})), None);
        for (change, field) in [
            (json!({"countries": ["de"]}), "[0].countries"),
            (json!({"categories": ["authentication"]}), "[0].categories"),
            (json!({"categories": []}), "[0].categories"),
            (json!({"from": "9:00"}), "[0].from"),
            (json!({"to": "24:00"}), "[0].to"),
            (json!({"to": "21:00"}), "[0].to"),
            (json!({"time_zones": []}), "[0].time_zones"),
            (json!({"time_zones": ["Mars/Base"]}), "[0].time_zones"),
            (json!({"zone": "UTC"}), "[0]"),
        ] {
            let problem = rule(change.clone()).unwrap();
            assert!(problem.starts_with(field), "{change}: {problem}");
        }
        assert!(QuietHours::read(&json!({})).is_err());
    }

    proptest! {
        /// The end of the quiet hours is later than now, and no quiet time itself.
        #[test]
        fn end_of_quiet_hours_is_not_quiet(minutes in 0i64..600_000, country in prop::sample::select(vec!["DE", "US", "FR"])) {
            let now_ms = at("2026-01-01T00:00:00Z") + minutes * 60_000;
            let rules = rules();
            if let Some(end_ms) = rules.held_until_ms(Some(country), Category::Marketing, now_ms) {
                prop_assert!(end_ms > now_ms && end_ms - now_ms < 86_400_000);
                prop_assert_eq!(rules.held_until_ms(Some(country), Category::Marketing, end_ms), None);
            }
        }
    }
}
