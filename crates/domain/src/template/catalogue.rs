//! Catalogue of one account's templates: finds the template for a name and a language, offers templates that can
//! replace free text, and computes the changes since the last synchronization.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::{SendPermission, Source, Template, locale::Locale};
use crate::policy::Category;

/// Maximum number of offered templates.
const MAX_OFFERED: usize = 20;

/// All templates of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// By name and language; among several, the best first.
    by_name: BTreeMap<String, BTreeMap<Locale, Vec<Template>>>,
    names: BTreeMap<String, (String, Locale)>,
}

/// Template that may be sent at any time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct OfferedTemplate {
    /// Name of the template.
    pub name: String,
    /// Language of the template.
    pub locale: String,
    /// Twilio's id of the template.
    pub content_sid: String,
    /// Category, if known.
    #[schema(inline)]
    pub category: Option<Category>,
    /// Names of its variables, all of which need a value.
    pub variables: Vec<String>,
}

impl Catalogue {
    /// Creates a catalogue of these templates.
    pub fn of(mut templates: Vec<Template>) -> Catalogue {
        // An administrator's template precedes Twilio's, an approved one the others, and a later one an earlier one.
        templates.sort_by_key(|one| (one.source, one.approval, -one.changed_at_ms));
        let mut catalogue = Catalogue::default();
        for template in templates {
            let place = (template.name.clone(), template.locale.clone());
            catalogue.names.entry(template.content_sid.clone()).or_insert_with(|| place.clone());
            catalogue
                .by_name
                .entry(place.0)
                .or_default()
                .entry(place.1)
                .or_default()
                .push(template);
        }
        catalogue
    }

    /// Returns all templates, by name and language.
    pub fn all(&self) -> impl Iterator<Item = &Template> {
        self.by_name.values().flat_map(BTreeMap::values).flatten()
    }

    /// Returns the templates of a name.
    pub fn of_name(&self, name: &str) -> impl Iterator<Item = &Template> {
        self.by_name.get(name).into_iter().flat_map(BTreeMap::values).flatten()
    }

    /// Returns the template with Twilio's id.
    pub fn of_sid(&self, content_sid: &str) -> Option<&Template> {
        let (name, locale) = self.names.get(content_sid)?;
        let there = self.by_name.get(name)?.get(locale)?;
        there.iter().find(|one| one.content_sid == content_sid)
    }

    /// Returns the template for a name, in that language or its substitutes: the first that may be sent on the channel
    /// at any time. Without one it returns the first, so that the caller gets the reason why it may not be sent.
    pub fn named(&self, name: &str, locale: &Locale, channel: &str) -> Option<&Template> {
        let of_name = self.by_name.get(name)?;
        let chain = locale.chain();
        let found = || chain.iter().filter_map(|locale| of_name.get(locale)).flatten();
        let is_sent = |one: &&Template| one.approval.on(channel) == SendPermission::Template;
        found().find(is_sent).or_else(|| found().next())
    }

    /// Returns the templates that can replace free text on a channel, one for each name, in that language or its
    /// substitutes. Without a language, it prefers the default one and otherwise takes any.
    pub fn offers(&self, locale: Option<&Locale>, channel: &str) -> Vec<OfferedTemplate> {
        let is_sent = |one: &&Template| one.approval.on(channel) == SendPermission::Template;
        let usual = Locale::default_locale();
        let offered = self.by_name.keys().filter_map(|name| {
            let best = self.named(name, locale.unwrap_or(&usual), channel).filter(is_sent);
            match locale {
                None => best.or_else(|| self.of_name(name).find(is_sent)),
                Some(_) => best,
            }
        });
        offered.take(MAX_OFFERED).map(OfferedTemplate::of).collect()
    }
}

impl OfferedTemplate {
    fn of(template: &Template) -> OfferedTemplate {
        OfferedTemplate {
            name: template.name.clone(),
            locale: template.locale.to_string(),
            content_sid: template.content_sid.clone(),
            category: template.category,
            variables: template.variables.iter().cloned().collect(),
        }
    }
}

/// Change of one template.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateChange {
    /// Action: `template.set`, `template.added`, `template.removed`, `template.approval_changed`, `template.changed`.
    pub action: &'static str,
    /// Name and language of the template.
    pub subject: String,
    /// Old and new values.
    pub detail: Value,
    /// Template to store; `None` if it was removed.
    pub now: Option<Template>,
    /// Reference of the stored template.
    pub reference: String,
}

impl TemplateChange {
    /// Describes a template that an administrator sets.
    pub fn set(template: &Template) -> TemplateChange {
        TemplateChange {
            action: "template.set",
            subject: template.subject(),
            detail: template.audit_detail(),
            now: Some(template.clone()),
            reference: template.reference(),
        }
    }

    /// Describes a template of an administrator that is removed.
    pub fn removed(reference: &str) -> TemplateChange {
        TemplateChange {
            action: "template.removed",
            subject: format!("template {reference}"),
            detail: json!({}),
            now: None,
            reference: reference.to_owned(),
        }
    }
}

/// Returns the changes of an account's templates at Twilio; each changed template has one entry for all of its changes.
pub fn changes(was: &[Template], is: &[Template]) -> Vec<TemplateChange> {
    fn of_twilio(list: &[Template]) -> BTreeMap<String, &Template> {
        let theirs = list.iter().filter(|one| one.source == Source::Twilio);
        theirs.map(|one| (one.reference(), one)).collect()
    }
    let (was, is) = (of_twilio(was), of_twilio(is));
    let removed = was.iter().filter(|(reference, _)| !is.contains_key(*reference));
    let removed = removed.map(|(reference, one)| TemplateChange {
        action: "template.removed",
        subject: one.subject(),
        detail: json!({"content_sid": one.content_sid}),
        now: None,
        reference: reference.clone(),
    });
    let others = is.iter().filter_map(|(reference, one)| {
        let (action, detail) = match was.get(reference) {
            None => ("template.added", one.audit_detail()),
            Some(was) => {
                let detail = was.difference(one)?;
                let action = match was.approval == one.approval {
                    true => "template.changed",
                    false => "template.approval_changed",
                };
                (action, detail)
            }
        };
        let (subject, now) = (one.subject(), Some((*one).clone()));
        Some(TemplateChange { action, subject, detail, now, reference: reference.clone() })
    });
    removed.chain(others).collect()
}

impl Template {
    /// Returns the subject of audit entries.
    pub fn subject(&self) -> String {
        format!("template {}/{}", self.name, self.locale)
    }

    /// Returns the audit detail of a new template. Twilio shows its text; the audit log has a digest of it.
    pub fn audit_detail(&self) -> Value {
        json!({
            "content_sid": self.content_sid, "approval": self.approval, "category": self.category,
            "variables": self.variables, "digest": self.digest,
        })
    }

    /// Returns the old and new value of each changed field, or `None` without changes.
    fn difference(&self, now: &Template) -> Option<Value> {
        let mut fields = serde_json::Map::new();
        let mut record = |name: &str, was: Value, is: Value| {
            if was != is {
                fields.insert(name.to_owned(), json!({"was": was, "is": is}));
            }
        };
        record("name", json!(self.name), json!(now.name));
        record("locale", json!(self.locale.as_str()), json!(now.locale.as_str()));
        record("approval", json!(self.approval), json!(now.approval));
        record("reason", json!(self.reason), json!(now.reason));
        record("category", json!(self.category), json!(now.category));
        record("variables", json!(self.variables), json!(now.variables));
        record("has_others", json!(self.has_others), json!(now.has_others));
        record("digest", json!(self.digest), json!(now.digest));
        if fields.is_empty() {
            return None;
        }
        fields.insert("content_sid".to_owned(), json!(self.content_sid));
        Some(Value::Object(fields))
    }
}

/// Template for tests.
#[cfg(test)]
pub fn template(name: &str, locale: &str, approval: super::Approval) -> Template {
    Template {
        source: Source::Twilio,
        content_sid: format!("HX{:0>32}", hex(name, locale)),
        name: name.into(),
        locale: Locale::parse(locale).unwrap(),
        approval,
        reason: String::new(),
        category: Some(Category::Utility),
        variables: ["1".to_owned()].into(),
        text: "Hello {{1}}".into(),
        has_others: false,
        digest: "d".into(),
        changed_at_ms: 1,
    }
}

#[cfg(test)]
fn hex(name: &str, locale: &str) -> String {
    let bytes = name.bytes().chain(locale.bytes());
    format!("{:x}", bytes.fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::Approval, *};

    fn locale(text: &str) -> Locale {
        Locale::parse(text).unwrap()
    }

    #[test]
    fn template_name_selects_the_nearest_permitted_language() {
        use Approval::{Approved, Pending, Rejected};
        let catalogue = Catalogue::of(vec![
            template("a", "pt_BR", Rejected),
            template("a", "pt", Approved),
            template("a", "en_US", Approved),
            template("b", "en", Approved),
            template("b", "de", Pending),
            template("c", "de", Approved),
            template("d", "en_US", Pending),
        ]);
        let found = |name, wanted, channel| {
            let found = catalogue.named(name, &locale(wanted), channel);
            found.map(|one| (one.locale.to_string(), one.approval))
        };
        let some = |locale: &str, approval| Some((locale.to_owned(), approval));
        assert_eq!(found("a", "pt_BR", "whatsapp"), some("pt", Approved));
        assert_eq!(
            found("a", "pt_BR", "sms"),
            some("pt_BR", Rejected),
            "other channels need no approval"
        );
        assert_eq!(found("a", "fr", "whatsapp"), some("en_US", Approved));
        assert_eq!(found("b", "de_AT", "whatsapp"), some("en", Approved));
        assert_eq!(found("c", "fr", "whatsapp"), None, "no other language does instead");
        assert_eq!(found("d", "en_US", "whatsapp"), some("en_US", Pending), "to tell why not");
        assert_eq!(found("e", "en_US", "whatsapp"), None);
        let offered = |wanted: Option<&str>| {
            let offers = catalogue.offers(wanted.map(locale).as_ref(), "whatsapp");
            offers.iter().map(|one| format!("{} {}", one.name, one.locale)).collect::<Vec<_>>()
        };
        assert_eq!(offered(None), ["a en_US", "b en", "c de"]);
        assert_eq!(offered(Some("pt_BR")), ["a pt", "b en"]);
    }

    #[test]
    fn template_of_an_administrator_takes_precedence() {
        let theirs = template("a", "en_US", Approval::Rejected);
        let ours = Template {
            source: Source::Administrator,
            approval: Approval::Approved,
            variables: ["1".to_owned(), "2".to_owned()].into(),
            ..theirs.clone()
        };
        let catalogue = Catalogue::of(vec![theirs, ours.clone()]);
        assert_eq!(catalogue.of_sid(&ours.content_sid), Some(&ours));
        assert_eq!(catalogue.named("a", &locale("en_US"), "whatsapp"), Some(&ours));
    }

    #[test]
    fn template_changes_are_reported() {
        let one = template("a", "en", Approval::Pending);
        let approved = Template { approval: Approval::Approved, changed_at_ms: 9, ..one.clone() };
        let later = Template { changed_at_ms: 9, ..one.clone() };
        let text = Template { digest: "e".into(), ..one.clone() };
        let actions = |was: &[Template], is: &[Template]| {
            let changes = changes(was, is);
            changes.iter().map(|change| change.action).collect::<Vec<_>>()
        };
        let one = [one];
        assert_eq!(actions(&[], &one), ["template.added"]);
        assert_eq!(actions(&one, &[]), ["template.removed"]);
        assert_eq!(actions(&one, &[approved]), ["template.approval_changed"]);
        assert_eq!(actions(&one, &[text]), ["template.changed"]);
        assert_eq!(actions(&one, &[later]), [""; 0], "that it was read again is no change");
    }

    proptest! {
        /// Property: applying the changes to the old templates gives the new ones.
        #[test]
        fn changes_lead_from_one_to_the_other(
            was in prop::collection::btree_map("[ab]", 0..6_usize, 0..3),
            is in prop::collection::btree_map("[ab]", 0..6_usize, 0..3),
        ) {
            let list = |of: &BTreeMap<String, usize>| -> Vec<Template> {
                of.iter().map(|(name, n)| template(name, "en", Approval::ALL[*n])).collect()
            };
            let (was, is) = (list(&was), list(&is));
            let mut kept: BTreeMap<String, Template> =
                was.iter().map(|one| (one.reference(), one.clone())).collect();
            for change in changes(&was, &is) {
                match change.now {
                    Some(now) => kept.insert(change.reference, now),
                    None => kept.remove(&change.reference),
                };
            }
            let mut is = is;
            is.sort_by_key(Template::reference);
            prop_assert_eq!(kept.into_values().collect::<Vec<_>>(), is);
        }
    }
}
