//! Servers on free ports of 127.0.0.1. Each runs under a small shell that ends it and removes its files when this process ends,
//! however that happens.

mod postgres;
mod process;
mod redis;
mod slow_network;

pub(crate) use self::postgres::Postgres;
pub(crate) use self::process::{Guarded, eventually, eventually_within, free_port};
pub(crate) use self::redis::Redis;
pub(crate) use self::slow_network::SlowNetwork;
