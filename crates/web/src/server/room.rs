//! How many connections there may be, in all and from one machine.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Files that a program may have open where the system does not say.
const FILES: usize = 256;

/// So many connections at most, and no more than leave half of the files that may be open: to images, the database and the rest.
pub fn connections(most: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    most.min(files(&limits).unwrap_or(FILES) / 2).max(16)
}

/// The first number, the limit that holds, of a line of proc_pid_limits(5).
fn files(limits: &str) -> Option<usize> {
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Connections of each machine elsewhere.
#[derive(Debug, Clone)]
pub struct Peers {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    most: usize,
}

impl Peers {
    /// So many of one machine at most; of this one any number.
    pub fn new(most: usize) -> Self {
        Self { counts: Arc::default(), most }
    }

    /// A place for a connection until it is dropped; `None` where the machine has all of its own.
    pub fn enter(&self, peer: IpAddr) -> Option<Place> {
        let peer = machine(peer);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        if *count >= self.most && !peer.is_loopback() {
            return None;
        }
        *count += 1;
        Some(Place { peers: self.clone(), peer })
    }
}

/// What one machine has at least in IPv6: a network of 64 bits.
fn machine(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)))
        }
        ip => ip,
    }
}

/// A place that is taken.
#[derive(Debug)]
pub struct Place {
    peers: Peers,
    peer: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.peers.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_machine_leaves_room_for_others() {
        let peers = Peers::new(2);
        let enter = |ip: &str| peers.enter(ip.parse().unwrap());
        let first = enter("192.0.2.1").unwrap();
        let _second = enter("::ffff:192.0.2.1").unwrap();
        assert!(enter("192.0.2.1").is_none() && enter("192.0.2.2").is_some());
        drop(first);
        assert!(enter("192.0.2.1").is_some());
        let _network = [enter("2001:db8::1").unwrap(), enter("2001:db8::2").unwrap()];
        assert!(enter("2001:db8::3").is_none() && enter("2001:db8:0:1::3").is_some());
        let own: Vec<Place> = (0..9).map(|_| enter("127.0.0.1").unwrap()).collect();
        assert_eq!(own.len(), 9);
    }

    #[test]
    fn connections_leave_files_for_images() {
        let limits = "Limit        Soft Limit   Hard Limit   Units\nMax open files            1024                 20000     files\n";
        assert_eq!((files(limits), files("")), (Some(1024), None));
        assert!(connections(1024) <= 1024);
    }
}
