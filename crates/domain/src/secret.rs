//! Strength check of secrets that an operator chooses. Pure.

/// Minimum length of a secret, in characters.
const MIN_CHARS: usize = 16;

/// Minimum number of distinct characters in a secret.
const MIN_DISTINCT: usize = 6;

/// Secrets published in this repository, its examples and its chart, without `-` and `_`.
const PUBLISHED: [&str; 10] = [
    "localedgetoken",
    "0123456789abcdef0123456789abcdef",
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "localpostgrespassword",
    "localredispassword",
    "youredgetoken",
    "yoursecret",
    "password",
    "secret",
    "changeit",
];

/// Text of placeholders, without `-` and `_`.
const PLACEHOLDERS: [&str; 5] =
    ["replaceme", "replacethis", "changeme", "examplesecret", "exampletoken"];

/// Returns why a secret is too weak, and how to generate one, or `None` if it is strong enough. The text does not
/// contain the secret.
pub fn weakness(secret: &str) -> Option<String> {
    let mut distinct: Vec<char> = secret.chars().collect();
    distinct.sort_unstable();
    distinct.dedup();
    let why = if is_published(secret) {
        "is a published example".to_owned()
    } else if secret.chars().count() < MIN_CHARS {
        format!("has fewer than {MIN_CHARS} characters")
    } else if distinct.len() < MIN_DISTINCT {
        format!("has fewer than {MIN_DISTINCT} different characters")
    } else {
        return None;
    };
    Some(format!("{why}; generate one with `openssl rand -hex 32`"))
}

/// Returns why a key of random bytes is too weak, or `None` if it is strong enough.
pub fn weakness_of_key(key: &[u8]) -> Option<String> {
    let mut distinct = key.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    (distinct.len() < MIN_DISTINCT).then(|| {
        "is not a random key; generate one with `echo whsec_$(openssl rand -base64 32)`".to_owned()
    })
}

/// Returns whether a secret is published in the documents or examples of the project, in any letter case and with any
/// `-` or `_`.
pub fn is_published(secret: &str) -> bool {
    let plain: String = secret
        .trim()
        .chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .collect::<String>()
        .to_lowercase();
    PUBLISHED.contains(&plain.as_str()) || PLACEHOLDERS.iter().any(|one| plain.contains(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_and_short_secrets_are_weak() {
        for weak in [
            "",
            "t",
            "fifteen-letters",
            "local-edge-token",
            "LOCAL_EDGE_TOKEN",
            "replace-me",
            "please-replace-me-with-a-long-one",
            "0123456789abcdef0123456789abcdef",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "abababababababababababababababab",
        ] {
            let said = weakness(weak).unwrap_or_else(|| panic!("{weak} is taken"));
            assert!(said.contains("openssl rand -hex 32"), "{said}");
            assert!(weak.len() < 10 || !said.contains(weak), "{said}");
        }
        for good in [
            "a-token-of-the-tests",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "Zm9vYmFyYmF6cXV4cXV1eA",
        ] {
            assert_eq!(weakness(good), None, "{good}");
        }
    }

    #[test]
    fn key_of_few_bytes_is_weak() {
        assert!(weakness_of_key(&[7; 32]).is_some_and(|said| said.contains("openssl rand")));
        assert_eq!(weakness_of_key(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), None);
    }

    /// Every secret in our examples is in the list of published ones.
    #[test]
    fn secrets_of_the_examples_are_published() {
        let examples = [
            include_str!("../../../docker-compose.yml"),
            include_str!("../../../.env.example"),
            include_str!("../../../deploy/systemd/twilio-edge.env"),
            include_str!("../../../deploy/systemd/envoy.env"),
        ];
        let mut found = 0;
        for line in examples.iter().flat_map(|example| example.lines()) {
            let named = ["TWILIO_EDGE_TOKEN=", "TWILIO_EDGE_TOKEN:-", "edge-token: "];
            let Some(value) = named.iter().find_map(|name| Some(line.split_once(name)?.1)) else {
                continue;
            };
            let value: String =
                value.chars().take_while(|c| c.is_ascii_graphic() && *c != '}').collect();
            if value.is_empty() {
                continue;
            }
            found += 1;
            assert!(is_published(&value), "{value} is not known as published");
        }
        assert!(found > 1, "the examples have no token any more");
    }
}
