//! x
use crate::suite::Scenario;
pub(crate) fn scenarios() -> Vec<Scenario> {
    Vec::new()
}
