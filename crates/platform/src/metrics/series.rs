//! Series of a closed list, found without a look-up.

/// One series per element of a closed list, found by its position.
#[derive(Debug)]
pub(super) struct Series<T>(pub(super) Vec<T>);

impl<T> Series<T> {
    /// Changes the series of the element at `place`.
    pub(super) fn with(&self, place: usize, change: impl FnOnce(&T)) {
        if let Some(series) = self.0.get(place) {
            change(series);
        }
    }
}
