//! Connections that others have opened to us.

use std::{os::fd::AsFd, time::Duration};

use nix::sys::socket::{setsockopt, sockopt};

/// How long a client may take none of an answer, as long as Prometheus waits for one: a scraper that
/// stands still must not keep a place that others wait for.
const TAKEN: Duration = Duration::from_secs(10);

/// Makes an accepted connection ready: answers leave at once, and one that is not taken ends it
/// (TCP_USER_TIMEOUT, tcp(7)).
pub(crate) fn prepare(stream: &impl AsFd) {
    // Both are refused only where the connection is already gone.
    let _slower_only = setsockopt(stream, sockopt::TcpNoDelay, &true);
    let milliseconds = u32::try_from(TAKEN.as_millis()).unwrap_or(u32::MAX);
    let _for_longer = setsockopt(stream, sockopt::TcpUserTimeout, &milliseconds);
}
