//! Media of messages, at work: what is fetched to see whether Twilio could fetch and would take it, how much at a time, and for how
//! long that is remembered. What is public and what a channel takes is the domain's to say; who asks and what becomes of the
//! message, `sending.rs` and `senders.rs`.

pub mod library;
pub mod probe;
pub mod resolver;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use reqwest::Url;

use self::{library::Library, resolver::Lookup};
use crate::outbound::media::probe::MediaProbe;
use twilio_edge_domain::media::{self, Looked, Unfit, Why, fitness::Found, link, place::Places};
use twilio_edge_platform::{config, metrics::Metrics};

/// How a message names one.
enum Named<'a> {
    /// By its URL.
    At(Url),
    /// By the id of what is kept here.
    Kept(&'a str),
}

/// Looks at media.
#[derive(Clone)]
pub struct Media {
    settings: Arc<config::Media>,
    places: Arc<Places>,
    /// None where nothing is fetched.
    looker: Option<Arc<MediaProbe>>,
    /// None where nothing is kept.
    library: Option<Library>,
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
            true => Some(Arc::new(MediaProbe::new(settings, limit, &places, metrics, lookup)?)),
            false => None,
        };
        Ok(Media { settings: Arc::new(settings.clone()), places, looker, library: None })
    }

    /// With what is kept here.
    pub fn keeping(self, library: Option<Library>) -> Media {
        Media { library, ..self }
    }

    /// What is kept here, if anything is.
    pub fn library(&self) -> Option<&Library> {
        self.library.as_ref()
    }

    /// What their spelling alone says of media of a message on this channel.
    pub fn spelled(&self, channel: &str, media: &[String]) -> Looked {
        match self.read(channel, media) {
            Err((n, unfit)) => Looked::Unfit(n, unfit),
            Ok(named) if named.is_empty() => Looked::Nothing,
            Ok(_) => Looked::Unseen("something else speaks against the message"),
        }
    }

    /// Looks at the media of a message on this channel, or knows them from a moment ago.
    pub async fn look(&self, account_sid: &str, channel: &str, media: &[String]) -> Looked {
        let named = match self.read(channel, media) {
            Ok(named) if named.is_empty() => return Looked::Nothing,
            Ok(named) => named,
            Err((n, unfit)) => return Looked::Unfit(n, unfit),
        };
        let limits = self.settings.of(channel);
        let looks = named.iter().map(|one| self.look_at(account_sid, one, limits.largest()));
        let mut found: Vec<Found> = Vec::new();
        let mut all_seen = true;
        for (n, looked) in join_all(looks).await.into_iter().enumerate() {
            match looked {
                Ok(Some(one)) => found.push(one),
                Ok(None) => all_seen = false,
                Err(unfit) => return Looked::Unfit(n, unfit),
            }
        }
        match limits.fit(&found) {
            Ok(()) if all_seen => Looked::Fit,
            Ok(()) => Looked::Unseen("media.check is off"),
            Err((n, unfit)) => Looked::Unfit(n, unfit),
        }
    }

    /// What one is, as far as anybody looks.
    async fn look_at(
        &self,
        account_sid: &str,
        one: &Named<'_>,
        most: u64,
    ) -> Result<Option<Found>, Unfit> {
        match (one, &self.looker, &self.library) {
            (Named::At(url), Some(looker), _) => {
                looker.look(account_sid, url, most).await.map(Some)
            }
            (Named::At(_), None, _) => Ok(None),
            (Named::Kept(id), _, Some(library)) => library.found(id, account_sid).await.map(Some),
            (Named::Kept(_), _, None) => Err(nothing_kept()),
        }
    }

    /// The form of a message of this account as Twilio is told it: what is kept here has a link that is made now.
    pub async fn presented(&self, account_sid: &str, form: &str) -> Result<String, Unfit> {
        let mut links = Vec::new();
        for name in media::of_form(form) {
            let Some(id) = media::id_of(&name) else { continue };
            let library = self.library.as_ref().ok_or_else(nothing_kept)?;
            let link = library.presented(id, account_sid).await?;
            links.push((name, link));
        }
        match links.is_empty() {
            true => Ok(form.to_owned()),
            false => Ok(media::renamed(form, &links)),
        }
    }

    /// Whether what was seen so long ago has to be looked at again.
    pub fn is_stale(&self, age_ms: i64) -> bool {
        let remembered = i64::try_from(self.settings.remember_s).unwrap_or(i64::MAX);
        self.looker.is_some() && age_ms > remembered.saturating_mul(1000)
    }

    fn read<'a>(
        &self,
        channel: &str,
        media: &'a [String],
    ) -> Result<Vec<Named<'a>>, (usize, Unfit)> {
        let limits = self.settings.of(channel);
        limits.counted(media.len()).map_err(|unfit| (limits.count, unfit))?;
        let read = |(n, text): (usize, &'a String)| match media::id_of(text) {
            Some(_) if self.library.is_none() => Err((n, nothing_kept())),
            Some(id) if link::is_id(id) => Ok(Named::Kept(id)),
            Some(_) => Err((n, Unfit::new(Why::Missing, "is no id of ours: md_ and 32 digits"))),
            None => self.places.read(text).map(Named::At).map_err(|unfit| (n, unfit)),
        };
        media.iter().enumerate().map(read).collect()
    }
}

fn nothing_kept() -> Unfit {
    Unfit::new(Why::Missing, "is kept nowhere: the operator sets media.store.url")
}
