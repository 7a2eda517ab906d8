//! Operations on stored data: retention, erasure, archive.

pub mod archive;
pub mod erasure;
pub mod retention;
