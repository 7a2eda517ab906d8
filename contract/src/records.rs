//! Binary form of each wire type: its fields, in the order of the format. New fields are added at the end only.

use crate::binary::{FieldProblem, Reader, Record, Writer};
use crate::claim::{Claim, Decision, Delivery, Envelope, MediaLink, Opt, SavedAnswer, Verdict};
use crate::identity::{Class, Identity};
use crate::settlement::{Outcome, Settlement, SettlementAck, SettlementResult, UnclaimedWebhook};

impl Claim {
    /// Returns the binary form for [`crate::encode_request`].
    pub fn encode(&self) -> Vec<u8> {
        Record::encode(self)
    }
}

impl Settlement {
    /// Returns the binary form for [`crate::encode_request`].
    pub fn encode(&self) -> Vec<u8> {
        Record::encode(self)
    }
}

impl Record for Identity {
    fn write(&self, writer: &mut Writer) {
        writer.value(&self.class, &Class::ALL);
        writer.text(&self.account_sid);
        writer.text(&self.message_sid);
        writer.optional_text(self.status.as_deref());
        writer.optional_text(self.error_code.as_deref());
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FieldProblem> {
        Ok(Self {
            class: fields.value("class", &Class::ALL)?,
            account_sid: fields.text("account_sid")?,
            message_sid: fields.text("message_sid")?,
            status: fields.optional_text("status")?,
            error_code: fields.optional_text("error_code")?,
        })
    }
}

impl Record for Envelope {
    fn write(&self, writer: &mut Writer) {
        writer.optional_text(self.method.as_deref());
        writer.optional_text(self.url.as_deref());
        writer.optional_text(self.content_type.as_deref());
        writer.optional_text(self.idempotency_token.as_deref());
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FieldProblem> {
        Ok(Self {
            method: fields.optional_text("envelope.method")?,
            url: fields.optional_text("envelope.url")?,
            content_type: fields.optional_text("envelope.content_type")?,
            idempotency_token: fields.optional_text("envelope.idempotency_token")?,
        })
    }
}

impl Record for SavedAnswer {
    fn write(&self, writer: &mut Writer) {
        writer.number(self.status.into());
        writer.text(&self.content_type);
        writer.text(&self.body);
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FieldProblem> {
        let status = fields.number()?;
        Ok(Self {
            status: status.try_into().map_err(|_| FieldProblem::UnknownValue("answer.status"))?,
            content_type: fields.text("answer.content_type")?,
            body: fields.text("answer.body")?,
        })
    }
}

impl Record for Claim {
    fn write(&self, writer: &mut Writer) {
        writer.text(&self.claim_id);
        self.identity.write(writer);
        writer.text(&self.route);
        writer.text(&self.form);
        writer.value(&self.delivery, &Delivery::ALL);
        writer.optional_text(self.request_id.as_deref());
        writer.optional_text(self.traceparent.as_deref());
        writer.optional_text(self.message_id.as_deref());
        self.envelope.write(writer);
        writer.optional_text(self.url_digest.as_deref());
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FieldProblem> {
        Ok(Self {
            claim_id: fields.text("claim_id")?,
            identity: Identity::read(fields)?,
            route: fields.text("route")?,
            form: fields.text("form")?,
            delivery: fields.value("delivery", &Delivery::ALL)?,
            request_id: fields.optional_text("request_id")?,
            traceparent: fields.optional_text("traceparent")?,
            message_id: fields.optional_text("message_id")?,
            envelope: Envelope::read(fields)?,
            url_digest: fields.optional_text("url_digest")?,
        })
    }
}

impl Record for UnclaimedWebhook {
    fn write(&self, writer: &mut Writer) {
        writer.text(&self.route);
        writer.text(&self.form);
        self.envelope.write(writer);
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FieldProblem> {
        Ok(Self {
            route: fields.text("unclaimed.route")?,
            form: fields.text("unclaimed.form")?,
            envelope: Envelope::read(fields)?,
        })
    }
}

impl Record for Settlement {
    fn write(&self, writer: &mut Writer) {
        writer.text(&self.claim_id);
        self.identity.write(writer);
        writer.value(&self.outcome, &Outcome::ALL);
        write_optional(self.unclaimed.as_ref(), writer);
        write_optional(self.answer.as_ref(), writer);
        writer.optional_text(self.url_digest.as_deref());
        writer.optional_text(self.step.as_deref());
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FieldProblem> {
        Ok(Self {
            claim_id: fields.text("claim_id")?,
            identity: Identity::read(fields)?,
            outcome: fields.value("outcome", &Outcome::ALL)?,
            unclaimed: read_optional(fields)?,
            answer: read_optional(fields)?,
            url_digest: fields.optional_text("url_digest")?,
            step: fields.optional_text("step")?,
        })
    }
}

impl Record for Verdict {
    fn write(&self, writer: &mut Writer) {
        writer.text(&self.claim_id);
        writer.value(&self.decision, &Decision::ALL);
        writer.optional_number(self.attempt);
        writer.optional_value(self.opt.as_ref(), &Opt::ALL);
        writer.flag(self.suppressed);
        writer.optional_text(self.window_expires.as_deref());
        write_optional(self.answer.as_ref(), writer);
        writer.optional_text(self.step.as_deref());
        let media: Vec<Vec<u8>> = self.media.iter().map(Record::encode).collect();
        writer.list(&media);
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FieldProblem> {
        Ok(Self {
            claim_id: fields.text("claim_id")?,
            decision: fields.value("decision", &Decision::ALL)?,
            attempt: fields.optional_number()?,
            opt: fields.optional_value("opt", &Opt::ALL)?,
            suppressed: fields.flag()?,
            window_expires: fields.optional_text("window_expires")?,
            answer: read_optional(fields)?,
            step: fields.optional_text("step")?,
            media: fields.list()?,
        })
    }
}

impl Record for MediaLink {
    fn write(&self, writer: &mut Writer) {
        writer.text(&self.id);
        writer.text(&self.content_type);
        writer.text(&self.url);
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FieldProblem> {
        Ok(Self {
            id: fields.text("media.id")?,
            content_type: fields.text("media.content_type")?,
            url: fields.text("media.url")?,
        })
    }
}

impl Record for SettlementAck {
    fn write(&self, writer: &mut Writer) {
        writer.text(&self.claim_id);
        writer.value(&self.result, &SettlementResult::ALL);
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FieldProblem> {
        Ok(Self {
            claim_id: fields.text("claim_id")?,
            result: fields.value("result", &SettlementResult::ALL)?,
        })
    }
}

fn write_optional(record: Option<&impl Record>, writer: &mut Writer) {
    writer.flag(record.is_some());
    if let Some(record) = record {
        record.write(writer);
    }
}

fn read_optional<T: Record>(fields: &mut Reader<'_>) -> Result<Option<T>, FieldProblem> {
    fields.flag()?.then(|| T::read(fields)).transpose()
}
