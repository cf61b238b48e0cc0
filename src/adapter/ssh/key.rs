//! Private keys: from bytes to something that signs.

pub use russh::keys::PrivateKey;
