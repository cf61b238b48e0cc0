//! Addresses of 127.0.0.0/16: on Linux all of them are this machine, without set-up.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

/// Finds `count` addresses in a row and one port that is free on all of them.
///
/// The row starts at a random place, so that fleets of tests that run side by side do not meet.
pub(crate) fn free(count: usize) -> Vec<SocketAddr> {
    let count = u32::try_from(count).unwrap();
    let first = first(count);
    let row = |port| (0..count).map(move |n| SocketAddr::new(IpAddr::V4(Ipv4Addr::from(first + n)), port));
    loop {
        // Bound on ours alone: on all addresses at once it would be in the way of others that look for theirs.
        let probe = TcpListener::bind((Ipv4Addr::from(first), 0)).unwrap();
        let port = probe.local_addr().unwrap().port();
        if row(port).skip(1).all(|address| TcpListener::bind(address).is_ok()) {
            return row(port).collect();
        }
    }
}

/// Listens at such an address: nobody can take it between being found and being used.
pub(crate) fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::from(first(1)), 0)).unwrap()
}

/// Where a row of `count` addresses starts.
fn first(count: u32) -> u32 {
    // From 127.0.1.0 up to 127.0.254.255: below is where everybody else's servers are.
    let room = 254 * 256 - count;
    u32::from(Ipv4Addr::new(127, 0, 1, 0)) + getrandom::u32().unwrap() % room
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
