//! Kinds of webhooks, each on a route of its own.

use twilio_edge_contract::Delivery;

use crate::webhook::Form;

/// Kind of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A message that is not an opt-out.
    Message,
    /// A message that says STOP. It is in effect regardless of its delivery.
    Stop,
    /// A status callback.
    Status,
    /// Signed, but neither a message nor a status.
    Other,
}

/// Policy of the route for a missing verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// `on_unavailable: forward`.
    Forward,
    /// `on_unavailable: reject`.
    Reject,
}

/// One kind of webhook on a route of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its class.
    pub class: Class,
    /// The component that delivers it.
    pub delivery: Delivery,
    /// Policy of the route for a missing verdict.
    pub policy: Policy,
}

impl Kind {
    /// Returns every kind. Webhooks of class other are never claimed, so they have neither `accept` nor a policy.
    pub fn all() -> Vec<Kind> {
        let mut all = Vec::new();
        for class in [Class::Message, Class::Stop, Class::Status] {
            for delivery in [Delivery::Forward, Delivery::Accept] {
                for policy in [Policy::Forward, Policy::Reject] {
                    all.push(Kind { class, delivery, policy });
                }
            }
        }
        let (delivery, policy) = (Delivery::Forward, Policy::Forward);
        all.push(Kind { class: Class::Other, delivery, policy });
        all
    }

    /// Returns the name of the class in the filter's configuration.
    pub fn class(self) -> &'static str {
        match self.class {
            Class::Message | Class::Stop => "inbound",
            Class::Status => "status",
            Class::Other => "other",
        }
    }

    /// Returns the path of its route.
    pub fn path(self) -> String {
        let delivery = if self.delivery == Delivery::Accept { "accept" } else { "forward" };
        let policy = if self.policy == Policy::Reject { "reject" } else { "forward" };
        format!("/app/{}/{delivery}/{policy}", self.class())
    }

    /// Returns a webhook of this kind.
    pub fn form(self) -> Form {
        let form = match self.class {
            Class::Message => Form::inbound("hello"),
            Class::Stop => Form::inbound("STOP"),
            Class::Status => Form::status("delivered"),
            Class::Other => Form::other(),
        };
        form.to(&self.path())
    }

    /// Returns the name of its test.
    pub fn name(self) -> String {
        let class = self.class.word();
        match self.class {
            Class::Other => class.to_owned(),
            _ => format!("{class}, {}, {}", delivery_word(self.delivery), self.policy.word()),
        }
    }
}

impl Class {
    pub(super) fn word(self) -> &'static str {
        match self {
            Class::Message => "message",
            Class::Stop => "STOP",
            Class::Status => "status",
            Class::Other => "other",
        }
    }
}

impl Policy {
    pub(super) fn word(self) -> &'static str {
        match self {
            Policy::Forward => "`forward`",
            Policy::Reject => "`reject`",
        }
    }
}

pub(super) fn delivery_word(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Forward => "forward",
        Delivery::Accept => "accept",
    }
}
