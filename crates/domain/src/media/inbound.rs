//! Media of inbound messages that the sidecar fetches from Twilio: which media a webhook names, their ids and links,
//! and what follows a failed fetch. Pure. Fetching and storing are the caller's tasks.

use std::fmt;

use twilio_edge_contract::MediaLink;
use url::Url;

use super::{limits, link};
use crate::{actor::Actor, dropin::request::is_sid};

/// Maximum number of media of one message.
const MAX_ITEMS: u32 = 10;

/// Content type of a medium whose declared type is missing or invalid.
pub const UNKNOWN_TYPE: &str = "application/octet-stream";

/// Parameter of a form that has media, as it is in the form.
const FIRST_MEDIUM: &str = "MediaUrl0=";

/// Time during which Twilio may not have a medium yet that its webhook names, in milliseconds.
const NOT_YET_MS: i64 = 300_000;

/// Pause after the first failed fetch, in milliseconds. Each further pause is twice as long.
const FIRST_PAUSE_MS: i64 = 1_000;

/// Longest pause between two fetches, in milliseconds.
const LONGEST_PAUSE_MS: i64 = 600_000;

/// Time after an arrival during which the webhook may not be in the ledger yet, in milliseconds.
const UNRECORDED_MS: i64 = 600_000;

/// Medium that a webhook names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundItem {
    /// Our id: `mi_..`.
    pub id: String,
    /// Position in the message, from 0.
    pub position: u32,
    /// SID of the medium at Twilio: `ME..`; empty if its URL is not one of Twilio's API.
    pub media_sid: String,
    /// Content type that Twilio declared.
    pub content_type: String,
}

/// Returns whether a form names media. The test costs one search in the text.
pub fn has_media(form: &str) -> bool {
    form.contains(FIRST_MEDIUM)
}

/// Returns the media of an inbound message, in order. Copies of a webhook have the same ids.
pub fn items(form: &str, account_sid: &str, message_sid: &str) -> Vec<InboundItem> {
    if !has_media(form) {
        return Vec::new();
    }
    let value = |name: String| {
        let mut pairs = form_urlencoded::parse(form.as_bytes());
        pairs.find(|(have, _)| *have == name).map(|(_, value)| value)
    };
    let item = |position: u32| {
        let url = value(format!("MediaUrl{position}")).filter(|url| !url.is_empty())?;
        let media_sid = media_sid(&url, account_sid, message_sid).unwrap_or_default();
        let declared = value(format!("MediaContentType{position}")).unwrap_or_default();
        let content_type = limits::content_type(&declared);
        let key = if media_sid.is_empty() { position.to_string() } else { media_sid.clone() };
        Some(InboundItem {
            id: link::inbound_id(&[account_sid, message_sid, &key]),
            position,
            media_sid,
            content_type: content_type.unwrap_or_else(|| UNKNOWN_TYPE.to_owned()),
        })
    };
    (0..MAX_ITEMS).filter_map(item).collect()
}

/// Returns the SID of a medium if the URL is that of a medium of this message in Twilio's API. Its host is not relevant,
/// because the sidecar requests media only from its own `sending.base_url`.
fn media_sid(url: &str, account_sid: &str, message_sid: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let folder = format!("/2010-04-01/Accounts/{account_sid}/Messages/{message_sid}/Media/");
    let sid = url.path().strip_prefix(&folder)?;
    (matches!(url.scheme(), "https" | "http") && is_sid(sid, "ME")).then(|| sid.to_owned())
}

/// Creates the links to media of inbound messages. A link is the same in every event of a message, and is valid before
/// the medium is stored.
#[derive(Clone)]
pub struct MediaLinks {
    /// Public URL of the media listener, without a slash at its end.
    pub base_url: String,
    /// Key that signs links.
    pub key: String,
    /// Time for which media are stored after their arrival, in milliseconds.
    pub keep_ms: i64,
}

impl fmt::Debug for MediaLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MediaLinks").field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

impl MediaLinks {
    /// Returns the links to the media of a message, in order.
    pub fn of(
        &self,
        form: &str,
        account_sid: &str,
        message_sid: &str,
        received_at_ms: i64,
    ) -> Vec<MediaLink> {
        let items = items(form, account_sid, message_sid).into_iter();
        let links = items.map(|item| MediaLink {
            url: self.url(&item.id, received_at_ms),
            id: item.id,
            content_type: item.content_type,
        });
        links.collect()
    }

    /// Returns the link to a medium.
    pub fn url(&self, id: &str, received_at_ms: i64) -> String {
        let expires_s = self.expires_at_ms(received_at_ms).div_euclid(1000);
        format!("{}{}", self.base_url, link::path(&self.key, id, expires_s))
    }

    /// Returns the end of a link's validity, in milliseconds since 1970.
    pub fn expires_at_ms(&self, received_at_ms: i64) -> i64 {
        received_at_ms.saturating_add(self.keep_ms)
    }

    /// Returns whether the webhook of a valid link may not be in the ledger yet.
    pub fn may_be_unrecorded(&self, link_expires_ms: i64, now_ms: i64) -> bool {
        now_ms.saturating_sub(link_expires_ms.saturating_sub(self.keep_ms)) < UNRECORDED_MS
    }
}

/// Returns whether a host is one of these domains, or below one of them.
pub fn is_below(host: &str, domains: &[String]) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    domains.iter().any(|domain| {
        host == *domain
            || host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'))
    })
}

/// Declares [`FetchFailure`] and its table.
macro_rules! failures {
    ($($name:ident $code:literal $actor:ident $is_final:literal $title:literal $remedy:literal)*) => {
        twilio_edge_contract::string_enum! {
            /// Reason why a medium was not fetched.
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
            pub enum FetchFailure {
                $(#[doc = concat!($title, ".")] $name = $code,)*
            }
        }

        impl FetchFailure {
            /// Returns the party that must act.
            pub const fn actor(self) -> Actor {
                match self { $(FetchFailure::$name => Actor::$actor,)* }
            }

            /// Returns whether a later fetch cannot succeed.
            pub const fn is_final(self) -> bool {
                match self { $(FetchFailure::$name => $is_final,)* }
            }

            /// Returns the description of the failure.
            pub const fn title(self) -> &'static str {
                match self { $(FetchFailure::$name => $title,)* }
            }

            /// Returns the action that corrects the failure.
            pub const fn remedy(self) -> &'static str {
                match self { $(FetchFailure::$name => $remedy,)* }
            }
        }
    };
}

failures! {
    NotAtTwilio "not_at_twilio" None true
        "The webhook names a URL that is not in Twilio's API"
        "Fetch the medium from the URL in `raw`; the sidecar sends its credentials to Twilio only."
    NoCredentials "no_credentials" Operator false
        "The sidecar has no credentials of the account"
        "Add the account and its API key to the file that sending.file names."
    Denied "denied" Operator false
        "Twilio does not accept the credentials of the account"
        "Correct the credentials of the account in the file that sending.file names. The key must permit reads of messages."
    NotFound "not_found" None true
        "Twilio does not have the medium"
        "None: the medium was deleted at Twilio before the sidecar fetched it."
    Redirect "redirect" Operator false
        "Twilio redirects to a host that is not permitted, or too often"
        "If the host in the log is Twilio's, add its domain to media.inbound.hosts."
    TooLarge "too_large" Operator true
        "The medium is larger than media.inbound.max_bytes"
        "Increase media.inbound.max_bytes for later messages. The medium is still at Twilio."
    Mismatch "mismatch" Recipient true
        "The bytes of the medium are not of its declared type"
        "Ask the contact for the medium in another format. The medium is still at Twilio."
    Unavailable "unavailable" None false
        "Twilio did not send the medium: no connection, too slow, or an error of its server"
        "None: the sidecar retries."
    StoreFailed "store_failed" Operator false
        "The media store does not accept the medium"
        "Repair the bucket or folder of media.store.url; the log has a line `media.bucket_failed`."
}

/// Step after a failed fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchStep {
    /// Fetch again at this time, in milliseconds since 1970.
    RetryAt(i64),
    /// Give up.
    Refuse,
}

/// Decides what follows a failed fetch. `attempts` includes the failed one. `retry_after_ms` is the pause that Twilio
/// asked for.
pub fn after_failure(
    failure: FetchFailure,
    attempts: i64,
    received_at_ms: i64,
    retry_after_ms: Option<i64>,
    give_up_ms: i64,
    now_ms: i64,
) -> FetchStep {
    let age_ms = now_ms.saturating_sub(received_at_ms);
    // Twilio's webhook may be faster than its media.
    let is_too_early = failure == FetchFailure::NotFound && age_ms < NOT_YET_MS;
    if (failure.is_final() && !is_too_early) || age_ms >= give_up_ms {
        return FetchStep::Refuse;
    }
    FetchStep::RetryAt(now_ms.saturating_add(pause_ms(attempts).max(retry_after_ms.unwrap_or(0))))
}

/// Returns the pause after this number of failed attempts, in milliseconds.
pub fn pause_ms(attempts: i64) -> i64 {
    let doublings = u32::try_from(attempts.saturating_sub(1).clamp(0, 20)).unwrap_or_default();
    FIRST_PAUSE_MS.saturating_mul(1 << doublings).min(LONGEST_PAUSE_MS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AC: &str = "AC00112233445566778899aabbccddeeff";
    const MM: &str = "MM00112233445566778899aabbccddeeff";
    const ME: &str = "ME00112233445566778899aabbccddeeff";

    fn url(account: &str, message: &str, medium: &str) -> String {
        format!(
            "https://api.twilio.com/2010-04-01/Accounts/{account}/Messages/{message}/Media/{medium}"
        )
    }

    fn form(media: &[(&str, &str)]) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        for (n, (url, kind)) in media.iter().enumerate() {
            form.append_pair(&format!("MediaUrl{n}"), url);
            form.append_pair(&format!("MediaContentType{n}"), kind);
        }
        form.finish()
    }

    #[test]
    fn media_of_a_webhook_have_stable_ids_and_only_sids_of_this_message() {
        let ours = url(AC, MM, ME);
        let other = url("AC99999999999999999999999999999999", MM, ME);
        let form = form(&[(&ours, "image/jpeg"), (&other, "nonsense"), ("https://x.test/a", "")]);
        let found = items(&form, AC, MM);
        let seen: Vec<_> = found
            .iter()
            .map(|item| (item.position, item.media_sid.as_str(), item.content_type.as_str()))
            .collect();
        assert_eq!(
            seen,
            [(0, ME, "image/jpeg"), (1, "", UNKNOWN_TYPE), (2, "", UNKNOWN_TYPE)],
            "credentials of one account never fetch media of another"
        );
        assert_eq!(found, items(&form, AC, MM));
        assert!(found.iter().all(|item| link::is_id(&item.id) && link::is_inbound_id(&item.id)));
        assert_ne!(found[1].id, found[2].id);
        assert_eq!(items("Body=MediaUrl0", AC, MM), []);
    }

    #[test]
    fn link_is_the_same_in_every_event_and_valid_until_the_medium_expires() {
        let links = MediaLinks {
            base_url: "https://media.example.com".into(),
            key: "0123456789abcdef0123456789abcdef".into(),
            keep_ms: 86_400_000,
        };
        let form = form(&[(&url(AC, MM, ME), "audio/ogg; codecs=opus")]);
        let [first] = &links.of(&form, AC, MM, 1_800_000_000_500)[..] else { panic!("one") };
        assert_eq!(std::slice::from_ref(first), links.of(&form, AC, MM, 1_800_000_000_500));
        assert_eq!(first.content_type, "audio/ogg");
        let query = first.url.split_once('?').unwrap().1;
        assert!(link::is_valid(&links.key, &first.id, query, 1_800_086_399_000));
        assert!(!link::is_valid(&links.key, &first.id, query, 1_800_086_400_500));
        assert!(!format!("{links:?}").contains("0123"), "the key is a secret");
        let expires_ms = links.expires_at_ms(1_800_000_000_000);
        assert!(links.may_be_unrecorded(expires_ms, 1_800_000_599_999));
        assert!(!links.may_be_unrecorded(expires_ms, 1_800_000_600_000));
    }

    #[test]
    fn redirect_hosts_are_domains_and_hosts_below_them() {
        let domains = ["twiliocdn.com".to_owned(), "s3-external-1.amazonaws.com".to_owned()];
        for (host, expected) in [
            ("mms.twiliocdn.com", true),
            ("TWILIOCDN.com.", true),
            ("eviltwiliocdn.com", false),
            ("twiliocdn.com.evil.example", false),
            ("s3-external-1.amazonaws.com", true),
            ("s3.amazonaws.com", false),
            ("", false),
        ] {
            assert_eq!(is_below(host, &domains), expected, "{host}");
        }
    }

    #[test]
    fn failure_is_retried_with_growing_pauses_until_the_end() {
        let next = |failure, attempts, retry_after_ms, now_ms| {
            after_failure(failure, attempts, 0, retry_after_ms, 3_600_000, now_ms)
        };
        use FetchFailure::*;
        assert_eq!(next(Unavailable, 1, None, 0), FetchStep::RetryAt(1_000));
        assert_eq!(next(Unavailable, 4, None, 0), FetchStep::RetryAt(8_000));
        assert_eq!(next(Unavailable, 1, Some(9_000), 0), FetchStep::RetryAt(9_000));
        assert_eq!(next(Denied, i64::MAX, None, 0), FetchStep::RetryAt(600_000));
        assert_eq!(next(Denied, 9, None, 3_600_000), FetchStep::Refuse);
        assert_eq!(next(TooLarge, 1, None, 0), FetchStep::Refuse);
        assert_eq!(next(NotFound, 1, None, 299_999), FetchStep::RetryAt(300_999));
        assert_eq!(next(NotFound, 1, None, 300_000), FetchStep::Refuse);
    }

    proptest! {
        #[test]
        fn any_form_is_read_without_panic(form in "(MediaUrl[0-9]=|[&=%a-z0-9./:]){0,40}", sid: String) {
            let found = items(&form, &sid, &sid);
            prop_assert!(found.len() <= 10);
        }

        #[test]
        fn retry_is_later_and_bounded(attempts: i64, now_ms in 0..i64::MAX / 2) {
            if let FetchStep::RetryAt(at_ms) = after_failure(FetchFailure::Unavailable, attempts, now_ms, None, 1, now_ms) {
                prop_assert!(at_ms > now_ms && at_ms <= now_ms + LONGEST_PAUSE_MS);
            }
        }
    }
}
