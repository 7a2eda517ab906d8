//! Options of curl: which of them have a value, and long names of short ones. Source: curl(1), version 8.

/// Options with a value that does not change the request.
const WITH_VALUE: [&str; 48] = [
    "--abstract-unix-socket",
    "--cacert",
    "--capath",
    "--cert",
    "--cert-type",
    "--ciphers",
    "--connect-timeout",
    "--connect-to",
    "--cookie-jar",
    "--crlfile",
    "--dns-servers",
    "--dump-header",
    "--expect100-timeout",
    "--hostpubmd5",
    "--interface",
    "--key",
    "--key-type",
    "--limit-rate",
    "--local-port",
    "--max-filesize",
    "--max-redirs",
    "--max-time",
    "--noproxy",
    "--output",
    "--output-dir",
    "--pass",
    "--pinnedpubkey",
    "--proxy",
    "--proxy-header",
    "--proxy-user",
    "--range",
    "--rate",
    "--resolve",
    "--retry",
    "--retry-delay",
    "--retry-max-time",
    "--speed-limit",
    "--speed-time",
    "--stderr",
    "--tls-max",
    "--tls13-ciphers",
    "--trace",
    "--trace-ascii",
    "--unix-socket",
    "--write-out",
    "--variable",
    "--etag-save",
    "--keepalive-time",
];

/// Short options and their long names, where the request or the reading depends on them.
const SHORT: [(char, &str); 21] = [
    ('A', "--user-agent"),
    ('b', "--cookie"),
    ('c', "--cookie-jar"),
    ('C', "--range"),
    ('d', "--data"),
    ('D', "--dump-header"),
    ('e', "--referer"),
    ('E', "--cert"),
    ('F', "--form"),
    ('G', "--get"),
    ('H', "--header"),
    ('I', "--head"),
    ('K', "--config"),
    ('m', "--max-time"),
    ('o', "--output"),
    ('r', "--range"),
    ('T', "--upload-file"),
    ('u', "--user"),
    ('w', "--write-out"),
    ('x', "--proxy"),
    ('X', "--request"),
];

/// Returns whether the next word is the value of an option.
pub(super) fn takes_value(option: &str) -> bool {
    let changes_request = matches!(
        option,
        "--request"
            | "--url"
            | "--url-query"
            | "--header"
            | "--user-agent"
            | "--referer"
            | "--cookie"
            | "--user"
            | "--data"
            | "--data-ascii"
            | "--data-binary"
            | "--data-raw"
            | "--data-urlencode"
            | "--json"
            | "--form"
            | "--form-string"
            | "--upload-file"
            | "--config"
    );
    changes_request || WITH_VALUE.contains(&option)
}

/// Returns the long name of a short option, if its value or its effect matters.
pub(super) fn long_name(letter: char) -> Option<&'static str> {
    SHORT.iter().find(|(short, _)| *short == letter).map(|(_, long)| *long)
}
