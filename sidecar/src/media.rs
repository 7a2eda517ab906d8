//! Media of messages, at work: what is fetched to see whether Twilio could fetch and would take it, how much at a time, and for how
//! long that is remembered. What is public and what a channel takes is the domain's to say; who asks and what becomes of the
//! message, `sending.rs` and `senders.rs`.

pub mod looker;
pub mod resolver;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use reqwest::Url;

use self::{looker::Looker, resolver::Lookup};
use crate::{
    config,
    domain::media::{Looked, Unfit, fitness::Found, place::Places},
    metrics::Metrics,
};

/// Looks at media.
#[derive(Clone)]
pub struct Media {
    settings: Arc<config::Media>,
    places: Arc<Places>,
    /// None where nothing is fetched.
    looker: Option<Arc<Looker>>,
}

impl Media {
    /// With the system's names; or what is wrong with the settings.
    pub fn open(
        settings: &config::Media,
        patience: Duration,
        metrics: &Arc<Metrics>,
    ) -> Result<Media, String> {
        Media::with(settings, patience, metrics, Arc::new(resolver::System))
    }

    /// With names that `lookup` knows. Nothing takes longer than `patience`.
    pub fn with(
        settings: &config::Media,
        patience: Duration,
        metrics: &Arc<Metrics>,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Media, String> {
        let places = Arc::new(settings.places()?);
        if places.trusts_any() {
            tracing::warn!(
                event = "media.trusting",
                addresses = settings.trust_addresses.join(", "),
                "media.trust_addresses lets media be fetched from inside: for development only"
            );
        }
        let limit = Duration::from_millis(settings.timeout_ms).min(patience);
        let looker = match settings.check {
            true => Some(Arc::new(Looker::new(settings, limit, &places, metrics, lookup)?)),
            false => None,
        };
        Ok(Media { settings: Arc::new(settings.clone()), places, looker })
    }

    /// What their spelling alone says of media of a message on this channel.
    pub fn spelled(&self, channel: &str, media: &[String]) -> Looked {
        match self.read(channel, media) {
            Err((n, unfit)) => Looked::Unfit(n, unfit),
            Ok(urls) if urls.is_empty() => Looked::Nothing,
            Ok(_) if self.looker.is_none() => Looked::Unseen("media.check is off"),
            Ok(_) => Looked::Unseen("something else speaks against the message"),
        }
    }

    /// Looks at the media of a message on this channel, or knows them from a moment ago.
    pub async fn look(&self, account_sid: &str, channel: &str, media: &[String]) -> Looked {
        let (urls, looker) = match (self.read(channel, media), &self.looker) {
            (Ok(urls), Some(looker)) if !urls.is_empty() => (urls, looker),
            _ => return self.spelled(channel, media),
        };
        let limits = self.settings.of(channel);
        let looks = urls.iter().map(|url| looker.look(account_sid, url, limits.largest()));
        let mut found: Vec<Found> = Vec::new();
        for (n, looked) in join_all(looks).await.into_iter().enumerate() {
            match looked {
                Ok(one) => found.push(one),
                Err(unfit) => return Looked::Unfit(n, unfit),
            }
        }
        match limits.fit(&found) {
            Ok(()) => Looked::Fit,
            Err((n, unfit)) => Looked::Unfit(n, unfit),
        }
    }

    /// Whether what was seen so long ago has to be looked at again.
    pub fn is_stale(&self, age_ms: i64) -> bool {
        let remembered = i64::try_from(self.settings.remember_s).unwrap_or(i64::MAX);
        self.looker.is_some() && age_ms > remembered.saturating_mul(1000)
    }

    fn read(&self, channel: &str, media: &[String]) -> Result<Vec<Url>, (usize, Unfit)> {
        let limits = self.settings.of(channel);
        limits.counted(media.len()).map_err(|unfit| (limits.count, unfit))?;
        let read = |(n, text): (usize, &String)| self.places.read(text).map_err(|unfit| (n, unfit));
        media.iter().enumerate().map(read).collect()
    }
}
