//! Tests of the compiled filter.
