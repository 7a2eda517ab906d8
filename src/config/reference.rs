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
        "Public origins of the URLs that Twilio calls. The filter does not read them from the request. It tries each with and without port",
    ),
    field(
        "accounts",
        "list of at most 1024 objects",
        "required, unless `sidecar.accounts_refresh_ms` is set",
        "Accounts whose webhooks are accepted. With `sidecar.accounts_refresh_ms` these keys are used until the sidecar's key ring arrives; the ring replaces the keys of an account that is in both",
    ),
    field("accounts[].sid", "text, `AC` and 32 hexadecimal digits", "required", "The account"),
    field(
        "accounts[].auth_tokens",
        "list of at most 8 texts",
        "none",
        "Auth tokens, the current one first; two during a rotation. A subaccount signs with its own token",
    ),
    field(
        "accounts[].shared_keys",
        "list of at most 8 objects",
        "none",
        "SharedKeys of Webhook Rules. Each is used only for requests that name it. An account needs an auth token or a shared key",
    ),
    field(
        "accounts[].shared_keys[].id",
        "text, `webhooks_sharedkey_..`",
        "required",
        "Id of the key, as requests name it",
    ),
    field("accounts[].shared_keys[].secret", "text", "required", "Secret of the key"),
    field(
        "accounts[].shared_keys[].algorithm",
        "`HMAC_SHA256` or `HMAC_SHA1`",
        "`HMAC_SHA256`",
        "Algorithm of the key; a request that names another algorithm is refused",
    ),
    field(
        "routes",
        "list of 1 to 256 objects",
        "required",
        "Guarded paths. Other requests pass without a check; only headers `x-twilio-edge-..` are removed from them",
    ),
    field(
        "routes[].path",
        "text, a path without query",
        "this or `prefix`",
        "Exact path. It takes precedence over every prefix",
    ),
    field(
        "routes[].prefix",
        "text, a path that ends with `/`",
        "this or `path`",
        "All paths below this folder. The longest prefix takes precedence",
    ),
    field(
        "routes[].class",
        "`inbound`, `status` or `other`",
        "required",
        "Kind of the webhooks: messages, status callbacks, or other signed requests. The filter verifies and forwards requests of class `other`, but does not deduplicate them",
    ),
    field(
        "routes[].mode",
        "`enforce`, `shadow` or `off`",
        "`enforce`",
        "`enforce` refuses requests. `shadow` decides, counts (`twilio_edge_shadowed`) and logs, but forwards every request, with trusted headers only on proven ones. `off` only removes headers `x-twilio-edge-..`",
    ),
    field(
        "routes[].delivery",
        "`forward` or `accept`",
        "`forward`",
        "`forward`: Envoy forwards the webhook to the backend. `accept`: the sidecar stores the webhook durably and delivers it, and the filter answers Twilio at once. A webhook is forwarded all the same if the sidecar has no sink for the route (docs/DELIVERY.md), and in shadow mode",
    ),
    field(
        "routes[].answer",
        "text, TwiML of at most 4096 bytes",
        "`<Response/>`",
        "Answer to an accepted message and to its copies, for instance `<Response><Message>We have it.</Message></Response>`. Only with `accept` and class `inbound`",
    ),
    field(
        "routes[].keyword_answers",
        "object with `stop`, `start` and `help`, each as `answer`",
        "none",
        "Answers to accepted messages that are an opt-out keyword, an opt-in keyword or a request for help (docs/COMPLIANCE.md); other messages, and keywords without an answer of their own, get `answer`. Only with `accept` and class `inbound`",
    ),
    field(
        "routes[].methods",
        "list of `GET` and `POST`",
        "`[\"POST\"]`",
        "Methods that Twilio uses for this URL. Another method is answered with 405. Add `GET` only where the Twilio console specifies it: the signed text of a GET can imitate a POST (docs/SIGNATURES.md)",
    ),
    field(
        "routes[].bodies",
        "list of `form` and `hash`",
        "`[\"form\"]`",
        "Bodies that Twilio sends to this URL: `form`, or `hash` for any other body, proven by `bodySHA256` in the URL. `hash` is only for class `other`. With both, a URL with a hash may have no other query",
    ),
    field(
        "routes[].forward_signature",
        "`true` or `false`",
        "`true`",
        "`true` forwards `X-Twilio-Signature` and `X-Twilio-Webhooks-Signature-Settings` to the backend. With `false` no log behind the filter can contain a signature, and an application cannot verify it again. Applies in every mode",
    ),
    field(
        "routes[].body",
        "`form` or `json`",
        "`form`",
        "Body that the backend gets instead of a form: the bytes that Twilio sent, or the JSON event below. Other bodies are never changed",
    ),
    field(
        "routes[].accounts",
        "list of account SIDs",
        "all",
        "Accounts whose webhooks are accepted on this route. For a request without AccountSid the filter tries the keys of all of them, up to 256 signatures (keys times origins times two)",
    ),
    field(
        "routes[].on_unavailable",
        "`forward` or `reject`",
        "that of the class",
        "Policy if the sidecar gives no verdict: forward with `x-twilio-edge-dedupe: unknown`, or answer 503 with Retry-After",
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
        "Policy of routes of this class that specify none",
    ),
    field(
        "on_unavailable.status",
        "`forward` or `reject`",
        "`forward`",
        "Policy of routes of this class that specify none",
    ),
    field("on_unavailable", "object", "see its fields", "Policies for a missing verdict, by class"),
    field(
        "sidecar",
        "object",
        "none",
        "Sidecar that gives the verdicts. Without it the filter only verifies and forwards",
    ),
    field(
        "sidecar.cluster",
        "text, name of the Envoy cluster",
        "required",
        "Cluster of the sidecar",
    ),
    field(
        "sidecar.token",
        "text, the sidecar's `TWILIO_EDGE_TOKEN`",
        "required",
        "Token that authorizes the filter's requests",
    ),
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
        "Interval at which the filter requests the accounts' keys from the sidecar (`TWILIO_EDGE_ACCOUNTS_FILE` there), varied by a tenth. A rotation takes effect within this interval and a second. While the sidecar does not answer, the last valid keys stay in use; until its first answer the filter answers webhooks with 503 and Retry-After",
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
        "Names of parameters that Twilio sends and this version does not know. A webhook with an unknown parameter is accepted where the parameter cannot be the end of another one's value. Elsewhere it is refused with `unknown-parameter` until the name is listed here",
    ),
    field(
        "refused_requests",
        "object",
        "see its fields",
        "Reports of refused requests to the sidecar. Only with `sidecar`",
    ),
    field(
        "refused_requests.report",
        "`true` or `false`",
        "`true` with a sidecar",
        "Report a sample of the refused requests to the sidecar, which explains them (docs/SIGNATURES.md). No request waits for a report, and a report that fails is lost",
    ),
    field(
        "refused_requests.body",
        "`full`, `names` or `none`",
        "`full`",
        "Part of the body in a report. The sidecar needs a form in `full` to examine its signature; it stores the names of the parameters, never their values. Credentials in the header Authorization are never reported",
    ),
    field(
        "refused_requests.max_body_bytes",
        "0 to 65536",
        "16384",
        "Longest body in a report; a longer one is left out",
    ),
    field(
        "refused_requests.per_minute",
        "1 to 600",
        "60",
        "Most reports of one worker per minute. Of one reason and route, five are reported at once, and then one every 12 seconds",
    ),
    field(
        "access_log",
        "`true` or `false`",
        "`true`",
        "`true` gives each request a word for the access log (docs/METRICS.md). `false` saves that work where no format uses the word",
    ),
];

/// Returns the reference as a table in Markdown.
pub fn reference() -> String {
    let mut table = String::from("| field | value | default | meaning |\n|---|---|---|---|\n");
    for Field { path, value, default, meaning } in FIELDS {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| `{path}` | {value} | {default} | {meaning} |");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::{plugin, route};
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn reference_describes_exactly_the_fields_that_are_read() {
        let read = [
            ("", plugin::ROOT),
            ("accounts[].", plugin::ACCOUNT),
            ("accounts[].shared_keys[].", plugin::SHARED_KEY),
            ("routes[].", route::ROUTE),
            ("on_unavailable.", route::ON_UNAVAILABLE),
            ("sidecar.", plugin::SIDECAR),
            ("refused_requests.", plugin::REFUSED_REQUESTS),
        ];
        let read: BTreeSet<String> = read
            .into_iter()
            .flat_map(|(object, fields)| fields.iter().map(move |name| format!("{object}{name}")))
            .collect();
        let described: BTreeSet<String> =
            FIELDS.iter().map(|field| field.path.to_owned()).collect();
        assert_eq!(read, described);
        assert_eq!(described.len(), FIELDS.len(), "each field occurs once");
    }

    #[test]
    fn document_contains_the_printed_table() {
        let document = include_str!("../../docs/CONFIG.md");
        assert!(
            document.contains(&reference()),
            "docs/CONFIG.md: insert the output of `twilio-edge reference filter`"
        );
    }
}
