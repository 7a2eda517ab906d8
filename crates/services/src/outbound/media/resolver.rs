//! Name resolution for media. A connection is opened only to addresses that were checked. If a name resolves to other
//! addresses the next time (DNS rebinding), these are checked again.

use std::{fmt, future::Future, io, net::IpAddr, net::SocketAddr, pin::Pin, sync::Arc};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use twilio_edge_domain::media::url_policy::UrlPolicy;

/// Upper bound of addresses of one name.
const MAX_ADDRESSES: usize = 32;

/// Future of the addresses of a name.
pub type LookupResult<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Resolver of host names.
pub trait Lookup: Send + Sync {
    /// Resolves one name.
    fn lookup<'a>(&'a self, name: &'a str) -> LookupResult<'a>;
}

/// Resolver of the operating system.
#[derive(Debug)]
pub struct System;

impl Lookup for System {
    fn lookup<'a>(&'a self, name: &'a str) -> LookupResult<'a> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// The name must not be connected to: it has an address that is not public, or no address.
#[derive(Debug)]
pub(super) struct NotPublic;

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a public address")
    }
}

impl std::error::Error for NotPublic {}

/// Resolver that returns only permitted addresses.
pub(crate) struct PublicResolver {
    pub(crate) lookup: Arc<dyn Lookup>,
    pub(crate) places: Arc<UrlPolicy>,
}

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, places) = (self.lookup.clone(), self.places.clone());
        Box::pin(async move {
            let found = lookup.lookup(name.as_str()).await.unwrap_or_default();
            // One internal address is enough to refuse the name, because the client may connect to any of its
            // addresses.
            let is_good = !found.is_empty() && found.iter().all(|address| places.allows(*address));
            if !is_good {
                return Err(NotPublic.into());
            }
            let found: Vec<SocketAddr> = found
                .into_iter()
                .take(MAX_ADDRESSES)
                .map(|address| SocketAddr::new(address, 0))
                .collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
