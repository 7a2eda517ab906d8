-- The HTTP status with which Twilio refused a message; 0 where Twilio did not.
ALTER TABLE sends ADD COLUMN twilio_status BIGINT NOT NULL DEFAULT 0;
-- Whether WhatsApp shows anything of a template beside its text (1), which makes the text shorter.
ALTER TABLE templates ADD COLUMN has_others BIGINT NOT NULL DEFAULT 0;
