//! The HTTP API as a whole: its description, its lists and views.

pub(crate) mod conformance;
pub(crate) mod endpoints;
pub(crate) mod guide;
pub(crate) mod message_lists;
pub(crate) mod message_views;
pub(crate) mod messages;
pub(crate) mod openapi;
