//! Names of hosts that media are fetched from. A connection is opened to the addresses that were checked, and to no others:
//! whoever answers with another address the next time (DNS re-binding) is asked, and checked, again.

use std::{fmt, future::Future, io, net::IpAddr, net::SocketAddr, pin::Pin, sync::Arc};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use twilio_edge_domain::media::place::Places;

/// Most addresses of one name.
const MOST: usize = 32;

/// The addresses of a name, as they come.
pub type Answer<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Who knows the addresses of names.
pub trait Lookup: Send + Sync {
    /// Those of this one.
    fn lookup<'a>(&'a self, name: &'a str) -> Answer<'a>;
}

/// The system does.
#[derive(Debug)]
pub struct System;

impl Lookup for System {
    fn lookup<'a>(&'a self, name: &'a str) -> Answer<'a> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// A name is none that may be connected to: it has an address that is not public, or none.
#[derive(Debug)]
pub(super) struct NotPublic;

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a public address")
    }
}

impl std::error::Error for NotPublic {}

/// Only what may be connected to.
pub(super) struct Checked {
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) places: Arc<Places>,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, places) = (self.lookup.clone(), self.places.clone());
        Box::pin(async move {
            let found = lookup.lookup(name.as_str()).await.unwrap_or_default();
            // One address inside is enough to be none of ours: which of them is connected to is chance.
            let is_good = !found.is_empty() && found.iter().all(|address| places.allows(*address));
            if !is_good {
                return Err(NotPublic.into());
            }
            let found: Vec<SocketAddr> =
                found.into_iter().take(MOST).map(|address| SocketAddr::new(address, 0)).collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
