//! Ports for servers that get theirs told.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Systems take the ports of outgoing connections from above.
const PORTS: Range<u16> = 16_000..32_000;

/// A loopback port that is free now, and stays so until it is listened on, also over a restart: no
/// outgoing connection takes it, and nobody else who asks here gets it.
pub fn free() -> Result<u16, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    // Processes that run side by side have numbers close to each other, and begin far apart.
    let first = std::process::id().wrapping_mul(9_887) % count;
    let places = (0..count).map(|_| (first + NEXT.fetch_add(1, Ordering::Relaxed)) % count);
    places
        .filter_map(|place| PORTS.start.checked_add(u16::try_from(place).ok()?))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| format!("no port of {PORTS:?} is free on the loopback interface"))
}
