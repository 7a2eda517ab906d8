//! Media of messages: checks whether Twilio could fetch them and would accept them, with limits on concurrency, and a
//! cache of results. The domain decides which addresses are public and which media a channel accepts. This module does
//! not know the caller that requests a check, or its effect on the message.

pub mod library;
pub mod probe;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use reqwest::Url;

use self::library::Library;
use crate::outbound::media::probe::MediaProbe;
use twilio_edge_connectors::public_resolver::{self, Lookup};
use twilio_edge_domain::media::{
    self, MediaCheck, MediaProblem, MediaProblemKind, limits::FetchedMedia, link,
    url_policy::UrlPolicy,
};
use twilio_edge_platform::{config, metrics::Metrics};

/// Reference to a medium in a message.
enum MediaReference<'a> {
    /// A URL.
    Url(Url),
    /// The id of a medium that was uploaded to us.
    Uploaded(&'a str),
}

/// Checks media.
#[derive(Clone)]
pub struct Media {
    settings: Arc<config::Media>,
    places: Arc<UrlPolicy>,
    /// `None` if `media.check` is off.
    probe: Option<Arc<MediaProbe>>,
    /// `None` if no media store is configured.
    library: Option<Library>,
}

impl Media {
    /// Creates the checker with the system's name resolution. Returns an error if a setting is wrong.
    pub fn open(
        settings: &config::Media,
        max_time: Duration,
        metrics: &Arc<Metrics>,
    ) -> Result<Media, String> {
        Media::with(settings, max_time, metrics, Arc::new(public_resolver::System))
    }

    /// Creates the checker with `lookup` for name resolution. `max_time` is the upper bound of the time limit of a
    /// check.
    pub fn with(
        settings: &config::Media,
        max_time: Duration,
        metrics: &Arc<Metrics>,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Media, String> {
        let places = Arc::new(settings.places()?);
        if places.trusts_any() {
            tracing::warn!(
                event = "media.private_addresses_allowed",
                addresses = settings.trust_addresses.join(", "),
                "media.trust_addresses permitted media from private addresses; use it for development only"
            );
        }
        let limit = Duration::from_millis(settings.timeout_ms).min(max_time);
        let probe = match settings.check {
            true => Some(Arc::new(MediaProbe::new(settings, limit, &places, metrics, lookup)?)),
            false => None,
        };
        Ok(Media { settings: Arc::new(settings.clone()), places, probe, library: None })
    }

    /// Adds the store of uploaded media.
    pub fn with_library(self, library: Option<Library>) -> Media {
        Media { library, ..self }
    }

    /// Returns the store of uploaded media, if there is one.
    pub fn library(&self) -> Option<&Library> {
        self.library.as_ref()
    }

    /// Checks the number of media and the spelling of their references, without any request.
    pub fn check_spelling(&self, channel: &str, media: &[String]) -> MediaCheck {
        match self.read(channel, media) {
            Err((n, unfit)) => MediaCheck::Invalid(n, unfit),
            Ok(named) if named.is_empty() => MediaCheck::NoMedia,
            Ok(_) => MediaCheck::NotFetched("something else speaks against the message"),
        }
    }

    /// Checks the media of a message on this channel; uses cached results.
    pub async fn check(&self, account_sid: &str, channel: &str, media: &[String]) -> MediaCheck {
        let named = match self.read(channel, media) {
            Ok(named) if named.is_empty() => return MediaCheck::NoMedia,
            Ok(named) => named,
            Err((n, unfit)) => return MediaCheck::Invalid(n, unfit),
        };
        let limits = self.settings.of(channel);
        let checks = named.iter().map(|one| self.check_one(account_sid, one, limits.largest()));
        let mut found: Vec<FetchedMedia> = Vec::new();
        let mut are_all_checked = true;
        for (n, checked) in join_all(checks).await.into_iter().enumerate() {
            match checked {
                Ok(Some(one)) => found.push(one),
                Ok(None) => are_all_checked = false,
                Err(unfit) => return MediaCheck::Invalid(n, unfit),
            }
        }
        match limits.check(&found) {
            Ok(()) if are_all_checked => MediaCheck::Valid,
            Ok(()) => MediaCheck::NotFetched("media.check is off"),
            Err((n, unfit)) => MediaCheck::Invalid(n, unfit),
        }
    }

    /// Checks one medium, as far as the settings permit.
    async fn check_one(
        &self,
        account_sid: &str,
        one: &MediaReference<'_>,
        max_bytes: u64,
    ) -> Result<Option<FetchedMedia>, MediaProblem> {
        match (one, &self.probe, &self.library) {
            (MediaReference::Url(url), Some(probe), _) => {
                probe.check(account_sid, url, max_bytes).await.map(Some)
            }
            (MediaReference::Url(_), None, _) => Ok(None),
            (MediaReference::Uploaded(id), _, Some(library)) => {
                library.describe(id, account_sid).await.map(Some)
            }
            (MediaReference::Uploaded(_), _, None) => Err(no_store()),
        }
    }

    /// Replaces references to uploaded media by links that are signed now. Returns the form for Twilio.
    ///
    /// # Errors
    /// Returns an error if a medium is missing, or its link cannot be made now.
    pub async fn with_links(&self, account_sid: &str, form: &str) -> Result<String, MediaProblem> {
        let mut links = Vec::new();
        for name in media::media_of_form(form) {
            let Some(id) = media::referenced_id(&name) else { continue };
            let library = self.library.as_ref().ok_or_else(no_store)?;
            let link = library.signed_url(id, account_sid).await?;
            links.push((name, link));
        }
        match links.is_empty() {
            true => Ok(form.to_owned()),
            false => Ok(media::with_renamed_media(form, &links)),
        }
    }

    /// Returns whether a check of this age, in milliseconds, must be repeated.
    pub fn is_stale(&self, age_ms: i64) -> bool {
        let cache_s = i64::try_from(self.settings.remember_s).unwrap_or(i64::MAX);
        self.probe.is_some() && age_ms > cache_s.saturating_mul(1000)
    }

    fn read<'a>(
        &self,
        channel: &str,
        media: &'a [String],
    ) -> Result<Vec<MediaReference<'a>>, (usize, MediaProblem)> {
        let limits = self.settings.of(channel);
        limits.check_count(media.len()).map_err(|unfit| (limits.count, unfit))?;
        let read = |(n, text): (usize, &'a String)| match media::referenced_id(text) {
            Some(_) if self.library.is_none() => Err((n, no_store())),
            Some(id) if link::is_id(id) => Ok(MediaReference::Uploaded(id)),
            Some(_) => Err((
                n,
                MediaProblem::new(
                    MediaProblemKind::Missing,
                    "must be md_ and 32 hexadecimal digits",
                ),
            )),
            None => self.places.read(text).map(MediaReference::Url).map_err(|unfit| (n, unfit)),
        };
        media.iter().enumerate().map(read).collect()
    }
}

fn no_store() -> MediaProblem {
    MediaProblem::new(
        MediaProblemKind::Missing,
        "no media store is configured: the operator has to set media.store.url",
    )
}
