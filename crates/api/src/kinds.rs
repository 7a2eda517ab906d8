//! Refusals that handlers return.

use twilio_edge_domain::refusal::RefusalCode;

pub(super) const NOT_FOUND: RefusalCode = RefusalCode::NotFound;
pub(super) const INVALID_CURSOR: RefusalCode = RefusalCode::InvalidCursor;
pub(super) const NO_SUCH_MESSAGE: RefusalCode = RefusalCode::NoSuchMessage;
pub(super) const NO_SUCH_TENANT: RefusalCode = RefusalCode::NoSuchTenant;
pub(super) const NO_SUCH_TEMPLATE: RefusalCode = RefusalCode::NoSuchTemplate;
pub(super) const NO_SUCH_EVENT: RefusalCode = RefusalCode::NoSuchEvent;
pub(super) const NO_SUCH_DEAD_LETTER: RefusalCode = RefusalCode::NoSuchDeadLetter;
pub(super) const NO_SUCH_REPLAY: RefusalCode = RefusalCode::NoSuchReplay;
pub(super) const NO_SUCH_MEDIA: RefusalCode = RefusalCode::NoSuchMedia;
pub(super) const NO_MEDIA_STORE: RefusalCode = RefusalCode::NoMediaStore;
pub(super) const NOT_SUPPRESSED: RefusalCode = RefusalCode::NotSuppressed;
pub(super) const NO_ACCOUNTS_FILE: RefusalCode = RefusalCode::NoAccountsFile;
pub(super) const METHOD_NOT_ALLOWED: RefusalCode = RefusalCode::MethodNotAllowed;
pub(super) const UNCLEAR_REDACTION: RefusalCode = RefusalCode::UnclearRedaction;
pub(super) const SELECTOR_REQUIRED: RefusalCode = RefusalCode::SelectorRequired;
pub(super) const UNCLEAR_MESSAGE: RefusalCode = RefusalCode::UnclearMessage;
pub(super) const NO_CREDENTIALS: RefusalCode = RefusalCode::NoCredentials;
pub(super) const MEDIA_REJECTED: RefusalCode = RefusalCode::MediaRejected;
pub(super) const NOT_CANCELABLE: RefusalCode = RefusalCode::NotCancelable;
pub(super) const ETAG_MISMATCH: RefusalCode = RefusalCode::EtagMismatch;
pub(super) const IF_MATCH_REQUIRED: RefusalCode = RefusalCode::IfMatchRequired;
pub(super) const ACCOUNT_REQUIRED: RefusalCode = RefusalCode::AccountRequired;
pub(super) const INVALID_FIELD: RefusalCode = RefusalCode::InvalidField;
pub(super) const IDEMPOTENCY_KEY_REUSED: RefusalCode = RefusalCode::IdempotencyKeyReused;
pub(super) const ACCOUNT_CLOSED: RefusalCode = RefusalCode::AccountClosed;
pub(super) const BODY_TOO_LARGE: RefusalCode = RefusalCode::BodyTooLarge;
pub(super) const BAD_LINES: RefusalCode = RefusalCode::BadLines;
pub(super) const UNAVAILABLE: RefusalCode = RefusalCode::Unavailable;
pub(super) const ARCHIVE_UNAVAILABLE: RefusalCode = RefusalCode::ArchiveUnavailable;
