//! The hosts that other tests run against are what they claim to be.

mod embedded;
mod faulty;
mod openssh;
