//! Routes of an account: its senders by country and channel, and the countries it may send to. Parses YAML and reports all
//! problems at once. Decides nothing about a message, and reads no file.
//!
//! ```yaml
//! default: MG00112233445566778899aabbccddeeff
//! by_country:
//!   GB: {whatsapp: "whatsapp:+447400123456", sms: MG00112233445566778899aabbccddeeff}
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    fallback::Fallback,
    flow::{FlowTrigger, ReceivedMessage},
    plan::{PlanStep, plan_problem},
    quiet_hours::QuietHours,
    request::Sender,
    sender::{is_alphanumeric_id, is_service, is_short_code},
};
use crate::{
    address::Address,
    phone::{self, Region},
    tenant::is_account_sid,
};

/// Senders by channel; the key [`ANY`] has the sender for all other channels.
type Targets = BTreeMap<String, Sender>;

/// Key for all other channels; no channel has an empty name.
const ANY: &str = "";

/// Field names of an account's routes.
const FIELDS: &str = "default, default_messaging_service_sid, by_country, allow_countries, deny_countries, fallback, quiet_hours, flows, plans";

/// Form of the name of a notification plan.
const PLAN_NAME: &str = "the name must be 1 to 64 lower-case letters, digits, - or _";

/// Returns whether a notification plan can have this name.
pub fn is_plan_name(name: &str) -> bool {
    let is_letter = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
    };
    (1..=64).contains(&name.len()) && name.bytes().all(is_letter)
}

/// The routes of all accounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routing {
    usual: Routes,
    accounts: BTreeMap<String, Routes>,
}

/// The routes of one account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    default: Targets,
    by_country: BTreeMap<String, Targets>,
    /// Allowed countries; an empty set allows all.
    allow: BTreeSet<String>,
    deny: BTreeSet<String>,
    fallback: Fallback,
    quiet_hours: QuietHours,
    flows: Vec<FlowTrigger>,
    plans: BTreeMap<String, Vec<PlanStep>>,
}

impl Routing {
    /// Parses YAML.
    ///
    /// # Errors
    /// Every problem of the file.
    pub fn parse(text: &str) -> Result<Routing, Vec<String>> {
        // NO is the country Norway, not `false`.
        let options = serde_saphyr::options! { strict_booleans: true };
        let value: Value = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| vec![error.to_string()])?;
        let mut problems = Vec::new();
        let routing = routing(&value, &mut problems);
        if problems.is_empty() { Ok(routing) } else { Err(problems) }
    }

    /// Returns the routes of an account, or else the default routes.
    pub fn of(&self, account_sid: &str) -> &Routes {
        self.accounts.get(account_sid).unwrap_or(&self.usual)
    }
}

impl Routes {
    /// Returns the fallback for messages that specify none.
    pub fn fallback(&self) -> Option<&Fallback> {
        Some(&self.fallback).filter(|fallback| !fallback.is_empty())
    }

    /// Returns the notification plan with this name.
    pub fn plan(&self, name: &str) -> Option<&[PlanStep]> {
        self.plans.get(name).map(Vec::as_slice)
    }

    /// Returns the quiet hours.
    pub fn quiet_hours(&self) -> &QuietHours {
        &self.quiet_hours
    }

    /// Returns the first trigger that admits an inbound message.
    pub fn flow(&self, received: ReceivedMessage<'_>) -> Option<&FlowTrigger> {
        self.flows.iter().find(|trigger| trigger.admits(received))
    }

    /// Returns the sender on a channel to a country.
    pub fn sender(&self, channel: &str, country: Option<&str>) -> Option<&Sender> {
        let there = country.and_then(|country| self.by_country.get(country));
        let mut targets = there.into_iter().chain([&self.default]);
        targets.find_map(|targets| targets.get(channel).or_else(|| targets.get(ANY)))
    }

    /// Returns the reason why a country is blocked; `None` if it is allowed.
    pub fn blocks(&self, country: Option<&str>) -> Option<String> {
        match country {
            Some(country) if self.deny.contains(country) => {
                Some(format!("the routes deny the country {country} (deny_countries)"))
            }
            _ if self.allow.is_empty() => None,
            Some(country) if self.allow.contains(country) => None,
            Some(country) => Some(format!("the routes do not allow the country {country} (allow_countries)")),
            None => Some("the country of the number is unknown, and the routes allow only listed countries (allow_countries)".into()),
        }
    }
}

fn routing(value: &Value, problems: &mut Vec<String>) -> Routing {
    let Some(table) = value.as_object() else {
        problems.push(format!("the file must be a table of {FIELDS}, accounts"));
        return Routing::default();
    };
    let mut usual = table.clone();
    let accounts = usual.remove("accounts").unwrap_or_else(|| Map::new().into());
    let mut read = BTreeMap::new();
    for (sid, value) in fields("accounts", &accounts, problems) {
        let path = format!("accounts.{sid}");
        if !is_account_sid(sid) {
            problems.push(format!("{path}: must be AC and 32 hexadecimal digits"));
        }
        read.insert(sid.clone(), routes(&format!("{path}."), value, problems));
    }
    Routing { usual: routes("", &usual.into(), problems), accounts: read }
}

fn routes(parent: &str, value: &Value, problems: &mut Vec<String>) -> Routes {
    let mut routes = Routes::default();
    let at = parent.strip_suffix('.').unwrap_or(parent);
    for (name, value) in fields(at, value, problems) {
        let path = format!("{parent}{name}");
        match name.as_str() {
            "default" => routes.default.extend(targets(&path, value, problems)),
            "default_messaging_service_sid" => {
                let found = targets(&path, value, problems);
                if found.values().any(|sender| matches!(sender, Sender::From(_))) {
                    problems.push(format!("{path}: must be MG and 32 hexadecimal digits"));
                }
                routes.default.extend(found);
            }
            "by_country" => {
                for (country, value) in fields(&path, value, problems) {
                    let path = format!("{path}.{country}");
                    check_country(&path, country, problems);
                    routes.by_country.insert(country.clone(), targets(&path, value, problems));
                }
            }
            "allow_countries" => routes.allow = countries(&path, value, problems),
            "fallback" => routes.fallback = fallback(&path, value, problems),
            "quiet_hours" => match QuietHours::read(value) {
                Ok(quiet_hours) => routes.quiet_hours = quiet_hours,
                Err(found) => {
                    problems.extend(found.into_iter().map(|problem| format!("{path}{problem}")));
                }
            },
            "flows" => match FlowTrigger::read_all(value) {
                Ok(flows) => routes.flows = flows,
                Err(found) => {
                    problems.extend(found.into_iter().map(|problem| format!("{path}{problem}")));
                }
            },
            "plans" => {
                for (name, value) in fields(&path, value, problems) {
                    let path = format!("{path}.{name}");
                    let steps = plan(&path, name, value, problems);
                    routes.plans.insert(name.clone(), steps);
                }
            }
            "deny_countries" => routes.deny = countries(&path, value, problems),
            _ => problems.push(format!("{path}: is not a field; the fields are {FIELDS}")),
        }
    }
    if value.get("default").is_some() && value.get("default_messaging_service_sid").is_some() {
        problems.push(format!(
            "{parent}default: must not be combined with default_messaging_service_sid"
        ));
    }
    for country in routes.allow.intersection(&routes.deny) {
        problems.push(format!("{parent}deny_countries: {country} is also in allow_countries"));
    }
    routes
}

fn fallback(path: &str, value: &Value, problems: &mut Vec<String>) -> Fallback {
    match serde_json::from_value::<Fallback>(value.clone()) {
        Ok(fallback) => {
            let found = fallback.problems();
            problems.extend(found.into_iter().map(|problem| format!("{path}.{problem}")));
            fallback
        }
        Err(error) => {
            problems.push(format!("{path}: {error}"));
            Fallback::default()
        }
    }
}

fn plan(path: &str, name: &str, value: &Value, problems: &mut Vec<String>) -> Vec<PlanStep> {
    if !is_plan_name(name) {
        problems.push(format!("{path}: {PLAN_NAME}"));
    }
    match serde_json::from_value::<Vec<PlanStep>>(value.clone()) {
        Ok(steps) => {
            problems.extend(plan_problem(&steps).map(|problem| match problem.starts_with('[') {
                true => format!("{path}{problem}"),
                false => format!("{path}: {problem}"),
            }));
            steps
        }
        Err(error) => {
            problems.push(format!("{path}: {error}"));
            Vec::new()
        }
    }
}

fn fields<'v>(
    path: &str,
    value: &'v Value,
    problems: &mut Vec<String>,
) -> impl Iterator<Item = (&'v String, &'v Value)> + use<'v> {
    if !value.is_object() {
        problems.push(format!("{path}: must be a table"));
    }
    value.as_object().into_iter().flatten()
}

fn check_country(path: &str, country: &str, problems: &mut Vec<String>) {
    let is_capital = country.bytes().all(|byte| byte.is_ascii_uppercase());
    if !is_capital || country.parse::<Region>().is_err() {
        problems.push(format!("{path}: must be a country code of two capital letters, as in FR"));
    }
}

fn countries(path: &str, value: &Value, problems: &mut Vec<String>) -> BTreeSet<String> {
    let listed: &[Value] = value.as_array().map_or(&[], Vec::as_slice);
    if listed.is_empty() {
        problems.push(format!("{path}: must be a non-empty list of countries"));
    }
    let mut countries = BTreeSet::new();
    for (n, country) in listed.iter().enumerate() {
        let country = country.as_str().unwrap_or_default();
        check_country(&format!("{path}[{n}]"), country, problems);
        countries.insert(country.to_owned());
    }
    countries
}

fn targets(path: &str, value: &Value, problems: &mut Vec<String>) -> Targets {
    match value {
        Value::Object(channels) if !channels.is_empty() => {
            let mut targets = Targets::new();
            for (channel, value) in channels {
                match sender(value) {
                    Some(Sender::From(from)) if from.channel != *channel => {
                        problems
                            .push(format!("{path}.{channel}: must be a sender on this channel"));
                    }
                    Some(sender) => {
                        targets.insert(channel.clone(), sender);
                    }
                    None => problems.push(format!("{path}.{channel}: {NO_SENDER}")),
                }
            }
            targets
        }
        value => match sender(value) {
            Some(Sender::From(from)) => Targets::from([(from.channel.clone(), Sender::From(from))]),
            Some(service) => Targets::from([(ANY.to_owned(), service)]),
            None => {
                problems.push(format!("{path}: {NO_SENDER}, or a table of senders by channel"));
                Targets::new()
            }
        },
    }
}

const NO_SENDER: &str =
    "must be MG and 32 hexadecimal digits, or a sender in quotes, as in \"whatsapp:+15551234567\"";

fn sender(value: &Value) -> Option<Sender> {
    let text = value.as_str()?;
    if is_service(text) {
        return Some(Sender::Service(text.to_owned()));
    }
    if is_alphanumeric_id(text) {
        return Some(Sender::From(Address { channel: "sms".to_owned(), number: text.to_owned() }));
    }
    let from = Address::parse(text)?;
    let is_code = from.channel == "sms" && is_short_code(&from.number);
    let is_number = phone::is_e164(&from.number) || is_code;
    let takes_number = matches!(from.channel.as_str(), "sms" | "whatsapp");
    (is_number || !takes_number).then_some(Sender::From(from))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: &str = "MG00112233445566778899aabbccddeeff";
    const TWO: &str = "MGffeeddccbbaa99887766554433221100";
    const ACCOUNT: &str = "AC00112233445566778899aabbccddeeff";

    fn name(sender: Option<&Sender>) -> String {
        match sender {
            Some(Sender::Service(sid)) => sid.clone(),
            Some(Sender::From(from)) => from.written(),
            None => "none".to_owned(),
        }
    }

    #[test]
    fn country_precedes_the_default_and_a_channel_precedes_any() {
        let file = format!(
            "default_messaging_service_sid: {ONE}\nby_country:\n  GB: {TWO}\n  NO: \"whatsapp:+4740123456\"\n\
             allow_countries: [GB, NO, US]\naccounts:\n  {ACCOUNT}:\n    default: {{sms: {TWO}}}\n    deny_countries: [NO]\n"
        );
        let routing = Routing::parse(&file).unwrap();
        let (usual, own) = (routing.of("AC"), routing.of(ACCOUNT));
        for (routes, channel, country, expected) in [
            (usual, "sms", Some("US"), ONE),
            (usual, "sms", None, ONE),
            (usual, "whatsapp", Some("GB"), TWO),
            (usual, "whatsapp", Some("NO"), "whatsapp:+4740123456"),
            (usual, "sms", Some("NO"), ONE),
            (own, "sms", Some("GB"), TWO),
            (own, "whatsapp", Some("GB"), "none"),
        ] {
            assert_eq!(name(routes.sender(channel, country)), expected, "{channel} {country:?}");
        }
        let blocked = |routes: &Routes, country| routes.blocks(country).is_some();
        assert_eq!([Some("NO"), Some("FR"), None].map(|c| blocked(usual, c)), [false, true, true]);
        assert_eq!([Some("NO"), Some("FR"), None].map(|c| blocked(own, c)), [true, false, false]);
        assert!(!blocked(&Routes::default(), None));
    }

    #[test]
    fn routes_report_all_problems_at_once() {
        let file = "default: +15551234567\ndefault_messaging_service_sid: MG1\nby_country: {uk: {}, FR: {sms: \"whatsapp:+33612345678\"}}\n\
            allow_countries: []\ndeny_countries: [XX]\nfallback: {channel: rcs}\nflows: [{flow: FW1}]\nrouts: 1\naccounts: {AC1: 7}\n";
        let problems = Routing::parse(file).unwrap_err();
        for path in [
            "default:",
            "default_messaging_service_sid:",
            "by_country.uk: must be a country",
            "by_country.uk: must be MG",
            "by_country.FR.sms: must be a sender on this channel",
            "allow_countries:",
            "deny_countries[0]:",
            "routs:",
            "fallback.channel: must be sms",
            "flows[0].flow: must be FW",
            "accounts.AC1: must be AC",
            "accounts.AC1: must be a table",
        ] {
            assert!(
                problems.iter().any(|problem| problem.starts_with(path)),
                "{path} {problems:?}"
            );
        }
        assert!(Routing::parse("by_country:\n  GB: 1\n  GB: 2\n").is_err(), "twice the same");
    }

    proptest! {
        /// Any file is parsed or refused with a reason.
        #[test]
        fn routes_of_any_text_are_read_or_refused(text in "(default|by_country|accounts|MG0|GB|[a-z:{}\\[\\]&*!|>\n\" -]){0,60}") {
            if let Err(problems) = Routing::parse(&text) {
                prop_assert!(!problems.is_empty());
            }
        }

        /// A number never sends on a channel other than its own.
        #[test]
        fn number_sends_on_its_own_channel(on_whatsapp: bool, channel in "sms|whatsapp|messenger", country in "GB|FR") {
            let ours = if on_whatsapp { "whatsapp:+447400123456" } else { "+447400123456" };
            let routing = Routing::parse(&format!("by_country: {{GB: \"{ours}\"}}\n")).unwrap();
            match routing.of(ACCOUNT).sender(&channel, Some(&country)) {
                Some(Sender::From(from)) => prop_assert_eq!(&from.channel, &channel),
                sender => prop_assert!(sender.is_none()),
            }
        }
    }
}
