//! SSH: one connection, one channel, one delivery per host.
