//! The program under test.

pub(crate) mod program;
