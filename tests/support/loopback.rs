//! Addresses of 127.0.0.0/16: on Linux all of them are this machine, without set-up.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// Finds `count` addresses in a row and one port that is free on all of them.
///
/// The row starts at a random place, so that fleets of tests that run side by side do not meet.
pub(crate) fn free(count: usize) -> Vec<SocketAddr> {
    let count = u32::try_from(count).unwrap();
    // From 127.0.1.0 up to 127.0.254.255: below is where everybody else's servers are.
    let room = 254 * 256 - count;
    let first = u32::from(Ipv4Addr::new(127, 0, 1, 0)) + getrandom::u32().unwrap() % room;
    // Bound on all addresses at once: free on each of ours.
    let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap().port();
    (0..count).map(|n| SocketAddr::new(IpAddr::V4(Ipv4Addr::from(first + n)), port)).collect()
}

/// Writes an inventory file of hosts: id, address and tags as `Role: web`.
pub(crate) fn inventory<'a>(hosts: impl IntoIterator<Item = (&'a str, SocketAddr, &'a str)>) -> String {
    let mut yaml = String::from("instances:\n");
    for (id, address, tags) in hosts {
        let (ip, port) = (address.ip(), address.port());
        writeln!(yaml, "  - {{ id: {id}, address: {ip}, port: {port}, tags: {{ {tags} }} }}").unwrap();
    }
    yaml
}
