//! Text of an error with its causes.

use std::{error::Error, iter};

/// Joins an error and its causes; the outermost error alone does not contain the reason.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<String>>().join(": ")
}
