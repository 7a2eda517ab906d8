//! Search for a request, close to the one that arrived, that has the signature that arrived.
//!
//! Decides: the order in which variants are tried, and when to stop. A match is proof, not a guess: another request with the
//! same HMAC cannot be constructed. The variants are in `url_changes.rs` and `body_changes.rs`.

use std::collections::HashSet;
use std::ops::ControlFlow;

use form_urlencoded::Serializer;
use twilio_edge_filter::form::Form;
use twilio_edge_filter::signature::{Key, Payload, candidate_urls, sign};

use crate::body_changes::{self, Signed};
use crate::captured::Captured;
use crate::change::Change;
use crate::url::{Clues, Url};
use crate::url_changes;

/// Limits of one search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchLimits {
    /// Largest number of computed signatures.
    pub signatures: usize,
    /// Largest number of signed bytes, which limits the time if the body is long.
    pub bytes: usize,
}

impl SearchLimits {
    /// Limits of a person who waits for the result: a few seconds of one core.
    pub const INTERACTIVE: SearchLimits = SearchLimits { signatures: 400_000, bytes: 256 << 20 };
    /// Limits of a background task: some tens of milliseconds of one core.
    pub const BACKGROUND: SearchLimits = SearchLimits { signatures: 12_000, bytes: 12 << 20 };
}

/// Largest number of bytes of URLs in memory.
const MAX_URL_BYTES: usize = 16 << 20;

/// Key that may have signed.
pub(crate) struct Suspect {
    /// Printable label.
    pub(crate) label: String,
    pub(crate) key: Key,
    /// Change of the token, if this is not the given one.
    pub(crate) change: Option<Change>,
}

/// Text that the signature may have been.
pub(crate) struct Claim {
    pub(crate) text: String,
    pub(crate) fit: Fit,
    /// Change of the header, if this is not its value.
    pub(crate) change: Option<Change>,
}

/// Precision of the comparison with the claimed signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    Exact,
    /// Letters may have lost their case: a coincidence is still excluded.
    AnyCase,
    /// The end may be missing: 16 characters are 96 bits.
    Beginning,
}

/// Request that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Differences from the request that arrived, outermost first; empty if there are none.
    pub(crate) changes: Vec<Change>,
    /// Label of the key.
    pub(crate) key: String,
    /// URL, exactly as signed.
    pub(crate) url: String,
}

/// Result of the search.
pub(crate) struct Outcome {
    pub(crate) found: Option<Found>,
    /// Number of computed signatures.
    pub(crate) tried: usize,
    /// True if all variants were tried.
    pub(crate) complete: bool,
}

/// Bounded search.
pub(crate) struct Search<'a> {
    suspects: &'a [Suspect],
    claims: &'a [Claim],
    tried: usize,
    bytes: usize,
    left_out: bool,
    limits: SearchLimits,
}

/// URL and the changes that lead to it.
type Reached = (Vec<Change>, Url);

impl<'a> Search<'a> {
    pub(crate) fn new(suspects: &'a [Suspect], claims: &'a [Claim], limits: SearchLimits) -> Self {
        Self { suspects, claims, tried: 0, bytes: 0, left_out: false, limits }
    }

    /// Searches from the request itself outwards, so that variants with the fewest changes come first. `urls` are the URLs
    /// that Twilio may have called according to the configuration.
    pub(crate) fn run(mut self, request: &Captured, urls: &[String], clues: &Clues) -> Outcome {
        let found = self.find(request, urls, clues);
        Outcome { found, tried: self.tried, complete: !self.is_over() && !self.left_out }
    }

    fn find(&mut self, request: &Captured, urls: &[String], clues: &Clues) -> Option<Found> {
        let origins: Vec<Reached> =
            urls.iter().filter_map(|url| Some((Vec::new(), Url::parse(url)?))).collect();
        let received = body_changes::received(request)?;
        if let Some(found) = self.among(&origins, &[], &received) {
            return Some(found);
        }
        let near = self.spread(&origins, clues);
        if let Some(found) = self.among(&near, &[], &received) {
            return Some(found);
        }
        for (change, url, signed) in
            origins.iter().flat_map(|(_, url)| body_changes::moved(url, request))
        {
            if let Some(found) = self.among(&[(Vec::new(), url)], &[change], &signed) {
                return Some(found);
            }
        }
        if let Some(found) = self.among_contents(&origins, request) {
            return Some(found);
        }
        let far = self.spread(&near, clues);
        if let Some(found) = self.among(&far, &[], &received) {
            return Some(found);
        }
        if let Some(found) = self.among_contents(&near, request) {
            return Some(found);
        }
        let any_port = origins.iter().flat_map(|(_, url)| url_changes::any_port(url));
        let any_port: Vec<Reached> = any_port.map(|(change, url)| (vec![change], url)).collect();
        self.among(&any_port, &[], &received)
    }

    /// Tries these URLs, each with all contents close to the received one.
    fn among_contents(&mut self, urls: &[Reached], request: &Captured) -> Option<Found> {
        let ended = body_changes::variants(request, &mut |change, signed| match self.among(
            urls,
            &[change],
            &signed,
        ) {
            Some(found) => ControlFlow::Break(Some(found)),
            None if self.is_over() => ControlFlow::Break(None),
            None => ControlFlow::Continue(()),
        });
        ended.break_value().flatten()
    }

    fn is_over(&self) -> bool {
        self.tried >= self.limits.signatures || self.bytes >= self.limits.bytes
    }

    fn among(&mut self, urls: &[Reached], changes: &[Change], signed: &Signed) -> Option<Found> {
        let encoded = match signed {
            Signed::Nothing => String::new(),
            Signed::Parameters(pairs) => {
                Serializer::new(String::new()).extend_pairs(pairs).finish()
            }
        };
        let form = Form::parse(encoded.as_bytes()).ok()?;
        let payload = match signed {
            Signed::Nothing => Payload::Empty,
            Signed::Parameters(_) => Payload::Form(&form),
        };
        let mut before = String::new();
        for (url_changes, url) in urls {
            let [without_port, with_port] = candidate_urls(&url.to_string());
            // Among neighbours that differ only in their port, this value is the same.
            let without_port = (without_port != before).then_some(without_port);
            before = without_port.clone().unwrap_or(before);
            for candidate in without_port.into_iter().chain([with_port]) {
                for suspect in self.suspects {
                    if self.is_over() {
                        return None;
                    }
                    self.tried += 1;
                    self.bytes += candidate.len() + encoded.len();
                    let computed = sign(&candidate, payload, &suspect.key);
                    if let Some(claim) = self.claims.iter().find(|claim| claim.fits(&computed)) {
                        let changes = url_changes
                            .iter()
                            .chain(changes)
                            .chain(&suspect.change)
                            .chain(&claim.change);
                        return Some(Found {
                            changes: changes.cloned().collect(),
                            key: suspect.label.clone(),
                            url: candidate,
                        });
                    }
                }
            }
        }
        None
    }

    /// Returns the URLs one change apart from these, each once.
    fn spread(&mut self, from: &[Reached], clues: &Clues) -> Vec<Reached> {
        let mut seen: HashSet<String> = from.iter().map(|(_, url)| url.to_string()).collect();
        let mut all = Vec::new();
        let mut bytes = 0;
        for (changes, url) in from {
            for (change, variant) in url_changes::variants(url, clues) {
                if bytes >= MAX_URL_BYTES {
                    self.left_out = true;
                    return all;
                }
                // Two changes of one kind cancel each other, or describe one change badly.
                let is_new_kind = changes.iter().all(|before| before.what != change.what);
                let text = variant.to_string();
                if is_new_kind && !seen.contains(&text) {
                    bytes += 2 * text.len();
                    seen.insert(text);
                    all.push((changes.iter().cloned().chain([change]).collect(), variant));
                }
            }
        }
        all
    }
}

impl Claim {
    fn fits(&self, computed: &str) -> bool {
        match self.fit {
            Fit::Exact => self.text == computed,
            Fit::AnyCase => self.text.eq_ignore_ascii_case(computed),
            Fit::Beginning => self.text.len() >= 16 && computed.starts_with(&self.text),
        }
    }
}
