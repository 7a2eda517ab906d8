//! Callouts that wait for a reply, by Envoy's id and by our token.

/// Callouts of one stream, or of the main thread.
#[derive(Debug, Default)]
pub(crate) struct OpenCallouts(Vec<OpenCallout>);

#[derive(Debug)]
struct OpenCallout {
    /// `None` while Envoy is sending it: the reply may come before the call of Envoy returns.
    id: Option<u64>,
    token: u32,
}

impl OpenCallouts {
    /// Records a callout before it is sent.
    pub(crate) fn begin(&mut self, token: u32) {
        self.0.push(OpenCallout { id: None, token });
    }

    /// Records the id with which Envoy sent it; `None` if it did not. Returns true if it must be treated as failed.
    pub(crate) fn record(&mut self, token: u32, id: Option<u64>) -> bool {
        let Some(at) = self.0.iter().position(|it| it.token == token) else { return false };
        match (id, self.0.get_mut(at)) {
            (Some(id), Some(callout)) => {
                callout.id = Some(id);
                false
            }
            _ => {
                self.0.swap_remove(at);
                true
            }
        }
    }

    /// Removes the callout whose reply has come, and returns its token.
    pub(crate) fn complete(&mut self, id: u64) -> Option<u32> {
        let known = self.0.iter().position(|it| it.id == Some(id));
        let at = known.or_else(|| self.0.iter().position(|it| it.id.is_none()))?;
        Some(self.0.swap_remove(at).token)
    }

    /// Removes all callouts, and returns their tokens.
    pub(crate) fn take(&mut self) -> Vec<u32> {
        self.0.drain(..).map(|it| it.token).collect()
    }
}
