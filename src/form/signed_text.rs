//! The text that Twilio signs after the origin of the URL: path and query, then every name and value, sorted and without
//! separators. It is built once for a request, for the signature and for the search for other cuts.

use super::{Field, Form, Parameter};

/// Path and query, then names and values concatenated.
#[derive(Debug)]
pub struct SignedText<'f> {
    text: String,
    entries: Vec<Entry<'f>>,
}

/// A parameter of the signed text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'f> {
    /// Position in the text at which the name begins.
    pub(super) start: usize,
    pub(super) name: &'f str,
    pub(super) value: &'f str,
    pub(super) field: Option<Field>,
}

impl<'f> SignedText<'f> {
    /// Creates the text of `target` and, if they are not part of it, the parameters. Each value of a repeated name is preceded
    /// by the name, so there is nothing to group.
    pub fn new(target: &str, form: Option<&'f Form<'_>>) -> Self {
        let bytes = |Parameter(name, value): &Parameter<'_>| name.len() + value.len();
        let (parameters, order) =
            form.map_or((&[][..], &[][..]), |form| (&form.parameters, &form.signed_order));
        let length = target.len() + parameters.iter().map(bytes).sum::<usize>();
        let mut text = String::with_capacity(length);
        text.push_str(target);
        let mut entries = Vec::with_capacity(order.len());
        for place in order {
            let Some(Parameter(name, value)) = parameters.get(usize::from(place.index)) else {
                continue;
            };
            entries.push(Entry { start: text.len(), name, value, field: place.field });
            text.push_str(name);
            text.push_str(value);
        }
        Self { text, entries }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the parameters in signed order.
    pub(super) fn entries(&self) -> &[Entry<'f>] {
        &self.entries
    }
}
