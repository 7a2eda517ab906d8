//! Media of messages: checks whether Twilio could fetch them and would accept them, with limits on concurrency, and a
//! cache of results. The domain decides which addresses are public and which media a channel accepts. This module does
//! not know who asks for a check, or its effect on the message.

pub mod library;
pub mod probe;
pub mod resolver;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use reqwest::Url;

use self::{library::Library, resolver::Lookup};
use crate::outbound::media::probe::MediaProbe;
use twilio_edge_domain::media::{
    self, MediaCheck, MediaProblem, MediaProblemKind, limits::FetchedMedia, link,
    url_policy::UrlPolicy,
};
use twilio_edge_platform::{config, metrics::Metrics};

/// Reference to a medium in a message.
enum Named<'a> {
    /// A URL.
    At(Url),
    /// The id of a medium that was uploaded to us.
    Kept(&'a str),
}

/// Checks media.
#[derive(Clone)]
pub struct Media {
    settings: Arc<config::Media>,
    places: Arc<UrlPolicy>,
    /// `None` if `media.check` is off.
    looker: Option<Arc<MediaProbe>>,
    /// `None` if no media store is configured.
    library: Option<Library>,
}

impl Media {
    /// Creates the checker with the system's name resolution. Returns an error if a setting is wrong.
    pub fn open(
        settings: &config::Media,
        patience: Duration,
        metrics: &Arc<Metrics>,
    ) -> Result<Media, String> {
        Media::with(settings, patience, metrics, Arc::new(resolver::System))
    }

    /// Creates the checker with `lookup` for name resolution. `patience` is the upper bound of the time limit of a
    /// check.
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
                "media.trust_addresses permitted media from private addresses; use it for development only"
            );
        }
        let limit = Duration::from_millis(settings.timeout_ms).min(patience);
        let looker = match settings.check {
            true => Some(Arc::new(MediaProbe::new(settings, limit, &places, metrics, lookup)?)),
            false => None,
        };
        Ok(Media { settings: Arc::new(settings.clone()), places, looker, library: None })
    }

    /// Adds the store of uploaded media.
    pub fn keeping(self, library: Option<Library>) -> Media {
        Media { library, ..self }
    }

    /// Returns the store of uploaded media, if there is one.
    pub fn library(&self) -> Option<&Library> {
        self.library.as_ref()
    }

    /// Checks the number of media and the spelling of their references, without any request.
    pub fn spelled(&self, channel: &str, media: &[String]) -> MediaCheck {
        match self.read(channel, media) {
            Err((n, unfit)) => MediaCheck::Invalid(n, unfit),
            Ok(named) if named.is_empty() => MediaCheck::NoMedia,
            Ok(_) => MediaCheck::NotFetched("something else speaks against the message"),
        }
    }

    /// Checks the media of a message on this channel; uses cached results.
    pub async fn look(&self, account_sid: &str, channel: &str, media: &[String]) -> MediaCheck {
        let named = match self.read(channel, media) {
            Ok(named) if named.is_empty() => return MediaCheck::NoMedia,
            Ok(named) => named,
            Err((n, unfit)) => return MediaCheck::Invalid(n, unfit),
        };
        let limits = self.settings.of(channel);
        let looks = named.iter().map(|one| self.look_at(account_sid, one, limits.largest()));
        let mut found: Vec<FetchedMedia> = Vec::new();
        let mut all_seen = true;
        for (n, looked) in join_all(looks).await.into_iter().enumerate() {
            match looked {
                Ok(Some(one)) => found.push(one),
                Ok(None) => all_seen = false,
                Err(unfit) => return MediaCheck::Invalid(n, unfit),
            }
        }
        match limits.check(&found) {
            Ok(()) if all_seen => MediaCheck::Valid,
            Ok(()) => MediaCheck::NotFetched("media.check is off"),
            Err((n, unfit)) => MediaCheck::Invalid(n, unfit),
        }
    }

    /// Checks one medium, as far as the settings permit.
    async fn look_at(
        &self,
        account_sid: &str,
        one: &Named<'_>,
        most: u64,
    ) -> Result<Option<FetchedMedia>, MediaProblem> {
        match (one, &self.looker, &self.library) {
            (Named::At(url), Some(looker), _) => {
                looker.look(account_sid, url, most).await.map(Some)
            }
            (Named::At(_), None, _) => Ok(None),
            (Named::Kept(id), _, Some(library)) => library.found(id, account_sid).await.map(Some),
            (Named::Kept(_), _, None) => Err(nothing_kept()),
        }
    }

    /// Replaces references to uploaded media by links that are signed now. Returns the form for Twilio.
    ///
    /// # Errors
    /// Returns an error if a medium is missing, or its link cannot be made now.
    pub async fn presented(&self, account_sid: &str, form: &str) -> Result<String, MediaProblem> {
        let mut links = Vec::new();
        for name in media::media_of_form(form) {
            let Some(id) = media::referenced_id(&name) else { continue };
            let library = self.library.as_ref().ok_or_else(nothing_kept)?;
            let link = library.presented(id, account_sid).await?;
            links.push((name, link));
        }
        match links.is_empty() {
            true => Ok(form.to_owned()),
            false => Ok(media::with_renamed_media(form, &links)),
        }
    }

    /// Returns whether a check of this age, in milliseconds, must be repeated.
    pub fn is_stale(&self, age_ms: i64) -> bool {
        let remembered = i64::try_from(self.settings.remember_s).unwrap_or(i64::MAX);
        self.looker.is_some() && age_ms > remembered.saturating_mul(1000)
    }

    fn read<'a>(
        &self,
        channel: &str,
        media: &'a [String],
    ) -> Result<Vec<Named<'a>>, (usize, MediaProblem)> {
        let limits = self.settings.of(channel);
        limits.check_count(media.len()).map_err(|unfit| (limits.count, unfit))?;
        let read = |(n, text): (usize, &'a String)| match media::referenced_id(text) {
            Some(_) if self.library.is_none() => Err((n, nothing_kept())),
            Some(id) if link::is_id(id) => Ok(Named::Kept(id)),
            Some(_) => Err((
                n,
                MediaProblem::new(MediaProblemKind::Missing, "is no id of ours: md_ and 32 digits"),
            )),
            None => self.places.read(text).map(Named::At).map_err(|unfit| (n, unfit)),
        };
        media.iter().enumerate().map(read).collect()
    }
}

fn nothing_kept() -> MediaProblem {
    MediaProblem::new(
        MediaProblemKind::Missing,
        "is kept nowhere: the operator sets media.store.url",
    )
}
