//! Representation of our messages in Twilio's format: the provisional SID of a message without one of Twilio, and the
//! message resource. It is built from the form that is posted to Twilio, as long as that form is stored.

use serde_json::{Value, json};

/// Prefixes of our ids and of the SIDs that are derived from them; the same 32 digits follow.
const PREFIXES: (&str, &str) = ("ms_", "SM");

/// Returns the SID of our message in the drop-in API until Twilio assigns one; it remains valid afterwards. It is derived
/// from our id, so that it is not stored; the id has 128 random bits, so that it is unique.
pub fn provisional_sid(id: &str) -> String {
    format!("{}{}", PREFIXES.1, id.strip_prefix(PREFIXES.0).unwrap_or(id))
}

/// Returns the id from which a SID may be derived.
pub fn id_of_sid(sid: &str) -> Option<String> {
    Some(format!("{}{}", PREFIXES.0, sid.strip_prefix(PREFIXES.1)?))
}

/// Stored properties of a message.
#[derive(Debug, Clone, Copy)]
pub struct StoredMessage<'a> {
    /// Our id.
    pub id: &'a str,
    /// Account of the message.
    pub account_sid: &'a str,
    /// Form that is posted to Twilio; empty once the message has ended.
    pub form: &'a str,
    /// State: `queued`, `attempting`, `sent`, ..
    pub state: &'a str,
    /// Delivery status that Twilio reported; empty before the first report.
    pub status: &'a str,
    /// SID that Twilio assigned; empty until it is known.
    pub message_sid: &'a str,
    /// Twilio's error code, if the message failed.
    pub error_code: Option<u32>,
    /// Reason of the failure in words.
    pub reason: &'a str,
    /// True if the request asked for a later send time.
    pub is_scheduled: bool,
    /// Creation time, in milliseconds since 1970.
    pub created_ms: i64,
    /// Time of the last change, in milliseconds since 1970.
    pub updated_ms: i64,
}

/// Returns the resource in Twilio's format. Values that are no longer stored are null.
pub fn message_resource(known: &StoredMessage<'_>) -> Value {
    let pairs: Vec<(String, String)> =
        form_urlencoded::parse(known.form.as_bytes()).into_owned().collect();
    let get =
        |name: &str| pairs.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str());
    let media = pairs.iter().filter(|(name, _)| name == "MediaUrl").count();
    let (from, service) = (get("From"), get("MessagingServiceSid"));
    // Twilio counts 0 segments until the Messaging Service has selected a sender.
    let segments = match (known.form, from) {
        ("", _) => None,
        (_, None) => Some(0),
        (_, Some(_)) => Some(segments(get("Body").unwrap_or_default())),
    };
    let mut resource = json!({
        "account_sid": known.account_sid, "api_version": "2010-04-01", "body": get("Body"),
        "date_created": rfc2822(known.created_ms), "date_sent": null,
        "direction": "outbound-api", "from": from, "messaging_service_sid": service,
        "num_media": media.to_string(), "num_segments": segments.map(|count| count.to_string()),
        "price": null, "price_unit": "USD", "to": get("To"),
    });
    update(&mut resource, known);
    resource
}

/// Properties of a medium.
#[derive(Debug, Clone, Copy)]
pub struct StoredMedium<'a> {
    /// SID of the medium.
    pub sid: &'a str,
    /// Account of the medium.
    pub account_sid: &'a str,
    /// SID of its message.
    pub message_sid: &'a str,
    /// Content type.
    pub content_type: &'a str,
    /// Creation time, in milliseconds since 1970.
    pub created_ms: i64,
    /// Time of the last change, in milliseconds since 1970.
    pub updated_ms: i64,
}

/// Returns the resource of a medium in Twilio's format.
pub fn media_resource(known: &StoredMedium<'_>) -> Value {
    let StoredMedium { sid, account_sid, message_sid, content_type, .. } = known;
    json!({
        "sid": sid, "account_sid": account_sid, "parent_sid": message_sid,
        "content_type": content_type, "date_created": rfc2822(known.created_ms),
        "date_updated": rfc2822(known.updated_ms),
        "uri": format!("/2010-04-01/Accounts/{account_sid}/Messages/{message_sid}/Media/{sid}.json"),
    })
}

/// Updates the SID and the status of a resource.
pub fn update(resource: &mut Value, known: &StoredMessage<'_>) {
    let sid = match known.message_sid {
        "" => provisional_sid(known.id),
        sid => sid.to_owned(),
    };
    let uri = format!("/2010-04-01/Accounts/{}/Messages/{sid}", known.account_sid);
    let has = |name: &str| resource.get(name).is_some_and(Value::is_string);
    let is_through_service = has("messaging_service_sid") && !has("from");
    let status = status(known, is_through_service);
    let failed = known.error_code.filter(|_| matches!(status, "failed" | "undelivered"));
    let changes = json!({
        "sid": sid, "status": status,
        "date_updated": rfc2822(known.updated_ms), "error_code": failed,
        "error_message": failed.map(|_| known.reason),
        "subresource_uris": {"media": format!("{uri}/Media.json")}, "uri": format!("{uri}.json"),
    });
    if let (Some(resource), Value::Object(changes)) = (resource.as_object_mut(), changes) {
        resource.extend(changes);
    }
}

/// Returns Twilio's status. An `unknown` message counts as accepted: a client that reads `failed` would send it again.
fn status<'a>(known: &StoredMessage<'a>, is_through_service: bool) -> &'a str {
    match known.state {
        "sent" if !known.status.is_empty() => known.status,
        "refused" | "not_sent" => "failed",
        "canceled" => "canceled",
        "queued" if known.is_scheduled => "scheduled",
        _ if is_through_service => "accepted",
        _ => "queued",
    }
}

/// Formats a time as Twilio does.
fn rfc2822(ms: i64) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(ms).ok()?;
    Some(time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string())
}

/// Returns the number of segments that SMS is billed by: 160 characters or 153 each, 70 or 67 if one is outside of ASCII.
/// (GSM's own alphabet has a few more characters; nothing here depends on it.)
pub fn segments(body: &str) -> usize {
    let length = body.encode_utf16().count();
    let (single, each) = if body.is_ascii() { (160, 153) } else { (70, 67) };
    if length <= single { 1 } else { length.div_ceil(each) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "ms_00112233445566778899aabbccddeeff";

    fn known() -> StoredMessage<'static> {
        StoredMessage {
            id: ID,
            account_sid: "AC00112233445566778899aabbccddeeff",
            form: "To=%2B16132345678&From=%2B16135550100&Body=hi&MediaUrl=https%3A%2F%2Fa",
            state: "queued",
            status: "",
            message_sid: "",
            error_code: None,
            reason: "",
            is_scheduled: false,
            created_ms: 0,
            updated_ms: 1000,
        }
    }

    #[test]
    fn provisional_sid_has_the_form_of_twilio_and_maps_back() {
        assert_eq!(provisional_sid(ID), "SM00112233445566778899aabbccddeeff");
        assert_eq!(id_of_sid(&provisional_sid(ID)).as_deref(), Some(ID));
        assert_eq!(id_of_sid("MM00112233445566778899aabbccddeeff"), None);
    }

    #[test]
    fn message_resource_has_the_format_of_twilio() {
        let resource = message_resource(&known());
        assert_eq!(
            (&resource["sid"], &resource["status"]),
            (&json!(provisional_sid(ID)), &json!("queued"))
        );
        assert_eq!((&resource["body"], &resource["num_media"]), (&json!("hi"), &json!("1")));
        assert_eq!(resource["date_created"], "Thu, 01 Jan 1970 00:00:00 +0000");
        let service = "To=%2B16132345678&MessagingServiceSid=MG0&Body=hi";
        for (known, status, segments) in [
            (StoredMessage { form: service, ..known() }, "accepted", json!("0")),
            (StoredMessage { is_scheduled: true, ..known() }, "scheduled", json!("1")),
            (StoredMessage { state: "unknown", ..known() }, "queued", json!("1")),
            (StoredMessage { state: "canceled", form: "", ..known() }, "canceled", json!(null)),
        ] {
            let resource = message_resource(&known);
            assert_eq!(
                (&resource["status"], &resource["num_segments"]),
                (&json!(status), &segments)
            );
        }
        let undelivered = StoredMessage {
            state: "sent",
            status: "undelivered",
            error_code: Some(30005),
            ..known()
        };
        let resource = message_resource(&undelivered);
        assert_eq!(
            (&resource["status"], &resource["error_code"]),
            (&json!("undelivered"), &json!(30005))
        );
        let failed =
            StoredMessage { state: "refused", error_code: Some(21610), reason: "no", ..known() };
        let resource = message_resource(&failed);
        assert_eq!(
            (&resource["error_code"], &resource["error_message"]),
            (&json!(21610), &json!("no"))
        );
    }

    #[test]
    fn message_resource_is_updated_in_place() {
        let mut resource = message_resource(&known());
        let sid = "SMffffffffffffffffffffffffffffffff";
        update(
            &mut resource,
            &StoredMessage { state: "sent", message_sid: sid, form: "", ..known() },
        );
        assert_eq!((&resource["sid"], &resource["body"]), (&json!(sid), &json!("hi")));
        assert!(resource["uri"].as_str().unwrap().ends_with(&format!("/Messages/{sid}.json")));
    }

    #[test]
    fn sizes_are_twilios() {
        for (body, want) in
            [("", 1), (&*"a".repeat(160), 1), (&*"a".repeat(161), 2), (&*"ü".repeat(71), 2)]
        {
            assert_eq!(segments(body), want);
        }
    }
}
