//! Checks of the files that the settings name, before `serve` opens anything.

use twilio_edge_connectors::{bucket, email, sinks, twilio};
use twilio_edge_platform::config::Config;
use twilio_edge_services::{
    access::webhook_keys as accounts,
    outbound::{routing_file as routes, sending},
};

/// Problems of all files, each with the setting that names the file.
pub(super) fn problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let mut about = |setting: &str, file: &str, found: Vec<String>| {
        problems.extend(found.iter().map(|problem| format!("{setting}: {file}: {problem}")));
    };
    let named = |file: &str, check: &dyn Fn(&str) -> Vec<String>| match file {
        "" => Vec::new(),
        file => check(file),
    };
    let accounts_file = &config.accounts.file;
    about("accounts.file", accounts_file, named(accounts_file, &accounts::problems));
    let sinks_file = &config.sinks.file;
    let of_sinks = |file: &str| sinks::problems(file, config.demo);
    about("sinks.file", sinks_file, named(sinks_file, &of_sinks));
    let sending = &config.sending;
    about("sending.file", &sending.file, named(&sending.file, &twilio::problems));
    let of_errors = |file: &str| sending::errors(file).err().unwrap_or_default();
    about("sending.errors_file", &sending.errors_file, of_errors(&sending.errors_file));
    about(
        "sending.routing_file",
        &sending.routing_file,
        named(&sending.routing_file, &routes::problems),
    );
    about("email.file", &config.email.file, named(&config.email.file, &email::problems));
    // A location that is wrong by itself is already a problem of the settings.
    for (setting, place) in [
        ("archive", config.archive.bucket_location()),
        ("media.store", config.media.store.bucket_location()),
    ] {
        if place.problems().is_empty() {
            let found = bucket::problems(&place);
            problems.extend(found.iter().map(|problem| format!("{setting}.{problem}")));
        }
    }
    problems
}
