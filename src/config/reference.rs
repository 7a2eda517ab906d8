//! Reference of the plugin configuration: every field with its values, its default and its meaning.
//! `twilio-edge reference filter` prints it, and docs/CONFIG.md contains the output; not part of the wasm.

use std::fmt::Write;

/// One field of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Path, as problems name it, without indices: `routes[].class`.
    pub path: &'static str,
    /// Accepted values.
    pub value: &'static str,
    /// Default value; `required` if there is none.
    pub default: &'static str,
    /// Meaning of the field.
    pub meaning: &'static str,
}

const fn field(
    path: &'static str,
    value: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Field {
    Field { path, value, default, meaning }
}

/// Every field, in the order of the document.
pub const FIELDS: &[Field] = &[
    field(
        "origins",
        "list of 1 to 16 texts, `https://host[:port]`",
        "required",
        "What Twilio calls, never what the request says. Each is tried with and without port",
    ),
    field(
        "accounts",
        "list of at most 1024 objects",
        "required, unless `sidecar.accounts_refresh_ms` is set",
        "Whose webhooks are accepted. Beside the sidecar's key ring: keys to begin with; of an account in both, the ring's count",
    ),
    field("accounts[].sid", "text, `AC` and 32 hexadecimal digits", "required", "The account"),
    field(
        "accounts[].auth_tokens",
        "list of at most 8 texts",
        "none",
        "The current token first; two while one is being rotated. A subaccount signs with its own",
    ),
    field(
        "accounts[].shared_keys",
        "list of at most 8 objects",
        "none",
        "Keys of webhooks whose rule signs with a SharedKey. Used for requests that name them, and for no other. An account has a token or a shared key",
    ),
    field(
        "accounts[].shared_keys[].id",
        "text, `webhooks_sharedkey_..`",
        "required",
        "What requests call it",
    ),
    field("accounts[].shared_keys[].secret", "text", "required", "What it signs with"),
    field(
        "accounts[].shared_keys[].algorithm",
        "`HMAC_SHA256` or `HMAC_SHA1`",
        "`HMAC_SHA256`",
        "Pinned to the key: a request that names another is refused",
    ),
    field(
        "routes",
        "list of 1 to 256 objects",
        "required",
        "What is guarded; everything else passes, stripped of headers in our name",
    ),
    field(
        "routes[].path",
        "text, a path without query",
        "this or `prefix`",
        "Exactly this path. Wins over every prefix",
    ),
    field(
        "routes[].prefix",
        "text, a path that ends with `/`",
        "this or `path`",
        "Everything below this folder. The longest wins",
    ),
    field(
        "routes[].class",
        "`inbound`, `status` or `other`",
        "required",
        "Messages, status callbacks, or any signed request: the last is proven and forwarded, not deduplicated",
    ),
    field(
        "routes[].mode",
        "`enforce`, `shadow` or `off`",
        "`enforce`",
        "`shadow` decides, counts (`twilio_edge_shadowed`) and logs everything and forwards everything, with trusted headers only where something was proven; `off` only removes headers in our name",
    ),
    field(
        "routes[].delivery",
        "`forward` or `accept`",
        "`forward`",
        "`accept`: the sidecar records the webhook durably and delivers it, and Twilio is answered at once. A sidecar that has no sink for the route (docs/DELIVERY.md) lets it be forwarded, as does shadow mode",
    ),
    field(
        "routes[].answer",
        "text, TwiML of at most 4096 bytes",
        "`<Response/>`",
        "What Twilio is answered to a message that is accepted, and to its copies: `<Response><Message>We have it.</Message></Response>`. With `accept` and class `inbound` only",
    ),
    field(
        "routes[].methods",
        "list of `GET` and `POST`",
        "`[\"POST\"]`",
        "Methods that Twilio uses for this URL. Any other is answered with 405. Add `GET` only where the Twilio console says so: the signed text of the one can imitate the other (docs/SIGNATURES.md)",
    ),
    field(
        "routes[].bodies",
        "list of `form` and `hash`",
        "`[\"form\"]`",
        "Bodies that Twilio sends to this URL: `form`, or `hash` for any other body, proven by `bodySHA256` in the URL. `hash` is for class `other`. With both, a URL with a hash may have no other query",
    ),
    field(
        "routes[].forward_signature",
        "`true` or `false`",
        "`true`",
        "Whether the backend gets `X-Twilio-Signature` and `X-Twilio-Webhooks-Signature-Settings`. With `false` no log behind the filter can hold a signature, and an application cannot verify it again. Holds in every mode",
    ),
    field(
        "routes[].body",
        "`form` or `json`",
        "`form`",
        "What the backend gets of a form: the bytes Twilio sent, or the JSON event below. Bodies that are no form are never touched",
    ),
    field(
        "routes[].accounts",
        "list of account SIDs",
        "all",
        "Whose webhooks are accepted here. For a request without AccountSid the keys of all of these are tried, up to 256 signatures (keys times origins times two)",
    ),
    field(
        "routes[].on_unavailable",
        "`forward` or `reject`",
        "that of the class",
        "When the sidecar gives no verdict: forward with `x-twilio-edge-dedupe: unknown`, or 503 with Retry-After",
    ),
    field(
        "routes[].timeout_ms",
        "1 to 10000",
        "`sidecar.timeout_ms`",
        "Longest wait for a verdict on this route",
    ),
    field(
        "on_unavailable.inbound",
        "`forward` or `reject`",
        "`forward`",
        "For routes of this class that do not say",
    ),
    field(
        "on_unavailable.status",
        "`forward` or `reject`",
        "`forward`",
        "For routes of this class that do not say",
    ),
    field("on_unavailable", "object", "see there", "The policy for a missing verdict, by class"),
    field(
        "sidecar",
        "object",
        "none",
        "Where verdicts come from. Leave it out to verify and forward only",
    ),
    field("sidecar.cluster", "text, name of the Envoy cluster", "required", "Where the sidecar is"),
    field("sidecar.token", "text, the sidecar's `TWILIO_EDGE_TOKEN`", "required", "Who may ask it"),
    field("sidecar.timeout_ms", "1 to 10000", "500", "Longest wait for one reply"),
    field(
        "sidecar.in_flight_wait_ms",
        "0 to 14000",
        "8000",
        "Longest wait for another copy of the same webhook to be settled. Twilio gives up after 15 s",
    ),
    field(
        "sidecar.accounts_refresh_ms",
        "1000 to 3600000",
        "never",
        "How often to ask the sidecar for the accounts' keys (`TWILIO_EDGE_ACCOUNTS_FILE` there), give or take a tenth. A rotation is live within that and a second; the last good keys stay while it does not answer, and until the first answer webhooks are told 503 with Retry-After",
    ),
    field(
        "max_body_bytes",
        "1 to 1048576",
        "65536",
        "Largest body of a webhook; a larger one is refused with 413",
    ),
    field(
        "parameters",
        "list of at most 64 names",
        "none",
        "Names of parameters that Twilio sends and this version does not know. An unknown parameter passes wherever it cannot be the end of another one's value; where it can, it is refused with `unknown-parameter` until it is named here",
    ),
];

/// Returns the reference as a table in Markdown.
pub fn reference() -> String {
    let mut table = String::from("| field | value | default | what it does |\n|---|---|---|---|\n");
    for Field { path, value, default, meaning } in FIELDS {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| `{path}` | {value} | {default} | {meaning} |");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::plugin;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn it_describes_what_is_read_and_nothing_else() {
        let read = [
            ("", plugin::ROOT),
            ("accounts[].", plugin::ACCOUNT),
            ("accounts[].shared_keys[].", plugin::SHARED_KEY),
            ("routes[].", plugin::ROUTE),
            ("on_unavailable.", plugin::ON_UNAVAILABLE),
            ("sidecar.", plugin::SIDECAR),
        ];
        let read: BTreeSet<String> = read
            .into_iter()
            .flat_map(|(object, fields)| fields.iter().map(move |name| format!("{object}{name}")))
            .collect();
        let described: BTreeSet<String> =
            FIELDS.iter().map(|field| field.path.to_owned()).collect();
        assert_eq!(read, described);
        assert_eq!(described.len(), FIELDS.len(), "each once");
    }

    #[test]
    fn the_document_holds_the_print() {
        let document = include_str!("../../docs/CONFIG.md");
        assert!(
            document.contains(&reference()),
            "docs/CONFIG.md: put in `twilio-edge reference filter`"
        );
    }
}
