//! Redis, PostgreSQL and SQLite: outages, migrations, contention, query plans.

pub(crate) mod acknowledgements;
pub(crate) mod claim_contention;
pub(crate) mod migrations;
pub(crate) mod outages;
pub(crate) mod peers;
pub(crate) mod query_plans;
