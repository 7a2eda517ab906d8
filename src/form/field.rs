//! The parameters that Twilio sends often or that the filter reads, each with a number: a form is searched for names only once,
//! and numbers are compared in place of names.
//!
//! Decides which of them Twilio sends at most once. A name outside of the list is compared as text.

twilio_edge_contract::string_enum! {
    /// A known parameter. The order is the one in which Twilio signs them.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) enum Field {
        AccountSid = "AccountSid",
        AddOns = "AddOns",
        Address = "Address",
        ApiVersion = "ApiVersion",
        Body = "Body",
        ButtonPayload = "ButtonPayload",
        ButtonText = "ButtonText",
        ChannelInstallSid = "ChannelInstallSid",
        ChannelMetadata = "ChannelMetadata",
        ChannelPrefix = "ChannelPrefix",
        ChannelToAddress = "ChannelToAddress",
        ErrorCode = "ErrorCode",
        ErrorUrl = "ErrorUrl",
        EventType = "EventType",
        ExternalUserId = "ExternalUserId",
        Forwarded = "Forwarded",
        FrequentlyForwarded = "FrequentlyForwarded",
        From = "From",
        FromCity = "FromCity",
        FromCountry = "FromCountry",
        FromState = "FromState",
        FromZip = "FromZip",
        Label = "Label",
        Latitude = "Latitude",
        ListId = "ListId",
        ListTitle = "ListTitle",
        Longitude = "Longitude",
        MediaContentType0 = "MediaContentType0",
        MediaUrl0 = "MediaUrl0",
        MessageSid = "MessageSid",
        MessageStatus = "MessageStatus",
        MessageType = "MessageType",
        MessagingServiceSid = "MessagingServiceSid",
        NumMedia = "NumMedia",
        NumSegments = "NumSegments",
        OptOutType = "OptOutType",
        OriginalRepliedMessageSid = "OriginalRepliedMessageSid",
        ProfileName = "ProfileName",
        RawDlrDoneDate = "RawDlrDoneDate",
        ReferralNumMedia = "ReferralNumMedia",
        SmsMessageSid = "SmsMessageSid",
        SmsSid = "SmsSid",
        SmsStatus = "SmsStatus",
        StructuredMessage = "StructuredMessage",
        To = "To",
        ToCity = "ToCity",
        ToCountry = "ToCountry",
        ToState = "ToState",
        ToZip = "ToZip",
        Username = "Username",
        WaId = "WaId",
    }
}

/// Number of known parameters.
pub(super) const COUNT: usize = Field::ALL.len();

impl Field {
    /// Returns the field with this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let fields = Self::of_length(name.len());
        fields.iter().copied().find(|field| is_same(field.as_str().as_bytes(), name.as_bytes()))
    }

    /// Returns the fields whose names have this length.
    fn of_length(bytes: usize) -> &'static [Self] {
        use Field::*;
        match bytes {
            2 => &[To],
            4 => &[From, Body, WaId],
            5 => &[ToZip, Label],
            6 => &[SmsSid, ToCity, AddOns, ListId],
            7 => &[FromZip, ToState, Address],
            8 => &[NumMedia, FromCity, ErrorUrl, Latitude, Username],
            9 => &[
                SmsStatus, FromState, ToCountry, ErrorCode, MediaUrl0, EventType, Forwarded,
                ListTitle, Longitude,
            ],
            10 => &[AccountSid, MessageSid, ApiVersion, ButtonText, OptOutType],
            11 => &[NumSegments, FromCountry, MessageType, ProfileName],
            13 => &[MessageStatus, SmsMessageSid, ChannelPrefix, ButtonPayload],
            14 => &[RawDlrDoneDate, ExternalUserId],
            15 => &[ChannelMetadata],
            16 => &[ChannelToAddress, ReferralNumMedia],
            17 => &[ChannelInstallSid, StructuredMessage, MediaContentType0],
            19 => &[MessagingServiceSid, FrequentlyForwarded],
            25 => &[OriginalRepliedMessageSid],
            _ => &[],
        }
    }

    /// Reports whether Twilio sends the parameter at most once. A second one can only come from re-cutting.
    /// Source: twilio.com/docs/messaging/guides/webhook-request and .../track-outbound-message-status.
    pub(super) fn is_single(self) -> bool {
        use Field::*;
        !matches!(
            self,
            ChannelInstallSid
                | FromCity
                | FromCountry
                | FromState
                | FromZip
                | ListId
                | ListTitle
                | MediaContentType0
                | MediaUrl0
                | OriginalRepliedMessageSid
                | RawDlrDoneDate
                | ReferralNumMedia
                | StructuredMessage
                | ToCity
                | ToCountry
                | ToState
                | ToZip
        )
    }
}

/// Compares two texts of the same length, eight bytes at a time: the library compares single bytes in WebAssembly.
fn is_same(left: &[u8], right: &[u8]) -> bool {
    if let (Some(first), Some(other)) = (left.first_chunk::<8>(), right.first_chunk::<8>()) {
        return u64::from_le_bytes(*first) == u64::from_le_bytes(*other)
            && left.last_chunk::<8>() == right.last_chunk::<8>()
            && (left.len() <= 16 || left == right);
    }
    match (left.first_chunk::<4>(), right.first_chunk::<4>()) {
        (Some(first), Some(other)) => {
            u32::from_le_bytes(*first) == u32::from_le_bytes(*other)
                && left.last_chunk::<4>() == right.last_chunk::<4>()
        }
        _ => left == right,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_is_found_by_its_name() {
        for field in Field::ALL {
            assert_eq!(Field::named(field.as_str()), Some(field));
            for other in [field.as_str().to_lowercase(), format!("{field}s"), format!("x{field}")] {
                assert_eq!(Field::named(&other), None, "{other}");
            }
        }
        let listed: usize = (0..100).map(|bytes| Field::of_length(bytes).len()).sum();
        assert_eq!(listed, COUNT);
        assert_eq!(Field::named("FrequentlyXorwarded"), None, "a difference in the middle");
    }

    #[test]
    fn fields_are_in_signed_order() {
        assert!(Field::ALL.is_sorted_by_key(|field| field.as_str()));
    }
}
