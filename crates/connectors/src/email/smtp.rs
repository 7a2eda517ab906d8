//! Client of mail servers: one connection for one e-mail. The server has the e-mail at the earliest when its content was
//! sent, so a failure before that is certainly not an acceptance.

use std::time::Duration;

use lettre::{
    Address, Message,
    message::{Mailbox, MultiPart, SinglePart},
    transport::smtp::{
        Error,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, TlsParameters},
        commands::{Data, Mail, Rcpt},
        extension::{ClientId, Extension},
    },
};
use tokio::time::timeout;

use super::{
    EmailAccounts, Service,
    accounts::{SmtpServer, Tls},
    send_grid::without_call,
};
use crate::{
    causes::with_causes,
    send_client::{Pending, SendAnswer, SendClient, SendRequest},
};
use twilio_edge_domain::{
    email::{
        content::{Body, Email, Mailbox as Sender},
        outcome::{SmtpAnswer, smtp_outcome},
    },
    sending::{call_failure::CallFailure, errors::ErrorTable, outcome::SendOutcome},
};

/// Client of the mail servers of the accounts that use one.
pub struct Smtp {
    accounts: EmailAccounts,
    timeout: Duration,
}

/// Failure before the content of the e-mail was sent.
enum Failure {
    /// The server replied, or the connection failed.
    Smtp(Error),
    /// The server refused the login, or offers no encryption.
    Login(String),
    /// The e-mail cannot be written as a message.
    Content(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Smtp(error)
    }
}

impl Smtp {
    /// Creates the client.
    pub fn new(accounts: EmailAccounts, timeout: Duration) -> Smtp {
        // This fails if a provider is installed already; that provider is used then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Smtp { accounts, timeout }
    }

    fn server(&self, account_sid: &str) -> Option<&SmtpServer> {
        match &self.accounts.0.get(account_sid)?.service {
            Service::Smtp(server) => Some(server),
            Service::SendGrid(_) => None,
        }
    }

    async fn deliver(&self, server: &SmtpServer, email: &Email, message_id: &str) -> SmtpAnswer {
        let half = self.timeout / 2;
        let ready = timeout(half, self.prepare(server, email, message_id)).await;
        let (mut connection, content) = match ready {
            Ok(Ok(ready)) => ready,
            Ok(Err(Failure::Login(reason))) => return SmtpAnswer::Unauthorized(reason),
            Ok(Err(Failure::Content(text))) => return SmtpAnswer::Refused { text },
            Ok(Err(Failure::Smtp(error))) => {
                return reply(&error).unwrap_or_else(|| SmtpAnswer::NotSent(with_causes(&error)));
            }
            Err(_) => return SmtpAnswer::NotSent("the mail server is too slow".to_owned()),
        };
        let answer = match timeout(half, connection.message(&content)).await {
            Ok(Ok(response)) => SmtpAnswer::Accepted(response.message().collect()),
            Ok(Err(error)) => {
                reply(&error).unwrap_or_else(|| SmtpAnswer::Lost(with_causes(&error)))
            }
            Err(_) => SmtpAnswer::Lost("no reply in time after the e-mail was sent".to_owned()),
        };
        // The answer is final; the server need not wait for the end of the connection.
        let _ = timeout(Duration::from_secs(1), connection.abort()).await;
        answer
    }

    /// Opens a connection up to the point at which the server asks for the content.
    async fn prepare(
        &self,
        server: &SmtpServer,
        email: &Email,
        message_id: &str,
    ) -> Result<(AsyncSmtpConnection, Vec<u8>), Failure> {
        let message = message(email, message_id).map_err(Failure::Content)?;
        let hello = ClientId::default();
        let tls = || TlsParameters::new(server.host.clone());
        let at_once = match server.tls {
            Tls::Implicit => Some(tls()?),
            Tls::Starttls | Tls::None => None,
        };
        let place = (server.host.as_str(), server.port);
        let limit = Some(self.timeout);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(place, limit, &hello, at_once, None).await?;
        if server.tls == Tls::Starttls {
            if !connection.can_starttls() {
                let reason = "the mail server offers no STARTTLS".to_owned();
                return Err(Failure::Login(reason));
            }
            connection.starttls(tls()?, &hello).await?;
        }
        if let Some((user, password)) = &server.credentials {
            let credentials = Credentials::new(user.clone(), password.clone());
            let login = connection.auth(DEFAULT_MECHANISMS, &credentials).await;
            if let Err(error) = login {
                let is_refused = error.is_permanent() || error.is_client();
                return Err(match is_refused {
                    true => Failure::Login(with_causes(&error)),
                    false => Failure::Smtp(error),
                });
            }
        }
        let content = message.formatted();
        let is_ascii = content.is_ascii();
        if !is_ascii && !connection.server_info().supports_feature(Extension::EightBitMime) {
            return Err(Failure::Content("the mail server accepts only ASCII".to_owned()));
        }
        let envelope = message.envelope();
        connection.command(Mail::new(envelope.from().cloned(), Vec::new())).await?;
        for to in envelope.to() {
            connection.command(Rcpt::new(to.clone(), Vec::new())).await?;
        }
        connection.command(Data).await?;
        Ok((connection, content))
    }
}

/// Returns the meaning of a reply of the server; `None` if the error is no reply.
fn reply(error: &Error) -> Option<SmtpAnswer> {
    let text = with_causes(error);
    if error.is_transient() {
        Some(SmtpAnswer::Later(text))
    } else if error.is_permanent() {
        Some(SmtpAnswer::Refused { text })
    } else {
        None
    }
}

/// Writes the e-mail as a message of RFC 5322.
fn message(email: &Email, message_id: &str) -> Result<Message, String> {
    let Body::Own { subject, text, html } = &email.body else {
        return Err("the provider smtp has no templates".to_owned());
    };
    let of = |error: lettre::error::Error| error.to_string();
    let mut builder = Message::builder()
        .from(mailbox(&email.from)?)
        .to(Mailbox::new(None, address(&email.to)?))
        .subject(subject.as_str())
        .message_id(Some(format!("<{message_id}>")))
        .date_now();
    if let Some(reply_to) = &email.reply_to {
        builder = builder.reply_to(mailbox(reply_to)?);
    }
    match (text.as_str(), html.as_str()) {
        (text, "") => builder.singlepart(SinglePart::plain(text.to_owned())).map_err(of),
        ("", html) => builder.singlepart(SinglePart::html(html.to_owned())).map_err(of),
        (text, html) => {
            let parts = MultiPart::alternative_plain_html(text.to_owned(), html.to_owned());
            builder.multipart(parts).map_err(of)
        }
    }
}

fn mailbox(sender: &Sender) -> Result<Mailbox, String> {
    let name = Some(sender.name.clone()).filter(|name| !name.is_empty());
    Ok(Mailbox::new(name, address(&sender.address)?))
}

fn address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|_| "the mail library does not accept an address".to_owned())
}

impl SendClient for Smtp {
    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn send<'a>(
        &'a self,
        request: SendRequest<'a>,
        _errors: &'a ErrorTable,
    ) -> Pending<'a, SendAnswer> {
        Box::pin(async move {
            let Some(server) = self.server(request.account_sid) else {
                return without_call("the account has no mail server in email.file");
            };
            let Some(email) = Email::read(request.form) else {
                return without_call("the stored e-mail is not readable");
            };
            let domain =
                email.from.address.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
            // The id names the message, so that an operator finds it in the log of the mail server.
            let message_id = format!("{}@{domain}", request.id);
            let answer = self.deliver(server, &email, &message_id).await;
            let failure = failure(&answer);
            let outcome: SendOutcome = smtp_outcome(answer, &message_id);
            SendAnswer { outcome, failure, request_id: String::new() }
        })
    }
}

fn failure(answer: &SmtpAnswer) -> Option<CallFailure> {
    match answer {
        SmtpAnswer::Accepted(_) => None,
        SmtpAnswer::NotSent(_) => Some(CallFailure::NotConnected),
        SmtpAnswer::Lost(_) => Some(CallFailure::Lost),
        SmtpAnswer::Unauthorized(_) => Some(CallFailure::Operator),
        SmtpAnswer::Later(_) => Some(CallFailure::Temporary),
        SmtpAnswer::Refused { .. } => Some(CallFailure::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn email(text: &str, html: &str) -> Email {
        Email {
            to: "ava@example.com".into(),
            from: Sender { address: "shop@example.com".into(), name: "Sh\u{f6}p".into() },
            reply_to: None,
            body: Body::Own {
                subject: "Bestellung f\u{fc}r Ava".into(),
                text: text.into(),
                html: html.into(),
            },
        }
    }

    fn written(email: &Email) -> String {
        String::from_utf8(message(email, "ms_1@example.com").unwrap().formatted()).unwrap()
    }

    #[test]
    fn message_has_the_headers_of_a_mail_program() {
        let both = written(&email("hello", "<p>hello"));
        for line in [
            "To: ava@example.com\r\n",
            "Message-ID: <ms_1@example.com>\r\n",
            "multipart/alternative",
            "text/plain",
            "text/html",
        ] {
            assert!(both.contains(line), "{line}: {both}");
        }
        assert!(both.is_ascii() && both.contains("Date: "), "{both}");
        assert!(written(&email("hello", "")).contains("Content-Type: text/plain"));
        assert!(written(&email("", "<p>")).contains("Content-Type: text/html"));
    }

    #[test]
    fn line_break_in_a_subject_makes_no_header() {
        let injected = Email {
            body: Body::Own {
                subject: "a\r\nBcc: b@example.com".into(),
                text: "x".into(),
                html: String::new(),
            },
            ..email("x", "")
        };
        assert!(!written(&injected).contains("\r\nBcc:"), "{}", written(&injected));
    }
}
